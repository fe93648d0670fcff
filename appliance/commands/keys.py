"""Make, import and list signing keys.

Keys are kept in keystore files (Web3 Secret Storage, version 3) with mode 0600. The password is
asked for, or read from the first line of a file with mode 0600.
"""

from __future__ import annotations

import argparse
import getpass
import os
import stat
import sys
import tempfile
from pathlib import Path
from typing import Any

from rich.markup import escape
from rich.table import Table

from appliance.output import add_output_argument, complain, console, print_json
from barewire.errors import BarewireError
from barewire.execution import keystore
from barewire.execution.keys import Key, is_keystore, load_key, read_password
from barewire.execution.request import checksummed
from barewire.untrusted import printable

__all__ = ["add_arguments", "run"]


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Adds new, import, list and address to `parser`."""
    verbs = parser.add_subparsers(dest="verb", metavar="VERB", required=True)
    new = verbs.add_parser("new", help="draw a new key and write its keystore")
    new.add_argument("keystore", type=Path, help="the file to write")
    bring = verbs.add_parser("import", help="put a bare key, or another keystore, into a keystore")
    bring.add_argument("keystore", type=Path, help="the file to write")
    bring.add_argument(
        "--from",
        dest="source",
        type=Path,
        required=True,
        metavar="FILE",
        help="a file of mode 0600 with 32 bytes or 64 hexadecimal digits, or a keystore",
    )
    bring.add_argument(
        "--from-password-file", type=Path, metavar="FILE", help="password of that keystore"
    )
    show = verbs.add_parser("list", help="list the keystores in a folder")
    show.add_argument("folder", type=Path)
    address = verbs.add_parser("address", help="open a key and print its address")
    address.add_argument("key", type=Path, help="a keystore")
    address.add_argument("--force-raw", action="store_true", help="accept a file of a bare key")
    for verb in (new, bring, address):
        verb.add_argument(
            "--password-file", type=Path, metavar="FILE", help="password of the keystore"
        )
    for verb in (new, bring, show, address):
        add_output_argument(verb)


def run(args: argparse.Namespace) -> int:
    """Runs one verb."""
    verb = {"new": _new, "import": _import, "list": _list, "address": _address}[args.verb]
    try:
        return verb(args) or 0
    except PermissionError as error:
        raise BarewireError(f"{error.filename}: {error.strerror}") from error


def _password(file: Path | None, prompt: str, *, twice: bool = False) -> bytes:
    if file:
        return read_password(file)
    if not sys.stdin.isatty():
        raise BarewireError("no terminal to ask for a password", hint="--password-file FILE")
    password = getpass.getpass(prompt)
    if twice and getpass.getpass("once more: ") != password:
        raise BarewireError("the two passwords differ; nothing was written")
    return password.encode()


def _write(key: Key, args: argparse.Namespace) -> None:
    """Writes the keystore of `key`, which must not be there yet, and says what was written."""
    path: Path = args.keystore
    if path.exists():
        raise BarewireError(f"{path} is there already; nothing was written")
    password = _password(args.password_file, "password of the new keystore: ", twice=True)
    if not password:
        raise BarewireError("an empty password; nothing was written")
    text = key.encrypted(password)
    try:
        _put(path, text)
    except OSError as error:
        raise BarewireError(f"{path}: {error.strerror}; nothing was written") from error
    _say(args, {"address": checksummed(key.address), "keystore": str(path)})


def _put(path: Path, text: bytes) -> None:
    """Makes the file `path`, of mode 0600, with all of `text` in it or not at all."""
    fd, temporary = tempfile.mkstemp(prefix=f".{path.name}.", dir=path.parent)
    try:
        with os.fdopen(fd, "wb") as file:
            file.write(text)
            file.flush()
            os.fsync(fd)
        os.link(temporary, path)  # unlike a rename, never over another file
    finally:
        Path(temporary).unlink()
    try:
        _sync_folder(path.parent)
    except OSError:
        path.unlink()
        raise


def _sync_folder(path: Path) -> None:
    fd = os.open(path, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)


def _say(args: argparse.Namespace, fields: dict[str, Any]) -> None:
    if args.output == "json":
        print_json(fields)
    else:
        sys.stdout.write("  ".join(str(value) for value in fields.values()) + "\n")


def _new(args: argparse.Namespace) -> None:
    with Key.generate() as key:
        _write(key, args)


def _open(path: Path, password_file: Path | None, *, force_raw: bool) -> Key:
    sealed = is_keystore(path)
    password = _password(password_file, f"password of {path}: ") if sealed else None
    return load_key(path, password=password, force_raw=force_raw)


def _import(args: argparse.Namespace) -> None:
    with _open(args.source, args.from_password_file, force_raw=True) as key:
        _write(key, args)


def _address(args: argparse.Namespace) -> None:
    with _open(args.key, args.password_file, force_raw=args.force_raw) as key:
        _say(args, {"address": checksummed(key.address)})


def _list(args: argparse.Namespace) -> int:
    """Lists what can be read; the status is 1 where some cannot."""
    if not args.folder.is_dir():
        raise BarewireError(f"{args.folder}: not a folder")
    rows, unread = [], 0
    for path in sorted(args.folder.iterdir()):
        try:
            rows += [row] if (row := _keystore(path)) else []
        except OSError as error:
            complain(f"{path}: {error.strerror}")
            unread = 1
    if args.output == "json":
        print_json(rows)
        return unread
    table = Table("address (as the file says)", "keystore", "mode", "kdf")
    for row in rows:
        shown = (printable(str(row[name])) for name in ("address", "keystore", "mode", "kdf"))
        table.add_row(*(escape(word) for word in shown))
    console.print(table)
    return unread


def _keystore(path: Path) -> dict[str, Any] | None:
    """What the keystore at `path` says of itself without a password; None if it is none."""
    if not path.is_file() or path.stat().st_size > 65536:
        return None
    try:
        content = keystore.parsed(path.read_bytes())
        said = content.get("address", "").removeprefix("0x")
        kdf = content["crypto"]["kdf"]
        address = checksummed(bytes.fromhex(said)) if said else None
    except (KeyError, TypeError, AttributeError, ValueError):
        return None
    mode = stat.S_IMODE(path.stat().st_mode)
    return {"address": address, "keystore": str(path), "mode": f"{mode:04o}", "kdf": kdf}
