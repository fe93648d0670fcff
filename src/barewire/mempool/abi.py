"""Function signatures with named arguments, and where in the calldata an argument lies.

Triggers, wrappers and swaps are declared by signatures as they stand in Solidity,
``exactInput((bytes path, address recipient, uint256 amountIn) params)``, and name arguments by
path: ``params.recipient``. What comes out is numbers for native tables (Solidity documentation,
"Contract ABI Specification"). Nothing here decodes calldata.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache

from barewire.keccak import keccak256

__all__ = ["Function", "Location", "Param", "parse_function"]

_ELEMENTARY = re.compile(
    r"(?:uint|int)(?:8|16|24|32|40|48|56|64|72|80|88|96|104|112|120|128|136|144|152|160|168|176|"
    r"184|192|200|208|216|224|232|240|248|256)?|address|bool|string|function|"
    r"bytes(?:[1-9]|[12][0-9]|3[0-2])?"
)
_TOKEN = re.compile(r"\s*(?:(\[\d*\])|([A-Za-z_$][\w$]*)|([(),]))")
_MOST_WORDS = 0xFFFE  # native tables count words in 16 bits; no calldata has that many
_MODIFIERS = {"memory", "calldata", "storage", "payable", "indexed", "internal"}


@dataclass(frozen=True, slots=True)
class Param:
    """One argument, or one component of a tuple.

    Attributes:
        name: as declared; empty where the signature leaves it out.
        base: the elementary type, or "tuple".
        components: of a tuple.
        arrays: array suffixes from left to right: a length, or None for a dynamic array.
    """

    name: str
    base: str
    components: tuple[Param, ...] = ()
    arrays: tuple[int | None, ...] = ()

    @property
    def canonical(self) -> str:
        """The type as a selector's hash spells it."""
        base = self.base
        if base == "tuple":
            base = f"({','.join(part.canonical for part in self.components)})"
        return base + "".join(f"[{'' if n is None else n}]" for n in self.arrays)

    @property
    def dynamic(self) -> bool:
        """The head holds an offset instead of the value."""
        if None in self.arrays:
            return True
        if self.base == "tuple":
            return any(part.dynamic for part in self.components)
        return self.base in ("bytes", "string")

    @property
    def head_words(self) -> int:
        """Words it takes in the head."""
        if self.dynamic:
            return 1
        words = sum(part.head_words for part in self.components) if self.components else 1
        for length in self.arrays:
            words *= length or 0
        return words

    @property
    def element(self) -> Param:
        """One element of an array."""
        return Param(self.name, self.base, self.components, self.arrays[:-1])


@dataclass(frozen=True, slots=True)
class Location:
    """Where an argument's head word lies.

    Attributes:
        hops: words whose offset is followed, one after the other.
        word: counted from where the last of them led, or from the first argument.
        param: the argument.
    """

    hops: tuple[int, ...]
    word: int
    param: Param


@dataclass(frozen=True, slots=True)
class Function:
    """A parsed signature."""

    name: str
    inputs: tuple[Param, ...]

    @property
    def signature(self) -> str:
        """The canonical form, without names and spaces."""
        return f"{self.name}({','.join(part.canonical for part in self.inputs)})"

    @property
    def selector(self) -> bytes:
        """The first four bytes of the signature's Keccak-256."""
        return keccak256(self.signature.encode())[:4]

    def locate(self, path: str) -> Location:
        """Finds the argument at `path` (``name`` or ``name.component``, in plain tuples only).

        Raises:
            ValueError: no argument of this name; says which there are.
        """
        hops: list[int] = []
        word = 0
        parts: Sequence[Param] = self.inputs
        names = path.split(".")
        for depth, name in enumerate(names):
            for part in parts:
                if part.name == name:
                    break
                word += part.head_words
            else:
                known = ", ".join(part.name or "(unnamed)" for part in parts) or "none"
                raise ValueError(f"{name!r} is not an argument of {self.name}; there are: {known}")
            if word > _MOST_WORDS:
                raise ValueError(f"{name!r} of {self.name} lies beyond word {_MOST_WORDS:,}")
            if depth == len(names) - 1:
                return Location(tuple(hops), word, part)
            if part.base != "tuple" or part.arrays:
                raise ValueError(f"{name!r} of {self.name} is {part.canonical}, not a tuple")
            if part.dynamic:
                hops.append(word)
                word = 0
            parts = part.components
        raise AssertionError("split() gives at least one name")


@cache
def parse_function(text: str) -> Function:
    """Parses ``name(type name, ...)``; names of arguments may be left out.

    Raises:
        ValueError: says what is wrong with `text`.
    """
    declaration = re.sub(r"^\s*function\s+", "", text)
    head = re.match(r"\s*([A-Za-z_$][\w$]*)\s*\(", declaration)
    if not head:
        raise ValueError(f"{text!r} is not a function signature like transfer(address,uint256)")
    parser = _Parser(text, declaration, head.end() - 1)
    return Function(head.group(1), parser.tuple())


class _Parser:
    def __init__(self, text: str, declaration: str, at: int) -> None:
        self.text = text
        self.declaration = declaration
        self.at = at
        self.array = self.word = self.mark = ""
        self.depth = 0

    def next(self) -> None:
        """Reads one token: an array suffix, a word or a punctuation mark."""
        match = _TOKEN.match(self.declaration, self.at)
        if not match:
            rest = self.declaration[self.at :].strip()
            raise ValueError(f"{self.text!r} ends too early or has an unexpected {rest[:12]!r}")
        self.at = match.end()
        self.array, self.word, self.mark = (group or "" for group in match.groups())

    def tuple(self) -> tuple[Param, ...]:
        """Reads a list in parentheses; the opening one comes next."""
        self.depth += 1
        if self.depth > 8:
            raise ValueError(f"{self.text!r} nests tuples too deeply")
        self.next()
        parts: list[Param] = []
        self.next()
        while self.mark != ")":
            parts.append(self.param())
            if self.mark == ",":
                self.next()
                if self.mark == ")":
                    raise ValueError(f"{self.text!r} has a comma before a closing parenthesis")
            elif self.mark != ")":
                raise ValueError(f"{self.text!r}: expected , or ) near {self.word or self.array!r}")
        self.depth -= 1
        return tuple(parts)

    def param(self) -> Param:
        """Reads one argument whose first token is read; leaves the token behind it."""
        components: tuple[Param, ...] = ()
        if self.mark == "(":
            self.at -= 1
            base, components = "tuple", self.tuple()
        elif self.word == "tuple":
            base, components = "tuple", self.tuple()
        elif _ELEMENTARY.fullmatch(self.word):
            base = self.word + ("256" if self.word in ("uint", "int") else "")
        else:
            raise ValueError(f"{self.text!r}: {self.word or self.mark!r} is not an ABI type")
        self.next()
        arrays: list[int | None] = []
        while self.array:
            if len(self.array) > 12:
                raise ValueError(f"{self.text!r}: {self.array[:12]}... is too long an array")
            arrays.append(int(self.array[1:-1]) if len(self.array) > 2 else None)
            self.next()
        while self.word in _MODIFIERS:
            self.next()
        name = self.word
        if name:
            self.next()
        return Param(name, base, components, tuple(arrays))
