"""Values given as text: parsed strictly into a named type, or into the fields of a frozen config (``NAME=VALUE``)."""

from __future__ import annotations

import ast
import dataclasses
import math
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from dccrn_lib.runtime.errors import ConfigError, nearest_name
from dccrn_lib.runtime.paths import expanded

TYPES = ("int", "float", "str", "bool", "list[int]", "list[str]")
_PATH_NAMES = {"speech", "noise", "rir", "out"}
_PATH_ENDINGS = ("dir", "path", "folder", "file")  # after an underscore or alone


LARGEST_COUNT = 10**9  # of steps, mixtures, units: more is a slip of the finger
LARGEST_SEED = 2**63 - 1  # torch takes no larger one


@dataclass(frozen=True)
class Interval:
    """The numbers between two bounds.

    Args:
        low, high: bounds; an infinite one is left out.
        above: ``low`` itself is left out as well.
        below: ``high`` itself is left out as well.

    >>> Interval(0, 1).holds(1.0), Interval(0, 1).holds(float("nan")), str(Interval(0, above=True))
    (True, False, 'must be above 0 and finite')
    >>> str(Interval(0, 2**32 - 1))
    'must lie in [0, 2^32 - 1]'
    """

    low: float
    high: float = math.inf
    above: bool = False
    below: bool = False

    def holds(self, value: Any) -> bool:
        """Whether a value is a number in the interval."""
        if isinstance(value, bool) or not isinstance(value, int | float):
            return False
        over = value > self.low if self.above or self.low == -math.inf else value >= self.low
        return over and (value < self.high if self.below or self.high == math.inf else value <= self.high)

    def __str__(self) -> str:
        if self.high == math.inf:
            return (
                f"must be above {self.low:g} and finite" if self.above else f"must be {self.low:g} or more and finite"
            )
        left, right = "(" if self.above else "[", ")" if self.below else "]"
        return f"must lie in {left}{_bound(self.low)}, {_bound(self.high)}{right}"


def _bound(value: float) -> str:
    """``2^32 - 1`` for the largest number of so many bits, whose digits nobody knows by heart; else at most six digits."""
    if isinstance(value, int) and value > 2**20 and value & (value + 1) == 0:
        return f"2^{value.bit_length()} - 1"
    return f"{value:g}"


def require_intervals(config: Any, intervals: Mapping[str, Interval]) -> None:
    """ConfigError for the first field of ``config`` that is outside its interval, or a pair with a part outside."""
    for name, interval in intervals.items():
        value = getattr(config, name)
        for part in value if isinstance(value, tuple | list) else (value,):
            if not interval.holds(part):
                raise ConfigError(f"{name} {interval}, got {shown(value)}")


def require_whole(config: Any, *names: str, several: bool = False) -> None:
    """ConfigError for the first of these fields that is no whole number; with ``several``, no list of them."""
    wanted = "whole numbers, as (16, 32)" if several else "a whole number"
    for name in names:
        value = getattr(config, name)
        listed = isinstance(value, tuple | list)
        if several != listed or any(type(part) is not int for part in (value if listed else (value,))):
            raise ConfigError(f"{name} wants {wanted}, got {shown(value)}")


def require_flags(config: Any, *names: str) -> None:
    """ConfigError for the first of these fields that is neither True nor False: the text "False" would count as True."""
    for name in names:
        if not isinstance(getattr(config, name), bool):
            raise ConfigError(f"{name} must be True or False, got {shown(getattr(config, name))}")


def shown(value: Any, longest: int = 80) -> str:
    """A value as it stands in an error message: never longer than ``longest`` letters.

    >>> shown("a" * 100, 10)
    "'aaaaaa..."
    """
    try:
        text = repr(value)
    except (ValueError, RecursionError):  # a whole number of thousands of digits; lists in lists in lists
        return f"a {type(value).__name__} that is too long to show"
    return text if len(text) <= longest else f"{text[: longest - 3]}..."


@dataclass(frozen=True)
class Parameter:
    """One line of a parameters cell: its name, one of :data:`TYPES`, default value and help."""

    name: str
    type: str
    default: Any
    help: str

    @property
    def is_path(self) -> bool:
        """Whether the value names a file or folder, by the parameter's name."""
        named = self.name in _PATH_NAMES or "manifest" in self.name or self.name.split("_")[-1] in _PATH_ENDINGS
        return self.type == "str" and named

    def parse(self, value: Any, base: Path | None = None) -> Any:
        """The value for this parameter.

        Args:
            value: text as typed on a command line, or a value that already has the type.
            base: folder that a relative path is taken from; None leaves paths as they are.

        Raises:
            ConfigError: the value is not of the parameter's type.
        """
        try:
            parsed = _from_text(value, self.type) if isinstance(value, str) else value
        except (ValueError, SyntaxError, TypeError, MemoryError, RecursionError):  # the last two: brackets in brackets
            parsed = None
        if parsed is None or not has_type(parsed, self.type):
            examples = {"float": "a finite number", "bool": "true or false", "list[int]": "1,2,3", "list[str]": "a,b"}
            example = examples.get(self.type, self.type)
            raise ConfigError(f"parameter {self.name}: {shown(value)} is not {article(self.type)}; give {example}")
        if self.type == "float":
            return float(parsed)
        if base is not None and self.is_path and parsed:
            return str((base / expanded(parsed)).resolve())
        return parsed


def split_assignments(assignments: list[str]) -> dict[str, str]:
    """``["seed=1", "model=x"]`` as a dict of texts.

    Raises:
        ConfigError: no ``=``, an empty name, or a name given twice.
    """
    values: dict[str, str] = {}
    for text in assignments:
        name, equals, value = text.partition("=")
        if not equals or not name.strip():
            raise ConfigError(f"-p {shown(text)}: write it as name=value")
        if name.strip() in values:
            raise ConfigError(f"-p {shown(name.strip())} is given twice")
        values[name.strip()] = value
    return values


def parse_seeds(text: str) -> list[int]:
    """Seeds joined by commas, each once.

    Raises:
        ConfigError: not whole numbers from 0, or one that is given twice.

    >>> parse_seeds("0,1,2")
    [0, 1, 2]
    """
    try:
        seeds = Parameter("seeds", "list[int]", [], "").parse(text)
    except ConfigError:
        raise ConfigError(f"--seeds takes whole numbers from 0, joined by commas, not {shown(text)}") from None
    if not seeds or any(not 0 <= seed <= LARGEST_SEED for seed in seeds):
        raise ConfigError(f"--seeds takes whole numbers from 0, joined by commas, not {shown(text)}")
    if len(set(seeds)) < len(seeds):
        raise ConfigError(f"--seeds {shown(text)} names a seed twice")
    return seeds


def parse_share(text: str) -> tuple[int, int]:
    """``I/N``: the runs I, I + N, I + 2N ...

    Raises:
        ConfigError: not two whole numbers with 0 <= I < N.

    >>> parse_share("1/4")
    (1, 4)
    """
    first, _, every = text.partition("/")
    if not (re.fullmatch(r"\d{1,9}/\d{1,9}", text, re.ASCII) and int(first) < int(every)):
        raise ConfigError(f"--share I/N wants whole numbers, 0 <= I < N, got {shown(text)}")
    return int(first), int(every)


def override(config: Any, values: dict[str, str]) -> Any:
    """A frozen dataclass with fields replaced by texts; ``mix.snr_db`` reaches into the field ``mix``.

    Args:
        config: instance of a dataclass whose fields are int, float, bool, str, pairs of float or dataclasses.
        values: field name -> text, as :func:`split_assignments` gives.

    Raises:
        ConfigError: an unknown field (the nearest one is named) or a value of the wrong type.
    """
    kinds = {field.name: str(field.type) for field in dataclasses.fields(config)}
    changes: dict[str, Any] = {}
    for name, text in values.items():
        outer, dot, inner = name.partition(".")
        if outer not in kinds or bool(dot) != dataclasses.is_dataclass(getattr(config, outer)):
            known = [f"{key}.*" if dataclasses.is_dataclass(getattr(config, key)) else key for key in sorted(kinds)]
            raise ConfigError(f"no setting {shown(name)}; {nearest_name(name, known)}")
        if dot:
            changes[outer] = override(changes.get(outer, getattr(config, outer)), {inner: text})
        elif kinds[outer].startswith("tuple[float"):
            pair = [Parameter(name, "float", 0.0, "").parse(part) for part in text.split(",")]
            if len(pair) != len(getattr(config, outer)):
                raise ConfigError(f"parameter {name}: {shown(text)} needs {len(getattr(config, outer))} numbers: a,b")
            changes[outer] = tuple(pair)
        else:
            changes[outer] = Parameter(name, kinds[outer], None, "").parse(text)
    return dataclasses.replace(config, **changes)


def flat(config: Any) -> dict[str, Any]:
    """Fields of a dataclass, or keys of a mapping, with those within them as ``outer.inner``.

    >>> flat({"steps": 2, "mix": {"segment_seconds": 1.0}})
    {'steps': 2, 'mix.segment_seconds': 1.0}
    """
    # an instance: nobody hands over a class
    values = dataclasses.asdict(config) if dataclasses.is_dataclass(config) else config  # pyright: ignore[reportArgumentType]
    found: dict[str, Any] = {}
    for name, value in values.items():
        found |= {f"{name}.{k}": v for k, v in value.items()} if isinstance(value, Mapping) else {name: value}
    return found


def changed(config: Any, base: Any) -> dict[str, Any]:
    """The fields in which a dataclass differs from another, those within it as ``outer.inner``."""
    before = flat(base)
    return {name: value for name, value in flat(config).items() if value != before[name]}


def _from_text(text: str, kind: str) -> Any:
    if kind == "str":
        return text
    if kind == "bool":
        return {"true": True, "false": False}.get(text.strip().lower())
    if kind == "int":
        return int(text)
    if kind == "float":
        return float(text)
    body = text.strip()
    if body.startswith("["):
        return ast.literal_eval(body)
    parts = [part.strip() for part in body.split(",")] if body else []
    return [int(part) for part in parts] if kind == "list[int]" else parts


def has_type(value: Any, kind: str) -> bool:
    """Whether a value is of a kind: "int", "float", "str", "bool" or "list[...]" of one; numbers have to be finite."""
    if kind.startswith("list"):
        return isinstance(value, list) and all(has_type(item, kind[5:-1]) for item in value)
    if kind == "float":
        return Interval(-1e308, 1e308).holds(value)
    if kind == "int":
        return type(value) is int and abs(value) <= LARGEST_SEED
    return type(value) is {"str": str, "bool": bool}[kind]


def article(kind: str) -> str:
    """The word with its article: "an int", "a dict"."""
    return f"an {kind}" if kind[0] in "aeiou" else f"a {kind}"
