"""Makes the C header, the Python names and the table of ``schema.toml``.

Run ``python -m appliance.metrics.generate`` in a checkout after a change of the schema.
"""

from __future__ import annotations

import hashlib
import re
import sys
import tomllib
from dataclasses import dataclass
from pathlib import Path

__all__ = ["OUTPUTS", "main"]

ROOT = Path(__file__).resolve().parents[2]
SCHEMA = ROOT / "appliance/metrics/schema.toml"
_NOTE = "Generated from appliance/metrics/schema.toml by appliance.metrics.generate."

Metrics = list[dict[str, str]]


@dataclass(frozen=True)
class _Schema:
    counters: Metrics
    histograms: Metrics
    always: Metrics
    key: int

    def all(self) -> list[tuple[str, str, str]]:
        """Full name, type and help of every metric that Prometheus sees."""
        rows = [(f"{m['name']}_total", "counter", m["help"]) for m in self.counters]
        rows += [(m["name"], "histogram", m["help"]) for m in self.histograms]
        rows += [(m["name"], m["type"], m["help"]) for m in self.always]
        return [(f"barewire_{name}", kind, text) for name, kind, text in rows]


def _load() -> _Schema:
    schema: dict[str, Metrics] = tomllib.loads(SCHEMA.read_text())
    counters, histograms = schema["counter"], schema["histogram"]
    for metric in counters + histograms + schema["always"]:
        if not re.fullmatch(r"[a-z][a-z_]*[a-z]", metric["name"]) or not metric["help"]:
            raise ValueError(f"{SCHEMA}: {metric}")
    for metric in histograms:
        if not metric["name"].endswith("_seconds"):
            raise ValueError(f"{SCHEMA}: a histogram is of seconds, and {metric} is not")
    places = repr([[m["name"] for m in metrics] for metrics in (counters, histograms)])
    digest = hashlib.sha256(places.encode()).digest()
    return _Schema(counters, histograms, schema["always"], int.from_bytes(digest[:8], "little"))


def _header(schema: _Schema) -> str:
    def places(prefix: str, metrics: Metrics) -> list[str]:
        return [
            f"    {prefix}_{m['name'].upper()} = {i}, /* {m['help']} */"
            for i, m in enumerate(metrics)
        ] + [f"    {prefix}S = {len(metrics)},"]

    return "\n".join(
        [
            f"/* {_NOTE} */",
            "#ifndef BAREWIRE_METRIC_PLACES_H",
            "#define BAREWIRE_METRIC_PLACES_H",
            "",
            f"#define BW_METRICS_SCHEMA {schema.key:#018x}u",
            "",
            "enum bw_counter {",
            *places("BW_COUNTER", schema.counters),
            "};",
            "",
            "enum bw_histogram {",
            *places("BW_HISTOGRAM", schema.histograms),
            "};",
            "",
            "#endif",
            "",
        ]
    )


def _python(schema: _Schema) -> str:
    lines = [
        f'"""{_NOTE}"""',
        "",
        "from enum import IntEnum",
        "",
        '__all__ = ["METRICS", "SCHEMA", "Counter", "Histogram"]',
        "",
        "# Hash of the names and their places.",
        f"SCHEMA = 0x{schema.key:016X}",
        "",
    ]
    for name, metrics in (("Counter", schema.counters), ("Histogram", schema.histograms)):
        lines += ["", f"class {name}(IntEnum):", f'    """Places of the {name.lower()}s."""', ""]
        lines += [f"    {m['name'].upper()} = {i}" for i, m in enumerate(metrics)] + [""]
    lines += ["", "# Type and help of each, by the name that Prometheus knows."]
    lines += ["METRICS: dict[str, tuple[str, str]] = {"]
    for name, kind, text in schema.all():
        lines += [f'    "{name}": (', f'        "{kind}",', f'        "{text}",', "    ),"]
    return "\n".join([*lines, "}", ""])


def _table(schema: _Schema) -> str:
    return "\n".join(
        [
            "# Metrics",
            "",
            f"<!-- {_NOTE} -->",
            "",
            "`barewire metrics` shows them, `-o json` and `--prometheus` print them, and",
            "`barewire metrics --serve 127.0.0.1:9464` lets Prometheus scrape them. Every metric",
            "of a loop carries the label `loop`. Reading costs a loop nothing: its numbers lie in",
            "shared memory.",
            "",
            "| metric | type | meaning |",
            "|---|---|---|",
            *(f"| `{name}` | {kind} | {text} |" for name, kind, text in schema.all()),
            "",
            "`barewire_counted` holds what every part of a loop counts, with its cause:",
            "",
            "| `part` | `of` | `cause` |",
            "|---|---|---|",
            "| `sources` | the source | `endpoint/...`: frames, port; `refused/...`: datagrams |",
            "| `refused` | | transactions, by the rule that they break |",
            "| `matches` | | the trigger's name |",
            "| `streams` | the source | texts refused, connections ended |",
            "| `stream_ports` | the way | segments refused, and what the port counts |",
            "| `pump`, `triggers`, `shots`, `sends`, `senders`, ... | | what each counts |",
            "",
            "Most only grow; a few say what is so now (`endpoint/borrowed`). The last bad bytes of",
            "each cause are shown by `barewire samples`: how many there were, when, and in hex.",
            "",
            "Histograms are recorded natively in integer nanoseconds, 128 steps to a power of two:",
            "the figures of `barewire metrics` are known to better than 1 %. Prometheus gets six",
            "buckets to a decade from 100 ns to 10 s, and its quantiles are as coarse as those.",
            "",
            "The `cause` of a stall is what the loop was doing (`idle`, `busy`, `housekeeping`,",
            "`callback`: the strategy), or `descheduled`: the thread was stopped, preempted or",
            "waiting for more than half of the time. A strategy that sleeps is `callback`.",
            "",
        ]
    )


OUTPUTS = {
    ROOT / "src/barewire/native/metric_places.h": _header,
    ROOT / "appliance/metrics/places.py": _python,
    ROOT / "docs/metrics.md": _table,
}


def main(write: bool = True) -> list[Path]:
    """Writes what is stale, and returns it."""
    schema = _load()
    stale = []
    for path, make in OUTPUTS.items():
        text = make(schema)
        if not path.exists() or path.read_text() != text:
            stale.append(path)
            if write:
                path.parent.mkdir(exist_ok=True)
                path.write_text(text)
    return stale


if __name__ == "__main__":
    for written in main():
        sys.stdout.write(f"{written.relative_to(ROOT)}\n")
