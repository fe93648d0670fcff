"""Compiles the fuzzers of this folder and runs them; see README.md beside this file."""

from __future__ import annotations

import hashlib
import importlib
import re
import subprocess
from dataclasses import dataclass
from pathlib import Path

from tests.pace import installing

HERE = Path(__file__).resolve().parent
ROOT = HERE.parents[1]
CACHE = ROOT / ".cache" / "fuzz"

INCLUDES = [
    "dpdk_bindings/include",
    "dpdk_bindings/include/dpdk_bindings",
    "dpdk_bindings/native",
    "dpdk_bindings/lwip",
    "src/barewire/native",
]
SANITIZERS = "address,undefined"
COMMON = ["-std=gnu11", "-g", "-O1", "-fno-omit-frame-pointer", "-fno-sanitize-recover=all"]


@dataclass(frozen=True)
class Fuzzer:
    """One fuzz_NAME.c and what its first comment says."""

    name: str
    path: Path
    sources: tuple[Path, ...]
    runs: int
    max_len: int
    flags: tuple[str, ...]

    @property
    def corpus(self) -> Path:
        """Found inputs, and hand-made ones, kept in the repository."""
        return HERE / "corpus" / self.name


def fuzzers() -> list[Fuzzer]:
    """Every fuzzer of this folder."""
    return [_read(path) for path in sorted(HERE.glob("fuzz_*.c"))]


def _read(path: Path) -> Fuzzer:
    comment = re.match(r"(?://.*\n)*", path.read_text())
    assert comment
    said = dict(re.findall(r"^// (sources|flags|runs|max_len): *(.*)$", comment[0], re.MULTILINE))
    sources = [file for pattern in said["sources"].split() for file in sorted(ROOT.glob(pattern))]
    assert sources, f"{path.name}: its sources line names no file that exists"
    runs, max_len = int(said.get("runs", 1_000_000)), int(said.get("max_len", 4096))
    flags = tuple(said.get("flags", "").split())
    return Fuzzer(path.stem[5:], path, tuple(sources), runs, max_len, flags)


def build(fuzzer: Fuzzer, *, libfuzzer: bool) -> Path:
    """The program that fuzzes (clang) or replays (gcc), compiled anew if its parts changed."""
    own = [fuzzer.path, *fuzzer.sources]
    if libfuzzer:
        compiler = ["clang-14", f"-fsanitize=fuzzer,{SANITIZERS}"]
    else:
        compiler = ["gcc", f"-fsanitize={SANITIZERS}"]
        own.append(HERE / "replay.c")
    command = [*compiler, *COMMON, *(f"-I{ROOT / folder}" for folder in INCLUDES)]
    material = hashlib.sha256(" ".join([*command, *fuzzer.flags]).encode())
    for file in sorted({*own, *(h for folder in INCLUDES for h in (ROOT / folder).glob("*.h"))}):
        material.update(file.read_bytes())
    program = CACHE / f"{fuzzer.name}-{compiler[0]}-{material.hexdigest()[:16]}"
    if not program.exists():
        CACHE.mkdir(parents=True, exist_ok=True)
        for stale in CACHE.glob(f"{fuzzer.name}-{compiler[0]}-*"):
            stale.unlink()
        with installing():
            done = subprocess.run(
                [*command, *map(str, own), *fuzzer.flags, "-ldl", "-lpthread", "-o", str(program)],
                capture_output=True,
                text=True,
                cwd=ROOT,
            )
        assert done.returncode == 0, f"{fuzzer.name} does not compile:\n{done.stderr}"
    return program


def seed(fuzzer: Fuzzer, folder: Path) -> list[Path]:
    """Writes the inputs of seeds_NAME.py, where there is one, into `folder`."""
    if not (HERE / f"seeds_{fuzzer.name}.py").exists():
        return []
    folder.mkdir(parents=True, exist_ok=True)
    module = importlib.import_module(f"tests.fuzz.seeds_{fuzzer.name}")
    paths = []
    for number, data in enumerate(module.seeds()):
        paths.append(folder / f"seed-{number:04}")
        paths[-1].write_bytes(data)
    return paths


def replay(fuzzer: Fuzzer, folder: Path) -> int:
    """Runs every kept input and every seed once; returns how many there were."""
    inputs = [*sorted(p for p in fuzzer.corpus.glob("*") if p.is_file()), *seed(fuzzer, folder)]
    program = build(fuzzer, libfuzzer=False)
    done = subprocess.run(
        [str(program)],
        input="".join(f"{path}\n" for path in inputs),
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert done.returncode == 0, f"{done.stdout[-300:]}\n{done.stderr[-4000:]}"
    return len(inputs)


def fuzz(fuzzer: Fuzzer, folder: Path) -> None:
    """Runs libFuzzer; an input that fails is left in corpus/NAME/, where the replay finds it."""
    seed(fuzzer, folder / "seeds")
    (folder / "new").mkdir(parents=True)
    fuzzer.corpus.mkdir(parents=True, exist_ok=True)
    done = subprocess.run(
        [
            str(build(fuzzer, libfuzzer=True)),
            f"-runs={fuzzer.runs}",
            f"-max_len={fuzzer.max_len}",
            "-timeout=10",
            "-rss_limit_mb=2048",
            "-print_final_stats=1",
            f"-artifact_prefix={fuzzer.corpus}/found-",
            str(folder / "new"),
            str(fuzzer.corpus),
            *([str(folder / "seeds")] if (folder / "seeds").exists() else []),
        ],
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr[-6000:]
    executed = re.search(r"stat::number_of_executed_units: *(\d+)", done.stderr)
    assert executed
    assert int(executed[1]) >= fuzzer.runs
    print(f"{fuzzer.name}: {int(executed[1]):,} executions")
