"""Notebook parameters: read strictly from the tagged cell, parsed strictly from text.

A notebook has one code cell tagged ``parameters``. Each of its lines reads ``name: type = literal  # help``
with a type from :data:`TYPES`; nothing else may stand there, so no value can be derived and go stale.
"""

from __future__ import annotations

import ast
import io
import tokenize
from pathlib import Path
from typing import Any

from dccrn_lib.lessons.running.notebook_file import read_notebook
from dccrn_lib.lessons.running.texts import require_choice
from dccrn_lib.networks.weights import find_weights
from dccrn_lib.runtime.errors import ConfigError, WeightsError, nearest_name
from dccrn_lib.runtime.paths import expanded, weights_dir
from dccrn_lib.runtime.settings import LARGEST_COUNT, TYPES, Interval, Parameter, article, has_type, shown

#: Parameters that name weights: a shipped name, or a path.
WEIGHTS = ("model_name", "extra")

_COUNT, _AMOUNT = Interval(1, LARGEST_COUNT), Interval(0, 1e9)
#: What the numbers of the lessons may be, by the parameter's name. NumPy takes no seed from 2^32 on.
INTERVALS = {
    **dict.fromkeys(("seed", "sweep_seeds"), Interval(0, 2**32 - 1)),
    **dict.fromkeys(("sign_steps", "training_steps", "descent_steps"), _COUNT),
    **dict.fromkeys(("mixtures", "sign_seeds", "trials"), _COUNT),
    **dict.fromkeys(("frame", "train_steps"), Interval(0, LARGEST_COUNT)),
    **dict.fromkeys(("step_overhead", "price", "watts"), _AMOUNT),
    "device_tflops": Interval(0, 1e9, above=True),
    "output_weight": Interval(0, 1),
    "snr_db": Interval(-100, 100),
    "wanted": Interval(0, 5, above=True),
}


def read_parameters(notebook: str | Path) -> list[Parameter]:
    """The parameters of a notebook, in their order; an empty list when it has no such cell.

    Raises:
        ConfigError: not a notebook, two tagged cells, or a line that is not ``name: type = literal  # help``.
    """
    notebook = Path(notebook)
    tagged = [cell for cell in read_notebook(notebook).cells if "parameters" in cell.metadata.get("tags", [])]
    if len(tagged) > 1:
        raise ConfigError(f"{notebook.name}: {len(tagged)} cells are tagged parameters; keep one")
    return parse_cell(tagged[0].source, notebook.name) if tagged else []


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
        raise ConfigError(f"{where}: parameters cell line {error.lineno} is not Python ({error.msg})") from None
    except (ValueError, MemoryError, RecursionError) as error:  # a NUL, half a letter; brackets in brackets in brackets
        reason = str(error).splitlines()[0] if str(error) else "nested too deeply"
        raise ConfigError(f"{where}: the parameters cell is not Python ({reason})") from None
    helps = {
        token.start[0]: token.string.lstrip("# ").strip()
        for token in tokenize.generate_tokens(io.StringIO(source).readline)
        if token.type == tokenize.COMMENT
    }
    parameters: dict[str, Parameter] = {}
    for statement in statements:
        spot = f"{where}: parameters cell line {statement.lineno}"
        if (
            not isinstance(statement, ast.AnnAssign)
            or not isinstance(statement.target, ast.Name)
            or statement.value is None
        ):
            raise ConfigError(f"{spot}: write it as `name: type = literal  # help`")
        name, kind = statement.target.id, ast.unparse(statement.annotation)
        if kind not in TYPES:
            raise ConfigError(f"{spot}: {name} has type {kind[:80]}; known: {', '.join(TYPES)}")
        if name in parameters:
            raise ConfigError(f"{spot}: {name} is given twice")
        try:
            default = ast.literal_eval(statement.value)
        except (ValueError, TypeError, SyntaxError, MemoryError, RecursionError):
            raise ConfigError(f"{spot}: the default of {name} must be a literal") from None
        if not has_type(default, kind):
            raise ConfigError(f"{spot}: the default of {name}, {shown(default)}, is not {article(kind)}")
        assert statement.end_lineno is not None  # ast.parse always sets it
        if not helps.get(statement.end_lineno):
            raise ConfigError(f"{spot}: {name} has no help; write `# what it does` behind it")
        parameters[name] = Parameter(name, kind, default, helps[statement.end_lineno])
    return list(parameters.values())


def assign(values: dict[str, Any], notebooks: dict[str, list[Parameter]], base: Path) -> dict[str, dict[str, Any]]:
    """Give each notebook the values whose names it knows.

    Args:
        values: parameter name -> text or typed value.
        notebooks: notebook name -> its parameters.
        base: folder that relative paths are taken from.

    Returns:
        notebook name -> {parameter name: typed value}.

    Raises:
        ConfigError: a name that no notebook has (the nearest one and its owners are named), a wrong type, a number
            outside its interval in :data:`INTERVALS`, no number at all where there is to be one, a text that is none of
            the parameter's choices, a file or a folder that is not there, or weights that are not: a lesson would take
            others in their place.
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
    assigned = {
        notebook: {p.name: p.parse(values[p.name], base) for p in parameters if p.name in values}
        for notebook, parameters in notebooks.items()
    }
    for notebook, given in assigned.items():
        for name, value in given.items():
            require_text(name, value)
            _require_interval(name, value, notebook)
            require_choice(next(p for p in notebooks[notebook] if p.name == name), value, notebook)
            if name in WEIGHTS and value:
                given[name] = _weights(name, value, base)
    return assigned


def _require_interval(name: str, value: Any, notebook: str) -> None:
    """ConfigError for a number, or a part of a list, outside the interval of that name, and for an empty list."""
    parts = value if isinstance(value, list) else [value]
    if name not in INTERVALS or isinstance(value, str | bool) or any(isinstance(part, str) for part in parts):
        return  # a notebook of the reader's own may use the name for something else
    if not parts or not all(INTERVALS[name].holds(part) for part in parts):
        raise ConfigError(f"parameter {name} of {notebook} {INTERVALS[name]}, got {shown(value)}")


def _weights(name: str, value: str, base: Path) -> str:
    """A shipped name as it is; a path as seen from anywhere."""
    if value in {path.stem for path in weights_dir().glob("*.safetensors")}:
        return value
    try:
        return str(find_weights(base / expanded(value)).resolve())
    except WeightsError as error:
        raise ConfigError(f"parameter {name}: {error}") from None


def require_text(name: str, value: Any) -> None:
    r"""ConfigError for a text that no notebook can hold: names of files need not be valid text, cells must be.

    >>> require_text("speech", "caf\udce9.jsonl")
    Traceback (most recent call last):
    dccrn_lib.runtime.errors.ConfigError: parameter speech: 'caf\udce9.jsonl' is not valid text; rename the file or folder
    """
    for text in value if isinstance(value, list) else [value]:
        if isinstance(text, str) and ("\0" in text or any("\ud800" <= letter <= "\udfff" for letter in text)):
            raise ConfigError(f"parameter {name}: {shown(text)} is not valid text; rename the file or folder")
