"""Notebook parameters: read strictly from the tagged cell, parsed strictly from text.

A notebook has one code cell tagged ``parameters``. Each of its lines reads ``name: type = literal  # help``
with a type from :data:`TYPES`; nothing else may stand there, so no value can be derived and go stale.
"""

from __future__ import annotations

import ast
import io
import json
import tokenize
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
        named = (
            self.name in _PATH_NAMES or "manifest" in self.name or self.name.split("_")[-1] in _PATH_ENDINGS
        )
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
        if parsed is None or not _has_type(parsed, self.type):
            example = {"bool": "true or false", "list[int]": "1,2,3", "list[str]": "a,b"}.get(
                self.type, self.type
            )
            raise ConfigError(
                f"parameter {self.name}: {value!r} is not {_article(self.type)}; give {example}"
            )
        if self.type == "float":
            return float(parsed)
        if base is not None and self.is_path and parsed:
            return str((base / Path(parsed).expanduser()).resolve())
        return parsed


def read_parameters(notebook: str | Path) -> list[Parameter]:
    """The parameters of a notebook, in their order; an empty list when it has no such cell.

    Raises:
        ConfigError: not a notebook, two tagged cells, or a line that is not ``name: type = literal  # help``.
    """
    notebook = Path(notebook)
    try:
        cells = json.loads(notebook.read_text(encoding="utf-8"))["cells"]
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise ConfigError(f"{notebook}: not a readable notebook ({error})") from None
    tagged = [cell for cell in cells if "parameters" in cell.get("metadata", {}).get("tags", [])]
    if len(tagged) > 1:
        raise ConfigError(f"{notebook.name}: {len(tagged)} cells are tagged parameters; keep one")
    return parse_cell("".join(tagged[0]["source"]), notebook.name) if tagged else []


def parse_cell(source: str, where: str = "parameters cell") -> list[Parameter]:
    """Parameters written in the source of one cell.

    >>> parse_cell("seed: int = 0  # of everything drawn")
    [Parameter(name='seed', type='int', default=0, help='of everything drawn')]

    Raises:
        ConfigError: a line that is not ``name: type = literal  # help``.
    """
    try:
        statements = ast.parse(source).body
    except SyntaxError as error:
        raise ConfigError(
            f"{where}: parameters cell line {error.lineno} is not Python ({error.msg})"
        ) from None
    helps = {
        token.start[0]: token.string.lstrip("# ").strip()
        for token in tokenize.generate_tokens(io.StringIO(source).readline)
        if token.type == tokenize.COMMENT
    }
    found: dict[str, Parameter] = {}
    for statement in statements:
        spot = f"{where}: parameters cell line {statement.lineno}"
        simple = isinstance(statement, ast.AnnAssign) and isinstance(statement.target, ast.Name)
        if not simple or statement.value is None:
            raise ConfigError(f"{spot}: write it as `name: type = literal  # help`")
        name, kind = statement.target.id, ast.unparse(statement.annotation)
        if kind not in TYPES:
            raise ConfigError(f"{spot}: {name} has type {kind}; known: {', '.join(TYPES)}")
        if name in found:
            raise ConfigError(f"{spot}: {name} is given twice")
        try:
            default = ast.literal_eval(statement.value)
        except ValueError:
            raise ConfigError(f"{spot}: the default of {name} must be a literal") from None
        if not _has_type(default, kind):
            raise ConfigError(f"{spot}: the default of {name}, {default!r}, is not {_article(kind)}")
        if not helps.get(statement.end_lineno):
            raise ConfigError(f"{spot}: {name} has no help; write `# what it does` behind it")
        found[name] = Parameter(name, kind, default, helps[statement.end_lineno])
    return list(found.values())


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


def assign(
    values: dict[str, Any], notebooks: dict[str, list[Parameter]], base: Path
) -> dict[str, dict[str, Any]]:
    """Give each notebook the values whose names it knows.

    Args:
        values: parameter name -> text or typed value.
        notebooks: notebook name -> its parameters.
        base: folder that relative paths are taken from.

    Returns:
        notebook name -> {parameter name: typed value}.

    Raises:
        ConfigError: a name that no notebook has (the nearest one and its owners are named), or a wrong type.
    """
    owners: dict[str, list[str]] = {}
    for notebook, parameters in notebooks.items():
        for parameter in parameters:
            owners.setdefault(parameter.name, []).append(notebook)
    for name in values:
        if name not in owners:
            near = nearest_name(name, sorted(owners)) if owners else "the chosen notebooks have none"
            close = near.removeprefix("did you mean ").partition("?")[0]
            where = f" ({close} is in {', '.join(owners[close])})" if close in owners else ""
            raise ConfigError(f"no chosen notebook has a parameter {name!r}; {near}{where}")
    return {
        notebook: {p.name: p.parse(values[p.name], base) for p in parameters if p.name in values}
        for notebook, parameters in notebooks.items()
    }


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


def _has_type(value: Any, kind: str) -> bool:
    if kind.startswith("list"):
        return isinstance(value, list) and all(_has_type(item, kind[5:-1]) for item in value)
    if kind == "float":
        number = isinstance(value, int | float) and not isinstance(value, bool)
        return number and value == value and abs(value) != float("inf")
    return type(value) is {"int": int, "str": str, "bool": bool}[kind]


def _article(kind: str) -> str:
    return f"an {kind}" if kind[0] in "aeiou" else f"a {kind}"
