"""Triggers read again while packets flow: what SIGHUP asks for.

To read and compile many triggers takes seconds, which a hot thread has not. A process of its own
does it, ``python -m appliance.reload CONFIG``; the hot thread builds the native table from the
result and swaps it in, and sees nothing of the triggers but their names and a text to write down.
Nothing but the triggers is taken from the file; the rest waits for the next start.
"""

from __future__ import annotations

import subprocess
import sys
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import IO, Any

import msgspec

from appliance import config
from appliance.beside import start_beside
from appliance.firing import signatures_needed
from appliance.output import complain
from barewire.errors import BarewireError
from barewire.mempool.triggers import compile_triggers
from dpdk_bindings.errors import BindingsError

__all__ = ["Compiled", "Reload"]


class Compiled(msgspec.Struct, frozen=True):
    """What `TriggerTable.replace_serialised` takes, and the triggers as JSON for the recorder.

    `signatures` says what in them needs libsecp256k1, if anything does.
    """

    names: list[str]
    text: bytes
    blob: bytes
    signatures: str = ""


class Reload:
    """At most one compilation at a time; none of its methods waits.

    Args:
        where: the configuration.
        folder: on a tmpfs, where the result is handed over.

    Attributes:
        said: what became of the last one, or empty.
    """

    def __init__(self, where: Path, folder: Path) -> None:
        self._where = where
        self._folder = folder
        self._process: subprocess.Popen[bytes] | None = None
        self._result: IO[bytes] | None = None
        self._words: IO[bytes] | None = None
        self._again: Mapping[str, int] | None = None
        self.said = ""

    def begin(self, shots: Mapping[str, int]) -> None:
        """Starts one, for triggers that may name `shots`; where one runs, when it has finished.

        What runs may have read the file before it was written anew.
        """
        if self._process is not None:
            self._again = shots
            return
        try:
            self._result = tempfile.TemporaryFile(dir=self._folder)  # noqa: SIM115  until poll()
            self._words = tempfile.TemporaryFile(dir=self._folder)  # noqa: SIM115
            with tempfile.TemporaryFile(dir=self._folder) as numbers:
                numbers.write(msgspec.json.encode(dict(shots)))
                numbers.seek(0)
                self._process = start_beside(
                    [sys.executable, "-P", "-m", "appliance.reload", str(self._where)],
                    stdin=numbers,
                    stdout=self._result,
                    stderr=self._words,
                )
        except OSError as error:  # no room, no folder, no process: the loop goes on
            self.close()
            self.said = f"triggers stay as they are: {self._folder}: {error.strerror}"
            return
        self.said = "triggers are being read again"

    def poll(self) -> Compiled | None:
        """What is finished, once; of a failure :attr:`said` tells."""
        if self._process is None or (status := self._process.poll()) is None:
            return None
        assert self._result is not None
        assert self._words is not None
        self._result.seek(0)
        self._words.seek(0)
        raw, words = self._result.read(), self._words.read().decode(errors="replace")
        again, self._again = self._again, None
        self.close()
        if again is not None:
            self.begin(again)
        if status:
            self.said = f"triggers stay as they are: {' '.join(words.split())[-500:]}"
            return None
        compiled = msgspec.msgpack.decode(raw, type=Compiled)
        self.said = f"{len(compiled.names):,} triggers are in use"
        return compiled

    def close(self) -> None:
        """Ends what runs, and forgets it."""
        if self._process is not None:
            self._process.kill()
            self._process.wait()
            self._process = None
        for file in (self._result, self._words):
            if file is not None:
                file.close()


def main(where: Path, numbers: Any) -> int:
    """Compiles the triggers of the configuration at `where` to stdout."""
    try:
        loaded = config.load(where)
        blob = compile_triggers(loaded.trigger, shots=numbers)
    except (BarewireError, BindingsError) as error:
        complain(error.message, error.hint)
        return 2
    names = [trigger.name for trigger in loaded.trigger]
    compiled = Compiled(names, msgspec.json.encode(loaded.trigger), blob, signatures_needed(loaded))
    sys.stdout.buffer.write(msgspec.msgpack.encode(compiled))
    return 0


if __name__ == "__main__":
    sys.exit(main(Path(sys.argv[1]), msgspec.json.decode(sys.stdin.buffer.read())))
