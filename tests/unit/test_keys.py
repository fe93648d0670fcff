"""Where keys come from, what is refused, and the command line."""

from __future__ import annotations

import codecs
import copy
import errno
import functools
import hashlib
import io
import json
import os
import pickle
import re
import resource
import subprocess
import sys
from pathlib import Path

import pytest
import sha3
from eth_account import Account
from eth_keys import keys

from appliance import cli
from barewire.errors import BarewireError
from barewire.execution import keystore as keystore_module
from barewire.execution.keys import Key, is_keystore, load_credential, load_key, read_password
from barewire.execution.signer import Rfc6979Signer
from tests.requires import requires

SECRET = bytes(range(1, 33))
ADDRESS = keys.PrivateKey(SECRET).public_key.to_canonical_address()
PASSWORD = b"correct horse"


def private(path: Path, content: bytes, mode: int = 0o600) -> Path:
    path.write_bytes(content)
    path.chmod(mode)
    return path


@pytest.fixture(scope="module")
def keystore_text() -> bytes:
    """By another implementation, with little work, so that tests are quick."""
    return json.dumps(Account.encrypt(SECRET, PASSWORD.decode(), iterations=16)).encode()


@pytest.fixture
def keystore(tmp_path: Path, keystore_text: bytes) -> Path:
    return private(tmp_path / "keystore.json", keystore_text)


def test_a_keystore_is_read(keystore):
    with load_key(keystore, password=PASSWORD) as key:
        assert key.address == ADDRESS
        assert SECRET.hex() not in repr(key)
        with Rfc6979Signer(key) as signer:
            theirs = Account.unsafe_sign_hash(b"\1" * 32, SECRET)
            assert signer.sign_hash(b"\1" * 32).r == theirs.r.to_bytes(32, "big")


def test_the_other_kind_of_keystore():
    text = json.dumps(Account.encrypt(SECRET, "x", kdf="pbkdf2", iterations=16)).encode()
    assert keystore_module.decrypt(text, b"x") == (0, SECRET)


def test_ours_is_read_by_another_implementation():
    with Key.from_bytes(SECRET) as key:
        text = key.encrypted(PASSWORD, scrypt_n=16)
    assert Account.decrypt(json.loads(text), PASSWORD.decode()) == SECRET


def test_a_wrong_password_is_said(keystore):
    with pytest.raises(BarewireError, match="wrong password, or the file was changed"):
        load_key(keystore, password=b"battery staple")
    with pytest.raises(BarewireError, match="no password was given"):
        load_key(keystore)


def spoilt(text: bytes, how: str) -> bytes:
    keystore = json.loads(text)
    crypto = keystore["crypto"]
    if how == "cut off":
        return text[:100]
    if how == "version 1":
        keystore["version"] = 1
    elif how == "no crypto":
        del keystore["crypto"]
    elif how == "no mac":
        del crypto["mac"]
    elif how == "cipher":
        crypto["cipher"] = "rot13"
    elif how == "kdf":
        crypto["kdf"] = "md5"
    elif how == "no digits":
        crypto["ciphertext"] = "zz" * 32
    elif how == "list":
        return b"{}"
    elif how == "number":
        keystore["crypto"] = 7
    return json.dumps(keystore).encode()


@pytest.mark.parametrize(
    "how",
    ["cut off", "version 1", "no crypto", "no mac", "cipher", "kdf", "no digits", "list", "number"],
)
def test_every_corruption_is_recognised(keystore_text, how):
    assert keystore_module.decrypt(spoilt(keystore_text, how), PASSWORD)[0] == 4


def test_a_corrupt_keystore_is_said(tmp_path, keystore_text):
    path = private(tmp_path / "spoilt.json", spoilt(keystore_text, "no mac"))
    with pytest.raises(BarewireError, match=r"corrupt keystore: .*mac"):
        load_key(path, password=PASSWORD)


def changed(text: bytes, **crypto: object) -> bytes:
    """The keystore with other values in its crypto, or in the object of that name in it."""
    keystore = json.loads(text)
    for name, value in crypto.items():
        if isinstance(value, dict):
            keystore["crypto"][name].update(value)
        else:
            keystore["crypto"][name] = value
    return json.dumps(keystore).encode()


def test_a_keystore_of_another_key_than_it_says_is_corrupt(tmp_path, keystore_text):
    iv = json.loads(keystore_text)["crypto"]["cipherparams"]["iv"]
    other = f"{int(iv, 16) ^ 1:032x}"  # which the checksum does not cover
    text = changed(keystore_text, cipherparams={"iv": other})
    with pytest.raises(BarewireError, match=r"corrupt keystore: the key inside is of 0x.*address"):
        load_key(private(tmp_path / "iv.json", text), password=PASSWORD)
    short = changed(keystore_text, cipherparams={"iv": iv[:-2]})
    assert keystore_module.decrypt(short, PASSWORD) == (4, b"iv of 15 bytes, not 16")
    keystore = json.loads(keystore_text)
    keystore["address"] = "0x" + ADDRESS.hex()
    assert keystore_module.decrypt(json.dumps(keystore).encode(), PASSWORD) == (0, SECRET)
    del keystore["address"]
    assert keystore_module.decrypt(json.dumps(keystore).encode(), PASSWORD) == (0, SECRET)


@pytest.mark.parametrize(
    ("crypto", "said"),
    [
        ({"kdfparams": {"n": 1 << 24}}, rb"128 n r p = 17179869184 of scrypt, .* 1073741824"),
        ({"kdfparams": {"r": 1 << 40}}, rb"128 n r p"),
        ({"kdfparams": {"n": 2, "p": 1 << 19}}, rb"r p = 4194304 of scrypt, .* 1024"),
        ({"kdfparams": {"n": "16"}}, rb"n = '16', not a number"),
        ({"kdfparams": {"p": 0}}, rb"p = 0, not a number"),
        ({"kdfparams": {"dklen": 1 << 30}}, rb"dklen 1073741824, not 32"),
        ({"kdf": "pbkdf2", "kdfparams": {"c": 10**9}}, rb"c = 1000000000 of pbkdf2, .* 10000000"),
        ({"kdf": "pbkdf2", "kdfparams": {"c": 1, "prf": "hmac-md5"}}, rb"prf 'hmac-md5'"),
        ({"cipher": "\ud800" * 1000}, rb"cipher"),
        ({"padding": "x" * 65536}, rb"more than 65536 bytes"),
    ],
)
def test_what_opening_may_cost_is_bounded(keystore_text, crypto, said):
    status, text = keystore_module.decrypt(changed(keystore_text, **crypto), PASSWORD)
    assert status == 4
    assert re.search(said, text), text
    assert len(text) <= 300


@pytest.mark.parametrize("secret", [bytes(32), b"\xff" * 32])
def test_a_keystore_of_what_is_no_key_is_corrupt(secret):
    with pytest.raises(ValueError, match="no private key"):
        keystore_module._check_address(secret, ADDRESS.hex())


def test_a_keystore_of_nested_lists_is_corrupt():
    assert keystore_module.decrypt(b"[" * 60000, PASSWORD)[0] == 4


def test_a_changed_keystore_is_told_from_a_corrupt_one(keystore_text):
    keystore = json.loads(keystore_text)
    digits = keystore["crypto"]["ciphertext"]
    keystore["crypto"]["ciphertext"] = ("0" if digits[0] != "0" else "1") + digits[1:]
    assert keystore_module.decrypt(json.dumps(keystore).encode(), PASSWORD)[0] == 3


@pytest.mark.parametrize("mode", [0o640, 0o604, 0o660, 0o601, 0o644, 0o777])
def test_permissions_too_wide_are_refused(tmp_path, keystore_text, mode):
    path = private(tmp_path / "open.json", keystore_text, mode)
    with pytest.raises(BarewireError, match=f"mode {mode:04o}") as caught:
        load_key(path, password=PASSWORD)
    assert "chmod 600" in caught.value.hint
    with pytest.raises(BarewireError, match="mode"):
        read_password(path)


@pytest.mark.parametrize(
    "content",
    [
        SECRET,
        SECRET.hex().encode(),
        b"0x" + SECRET.hex().encode() + b"\n",
        b"0X" + SECRET.hex().upper().encode(),
        b"0x" + SECRET.hex().encode() + b"\r\n",
    ],
)
def test_a_bare_key_is_refused_unless_forced(tmp_path, content):
    path = private(tmp_path / "bare", content)
    with pytest.raises(BarewireError, match="bare key") as caught:
        load_key(path)
    assert "barewire keys import" in caught.value.hint
    assert load_key(path, force_raw=True).address == ADDRESS


@pytest.mark.parametrize(
    "content",
    [
        b"",
        SECRET[:31],
        SECRET + b"\0",
        SECRET.hex().encode()[:-1],
        SECRET.hex().encode() + b"\n\n",
        SECRET.hex().encode() + b"\r",
        b"0x" + SECRET.hex().encode() + b"00",
        b"zz" * 32,
        SECRET * 3,
        SECRET.hex().encode() + b"  ",
    ],
)
def test_what_is_no_key_is_said(tmp_path, content):
    path = private(tmp_path / "bare", content)
    with pytest.raises(BarewireError, match="neither 32 bytes nor 64 hexadecimal digits"):
        load_key(path, force_raw=True)


@pytest.mark.parametrize(
    "number", [0, 0xFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFEBAAEDCE6AF48A03BBFD25E8CD0364141]
)
def test_numbers_that_are_no_key_are_said(tmp_path, number):
    raw = number.to_bytes(32, "big")
    with pytest.raises(BarewireError, match="not a private key"):
        load_key(private(tmp_path / "bare", raw.hex().encode()), force_raw=True)
    with pytest.raises(BarewireError, match="not a private key"):
        Key.from_bytes(raw)


def test_files_that_are_none_are_refused(tmp_path):
    with pytest.raises(BarewireError, match="No such file"):
        load_key(tmp_path / "nothing")
    with pytest.raises(BarewireError, match="not a regular file"):
        load_key(tmp_path)


def test_someone_elses_file_is_refused(keystore):
    requires(os.geteuid() == 0, "root, who alone can give a file away")
    os.chown(keystore, 12345, -1)
    with pytest.raises(BarewireError, match="belongs to user 12345"):
        load_key(keystore, password=PASSWORD)


def geth_keystore(secret: bytes, password: str) -> dict:
    """As geth before 1.5 wrote it: without the zeros in front of a number."""
    made = Account.encrypt(secret, password, iterations=2)
    crypto, short = made["crypto"], secret.lstrip(b"\0")
    salt = bytes.fromhex(crypto["kdfparams"]["salt"])
    derived = hashlib.scrypt(password.encode(), salt=salt, n=2, r=8, p=1, dklen=32)
    whole = bytes.fromhex(crypto["ciphertext"])
    stream = bytes(a ^ b for a, b in zip(whole, secret, strict=True))
    sealed = bytes(a ^ b for a, b in zip(stream, short, strict=False))
    crypto["ciphertext"] = sealed.hex()
    crypto["mac"] = sha3.keccak_256(derived[16:] + sealed).hexdigest()
    return made


def but_slow(first, *others):
    """Parameters: each start of the process that decrypts takes half a second."""
    return [first, *(pytest.param(other, marks=pytest.mark.slow) for other in others)]


@pytest.mark.parametrize("zeros", [0, 1, 2, 31])
def test_a_key_without_the_zeros_in_front_is_read(zeros):
    secret = bytes(zeros) + SECRET[zeros:]
    made = geth_keystore(secret, "foo")
    assert len(made["crypto"]["ciphertext"]) == 2 * (32 - zeros)
    assert keystore_module.decrypt(json.dumps(made).encode(), b"foo") == (0, secret)


@pytest.mark.parametrize("zeros", but_slow(1, 0, 2, 31))
def test_a_key_without_the_zeros_in_front_is_loaded(tmp_path, zeros):
    secret = bytes(zeros) + SECRET[zeros:]
    path = private(tmp_path / "k", json.dumps(geth_keystore(secret, "foo")).encode())
    account = keys.PrivateKey(secret).public_key.to_canonical_address()
    assert load_key(path, password=b"foo").address == account


def test_vectors_of_geth():
    """accounts/keystore/testdata/v3_test_vector.json: 31_byte_key."""
    text = {
        "crypto": {
            "cipher": "aes-128-ctr",
            "cipherparams": {"iv": "e0c41130a323adc1446fc82f724bca2f"},
            "ciphertext": "9517cd5bdbe69076f9bf5057248c6c050141e970efa36ce53692d5d59a3984",
            "kdf": "scrypt",
            "kdfparams": {
                "dklen": 32,
                "n": 2,
                "r": 8,
                "p": 1,
                "salt": "711f816911c92d649fb4c84b047915679933555030b3552c1212609b38208c63",
            },
            "mac": "d5e116151c6aa71470e67a7d42c9620c75c4d23229847dcc127794f0732b0db5",
        },
        "id": "fecfc4ce-e956-48fd-953b-30f8b52ed66c",
        "version": 3,
    }
    secret = "00fa7b3db73dc7dfdf8c5fbdb796d741e4488628c41fc4febd9160a866ba0f35"
    opened = keystore_module.decrypt(json.dumps(text).encode(), b"foo")
    assert opened == (0, bytes.fromhex(secret))


WRITTEN = {
    "a byte-order mark": lambda text: codecs.BOM_UTF8 + text.encode(),
    "white space": lambda text: b" \r\n\t" + text.encode(),
    "lines of Windows": lambda text: text.replace(",", ",\r\n").encode() + b"\r\n",
    "UTF-16": lambda text: text.encode("utf-16"),
    "UTF-16, the other way round": lambda text: codecs.BOM_UTF16_BE + text.encode("utf-16-be"),
    "Crypto": lambda text: text.replace('"crypto"', '"Crypto"').encode(),
    "all in capitals": lambda text: (
        text.replace('"crypto"', '"CRYPTO"').replace('"version"', '"Version"').encode()
    ),
}


@pytest.mark.parametrize("how", WRITTEN)
def test_a_keystore_however_it_was_written(tmp_path, capsys, keystore_text, how):
    path = private(tmp_path / "k.json", WRITTEN[how](keystore_text.decode()))
    assert is_keystore(path)
    assert keystore_module.decrypt(path.read_bytes(), PASSWORD) == (0, SECRET)
    assert cli.main(["keys", "list", str(tmp_path), "-o", "json"]) == 0
    (row,) = json.loads(capsys.readouterr().out)
    assert bytes.fromhex(row["address"][2:]) == ADDRESS


@pytest.mark.parametrize("how", but_slow("UTF-16", *sorted(set(WRITTEN) - {"UTF-16"})))
def test_a_keystore_however_it_was_written_is_loaded(tmp_path, keystore_text, how):
    path = private(tmp_path / "k.json", WRITTEN[how](keystore_text.decode()))
    assert load_key(path, password=PASSWORD).address == ADDRESS


def test_a_bare_key_may_begin_with_any_byte(tmp_path, monkeypatch):
    monkeypatch.setenv("CREDENTIALS_DIRECTORY", str(tmp_path))
    for first in (0x00, 0x0A, 0x20, 0x7A, 0x7B, 0x7C, 0xEF, 0xFE):
        for rest in (b"\x11" * 31, b"\xbb\xbf{" + b"\x11" * 28, b"{" * 31):
            secret = (bytes([first]) + rest)[:32]
            if secret >= bytes.fromhex(
                "fffffffffffffffffffffffffffffffebaaedce6af48a03bbfd25e8cd0364141"
            ):
                continue
            path = private(tmp_path / "key", secret)
            account = keys.PrivateKey(secret).public_key.to_canonical_address()
            assert load_key(path, force_raw=True).address == account
            assert load_credential("key").address == account
            assert not is_keystore(path)


# ---- the process that decrypts ----


def decrypting(tmp_path: Path, **how: object) -> tuple[subprocess.Popen[bytes], bytes]:
    """The child, waiting for its password, and the line that it says before."""
    path = private(tmp_path / "k", json.dumps(Account.encrypt(SECRET, "x", iterations=2)).encode())
    with path.open("rb") as file:
        child = subprocess.Popen(
            [sys.executable, "-P", "-m", "barewire.execution.keystore", str(file.fileno())],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            pass_fds=[file.fileno()],
            **how,
        )
    assert child.stdout is not None
    return child, child.stdout.readline()


def test_what_decrypts_is_hardened_before_it_knows_the_password(tmp_path):
    child, said = decrypting(tmp_path)
    assert said.startswith(b"hardened")
    about = Path(f"/proc/{child.pid}")
    limits = (about / "limits").read_text()
    assert re.search(r"Max core file size +0 ", limits)
    if os.geteuid() == 0:  # what is not dumpable belongs to root, and locks what it likes
        locked = re.search(r"VmLck:\s+(\d+) kB", (about / "status").read_text())
        assert said == b"hardened \n" or b"memory" in said
        assert said != b"hardened \n" or int(locked[1]) > 1000
    out, _ = child.communicate(b"x", timeout=30)
    assert (child.returncode, out) == (0, SECRET)


NOBODY = """
import ctypes, errno, io, json, os, pathlib, sys
from eth_keyfile import decode_keyfile_json
from barewire.execution import keystore

# What it imports only then, nobody may not be allowed to read.
decode_keyfile_json(json.loads(pathlib.Path(sys.argv[1]).read_bytes()), b"x")

def nobody():
    os.setgroups([])
    os.setresgid(65534, 65534, 65534)
    os.setresuid(65534, 65534, 65534)
    ctypes.CDLL(None).prctl(4, 1, 0, 0, 0)  # as a process that was started so

class Password(io.BytesIO):
    def read(self):  # asked for when it is hardened
        os.kill(os.getpid(), 19)
        return b"x"

store = os.open(sys.argv[1], os.O_RDONLY)
child = os.fork()
if not child:
    nobody()
    os._exit(keystore.main([str(store)], Password()))
os.waitpid(child, os.WUNTRACED)
thief = os.fork()
if not thief:
    nobody()
    for name in ("mem", "fd/0", "environ"):
        try:
            os.open(f"/proc/{child}/{name}", os.O_RDONLY)
            print("opened", name)
        except PermissionError:
            print("refused", name)
    libc = ctypes.CDLL(None, use_errno=True)
    print(libc.ptrace(0x4206, child, 0, 0), errno.errorcode[ctypes.get_errno()], flush=True)
    os._exit(0)
os.waitpid(thief, 0)
os.kill(child, 18)
print(os.waitpid(child, 0)[1])
"""


def test_nobody_reads_what_decrypts_for_nobody(tmp_path):
    """The same user can neither trace it nor read its memory or its pipes."""
    requires(os.geteuid() == 0, "root, who alone can become another user")
    path = private(tmp_path / "k", json.dumps(Account.encrypt(SECRET, "x", iterations=2)).encode())
    done = subprocess.run(
        [sys.executable, "-c", NOBODY, str(path)], capture_output=True, timeout=60, check=True
    )
    ready, _, rest = done.stdout.partition(b"\n")
    assert ready == b"hardened " or b"RLIMIT_MEMLOCK" in ready  # said, where it is not allowed
    told = rest.replace(SECRET, b"").decode().split()
    assert told == ["refused", "mem", "refused", "fd/0", "refused", "environ", "-1", "EPERM", "0"]
    assert SECRET in rest


def test_a_child_that_is_traced_is_told_no_password(tmp_path, monkeypatch, capfd):
    monkeypatch.setattr(keystore_module, "traced_by", lambda: 4711)
    monkeypatch.setattr(keystore_module, "harden", lambda: None)
    assert keystore_module.main(["0"], io.BytesIO(b"x")) == keystore_module.TRACED
    captured = capfd.readouterr()
    assert captured.out == ""
    assert "process 4711 traces" in captured.err


def test_a_systemd_credential_is_read(tmp_path, monkeypatch, keystore_text):
    monkeypatch.delenv("CREDENTIALS_DIRECTORY", raising=False)
    with pytest.raises(BarewireError, match="no systemd credentials"):
        load_credential("key")
    monkeypatch.setenv("CREDENTIALS_DIRECTORY", str(tmp_path))
    private(tmp_path / "key", SECRET.hex().encode(), 0o440)  # the unit's user has it by an ACL
    private(tmp_path / "store", keystore_text, 0o400)
    private(tmp_path / "wide", SECRET.hex().encode(), 0o444)
    assert load_credential("key").address == ADDRESS
    assert load_credential("store", password=PASSWORD).address == ADDRESS
    with pytest.raises(BarewireError, match="mode 0444"):
        load_credential("wide")
    for name in ("../key", "", "..", "a/b"):
        with pytest.raises(BarewireError, match="not the name"):
            load_credential(name)


def test_a_fifo_is_not_waited_for(tmp_path, capsys, keystore):
    fifo = tmp_path / "fifo"
    os.mkfifo(fifo, 0o600)
    for read in (load_key, read_password):
        with pytest.raises(BarewireError, match="not a regular file"):
            read(fifo)
    for words in (
        ["address", fifo],
        ["address", keystore, "--password-file", fifo],
        ["import", tmp_path / "x", "--from", fifo],
    ):
        status, _, err = barewire(capsys, *words)
        assert (status, "not a regular file" in err) == (2, True), err


@pytest.mark.parametrize("duplicate", [copy.copy, copy.deepcopy, pickle.dumps])
def test_a_key_is_not_copied(duplicate):
    with Key.from_bytes(SECRET) as key, pytest.raises(TypeError, match="owns native memory"):
        duplicate(key)


def test_generated_keys_differ():
    assert Key.generate().address != Key.generate().address


def test_a_closed_key_is_closed():
    key = Key.from_bytes(SECRET)
    key.close()
    key.close()
    with pytest.raises(BarewireError, match="closed"):
        key.encrypted(b"x", scrypt_n=2)


# ---- the command line ----


def barewire(capsys: pytest.CaptureFixture[str], *words: object) -> tuple[int, str, str]:
    status = cli.main(["keys", *map(str, words)])
    said = capsys.readouterr()
    return status, said.out, said.err


def test_new_list_and_address(tmp_path, capsys):
    password = private(tmp_path / "password", PASSWORD + b"\n")
    store = tmp_path / "a.json"
    status, out, _ = barewire(capsys, "new", store, "--password-file", password, "-o", "json")
    assert status == 0
    made = json.loads(out)
    assert store.stat().st_mode & 0o777 == 0o600
    assert Account.decrypt(store.read_text(), PASSWORD.decode())

    (tmp_path / "notes.txt").write_text("{}")
    status, out, _ = barewire(capsys, "list", tmp_path, "-o", "json")
    assert (status, json.loads(out)) == (
        0,
        [{"address": made["address"], "keystore": str(store), "mode": "0600", "kdf": "scrypt"}],
    )
    status, out, _ = barewire(capsys, "list", tmp_path)
    assert status == 0
    assert made["address"][:20] in out

    status, out, _ = barewire(capsys, "address", store, "--password-file", password)
    assert (status, out.strip()) == (0, made["address"])

    status, _, err = barewire(capsys, "new", store, "--password-file", password)
    assert status == 2
    assert "there already" in err


@pytest.fixture
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """Keystores are written with little work."""
    monkeypatch.setattr(Key, "encrypted", functools.partialmethod(Key.encrypted, scrypt_n=16))


def test_a_keystore_that_could_not_be_written_is_not_there(tmp_path, capsys, quick):
    password = private(tmp_path / "password", PASSWORD)
    before = sorted(tmp_path.iterdir())
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (100, limits[1]))
    try:
        status, _, err = barewire(capsys, "new", tmp_path / "a", "--password-file", password)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert (status, "File too large; nothing was written" in err) == (2, True), err
    assert sorted(tmp_path.iterdir()) == before
    (tmp_path / "a").symlink_to(tmp_path / "nothing")
    status, _, err = barewire(capsys, "new", tmp_path / "a", "--password-file", password)
    assert (status, "File exists; nothing was written" in err) == (2, True), err
    assert not (tmp_path / "nothing").exists()


def test_a_keystore_whose_folder_is_not_kept_is_not_there(tmp_path, capsys, monkeypatch, quick):
    password = private(tmp_path / "password", PASSWORD)

    def broken(path: Path) -> None:
        raise OSError(errno.EIO, os.strerror(errno.EIO))

    monkeypatch.setattr("appliance.commands.keys._sync_folder", broken)
    status, _, err = barewire(capsys, "new", tmp_path / "a", "--password-file", password)
    assert (status, "nothing was written" in err) == (2, True), err
    assert sorted(tmp_path.iterdir()) == [password]


def test_names_of_keystores_are_no_markup(tmp_path, capsys, monkeypatch, keystore_text):
    private(tmp_path / "[red]a[", keystore_text)
    monkeypatch.chdir(tmp_path)
    status, out, _ = barewire(capsys, "list", ".")
    assert (status, "[red]a[" in out) == (0, True)


def test_what_cannot_be_read_does_not_end_a_list(tmp_path, capsys, monkeypatch, keystore_text):
    private(tmp_path / "a.json", keystore_text)
    private(tmp_path / "b.json", keystore_text.replace(b'"scrypt"', b'"\\u001b[31m"'))
    private(tmp_path / "c.json", keystore_text)
    real = Path.read_bytes

    def read(path):
        if path.name == "a.json":
            raise PermissionError(errno.EACCES, "Permission denied", str(path))
        return real(path)

    monkeypatch.setattr(Path, "read_bytes", read)
    monkeypatch.chdir(tmp_path)
    status, out, err = barewire(capsys, "list", ".")
    assert (status, "a.json: Permission denied" in err) == (1, True), err
    assert "a.json" not in out
    assert "c.json" in out
    assert "\x1b[31m" not in out
    monkeypatch.setattr("appliance.commands.keys._list", lambda args: read(args.folder / "a.json"))
    status, _, err = barewire(capsys, "list", tmp_path)
    assert (status, "a.json: Permission denied" in err) == (2, True), err


@pytest.mark.parametrize("text", [b"[" * 65_000, b'{"crypto":' * 6_000, b'{"crypto":"\xff"}'])
def test_a_file_that_is_no_keystore_is_none(tmp_path, capsys, text):
    private(tmp_path / "a.json", text)
    before = sys.getrecursionlimit()
    try:
        sys.setrecursionlimit(100_000)  # as where a library of web3's world is in the process
        assert cli.main(["keys", "list", str(tmp_path), "-o", "json"]) == 0
    finally:
        sys.setrecursionlimit(before)
    assert json.loads(capsys.readouterr().out) == []


def test_import(tmp_path, capsys, quick):
    password = private(tmp_path / "password", PASSWORD)
    bare = private(tmp_path / "bare", SECRET.hex().encode())
    store = tmp_path / "b.json"
    words = ["import", store, "--from", bare, "--password-file", password, "-o", "json"]
    status, out, _ = barewire(capsys, *words)
    assert status == 0
    assert json.loads(out)["address"] == Account.from_key(SECRET).address
    assert Account.decrypt(store.read_text(), PASSWORD.decode()) == SECRET

    again = tmp_path / "c.json"
    status, out, _ = barewire(
        capsys,
        "import",
        again,
        "--from",
        store,
        "--from-password-file",
        password,
        "--password-file",
        password,
        "-o",
        "json",
    )
    assert status == 0
    assert Account.decrypt(again.read_text(), PASSWORD.decode()) == SECRET


def test_what_the_command_line_refuses(tmp_path, capsys):
    password = private(tmp_path / "password", PASSWORD)
    bare = private(tmp_path / "bare", SECRET.hex().encode())
    refused = [
        (["address", bare], "bare key"),
        (["address", tmp_path / "nothing"], "No such file"),
        (["address", tmp_path], "not a regular file"),
        (["import", tmp_path / "x", "--from", tmp_path / "nothing"], "No such file"),
        (["list", tmp_path / "nothing"], "not a folder"),
        (["new", tmp_path / "x"], "--password-file"),
        (["new", tmp_path / "no/such/x", "--password-file", password], "No such file"),
        (["new", tmp_path / "x", "--password-file", private(tmp_path / "e", b"\n")], "empty"),
        (["new", tmp_path / "x", "--password-file", private(tmp_path / "w", b"p", 0o644)], "mode"),
    ]
    for words, said in refused:
        status, _, err = barewire(capsys, *words)
        assert (status, said in err) == (2, True), (words, err)
    assert not (tmp_path / "x").exists()
    status, out, _ = barewire(capsys, "address", bare, "--force-raw")
    assert (status, out.strip()) == (0, Account.from_key(SECRET).address)


def test_a_password_is_asked_for_twice(tmp_path, capsys, monkeypatch, quick):
    answers = iter(["one", "another", "same", "same", "same"])
    monkeypatch.setattr("sys.stdin.isatty", lambda: True)
    monkeypatch.setattr("getpass.getpass", lambda prompt: next(answers))
    store = tmp_path / "asked.json"
    status, _, err = barewire(capsys, "new", store)
    assert (status, "differ" in err, store.exists()) == (2, True, False)
    assert barewire(capsys, "new", store)[0] == 0
    status, out, _ = barewire(capsys, "address", store)
    assert (status, out[:2]) == (0, "0x")
