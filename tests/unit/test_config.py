"""Errors in a configuration name the key, the value and what is allowed."""

from typing import Annotated, ClassVar, Literal

import msgspec
import pytest

from barewire.config import convert, load
from barewire.errors import ConfigError


class Port:
    allowed: ClassVar[str] = "a UDP port, such as '9000'"

    def __init__(self, number: int) -> None:
        self.number = number

    @classmethod
    def parse(cls, text: str) -> "Port":
        if not text.isdigit():
            raise ValueError("not a number")
        return cls(int(text))


class Inner(msgspec.Struct, forbid_unknown_fields=True):
    mode: Literal["drv", "skb"] = "drv"
    burst: Annotated[int, msgspec.Meta(ge=1, le=64)] = 64
    port: Port | None = None


class Outer(msgspec.Struct, forbid_unknown_fields=True):
    name: str
    inner: list[Inner] = []
    table: dict[str, Inner] = {}


def test_good_values_arrive():
    got = convert({"name": "x", "inner": [{"port": "9000"}]}, Outer, where="f")
    assert got.inner[0].port.number == 9000


@pytest.mark.parametrize(
    ("data", "message", "hint"),
    [
        ({}, "f: name is missing", "a string"),
        ({"name": 3}, "f: name = 3: expected `str`, got `int`", "a string"),
        ({"name": "x", "inner": [{"mode": "zc"}]}, "f: inner[0].mode = 'zc'", "'drv', 'skb'"),
        (
            {"name": "x", "inner": [{}, {"burst": 65}]},
            "f: inner[1].burst = 65",
            "a whole number at least 1 and at most 64",
        ),
        ({"name": "x", "inner": [{"mdoe": 1}]}, "f: inner[0].mdoe = 1: no such key", "mean mode?"),
        ({"name": "x", "inner": [{"port": "a"}]}, "f: inner[0].port = 'a': not a number", "9000"),
        ({"name": "x", "inner": [{"port": 1}]}, "f: inner[0].port = 1: expected a string", "9000"),
        ({"name": "x", "inner": 3}, "f: inner = 3", "a list of: a table with mode, burst, port"),
        ({"name": "x", "table": {"k": {"burst": 0}}}, "burst", "at least 1"),
    ],
)
def test_errors_name_key_value_and_allowed(data, message, hint):
    with pytest.raises(ConfigError) as caught:
        convert(data, Outer, where="f")
    assert message in caught.value.message
    assert hint in caught.value.hint


@pytest.mark.parametrize("content", [b"a = ", b"\xff\xfe", b"[a\n"])
def test_files_that_are_not_toml(tmp_path, content):
    path = tmp_path / "bad.toml"
    path.write_bytes(content)
    with pytest.raises(ConfigError, match=r"bad\.toml"):
        load(path, Outer)


def test_a_file_that_is_not_there(tmp_path):
    with pytest.raises(ConfigError, match="No such file"):
        load(tmp_path / "none.toml", Outer)
