"""Values given as text: parsed strictly into a named type, or into the fields of a frozen config (``NAME=VALUE``)."""

from __future__ import annotations

import ast
import dataclasses
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from dccrn_lib.runtime.errors import ConfigError, nearest_name

TYPES = ("int", "float", "str", "bool", "list[int]", "list[str]")
_PATH_NAMES = {"speech", "noise", "rir", "out"}
_PATH_ENDINGS = ("dir", "path", "folder", "file")  # after an underscore or alone


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
        except (ValueError, SyntaxError):
            parsed = None
        if parsed is None or not has_type(parsed, self.type):
            example = {"bool": "true or false", "list[int]": "1,2,3", "list[str]": "a,b"}.get(self.type, self.type)
            raise ConfigError(f"parameter {self.name}: {value!r} is not {article(self.type)}; give {example}")
        if self.type == "float":
            return float(parsed)
        if base is not None and self.is_path and parsed:
            return str((base / Path(parsed).expanduser()).resolve())
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
            raise ConfigError(f"-p {text}: write it as name=value")
        if name.strip() in values:
            raise ConfigError(f"-p {name.strip()} is given twice")
        values[name.strip()] = value
    return values


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
            raise ConfigError(f"no setting {name!r}; {nearest_name(name, known)}")
        if dot:
            changes[outer] = override(changes.get(outer, getattr(config, outer)), {inner: text})
        elif kinds[outer].startswith("tuple[float"):
            pair = [Parameter(name, "float", 0.0, "").parse(part) for part in text.split(",")]
            if len(pair) != len(getattr(config, outer)):
                raise ConfigError(f"parameter {name}: {text!r} needs {len(getattr(config, outer))} numbers: a,b")
            changes[outer] = tuple(pair)
        else:
            changes[outer] = Parameter(name, kinds[outer], None, "").parse(text)
    return dataclasses.replace(config, **changes)


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
    if kind.startswith("list"):
        return isinstance(value, list) and all(has_type(item, kind[5:-1]) for item in value)
    if kind == "float":
        number = isinstance(value, int | float) and not isinstance(value, bool)
        return number and value == value and abs(value) != float("inf")
    return type(value) is {"int": int, "str": str, "bool": bool}[kind]


def article(kind: str) -> str:
    return f"an {kind}" if kind[0] in "aeiou" else f"a {kind}"
