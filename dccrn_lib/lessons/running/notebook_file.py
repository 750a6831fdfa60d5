"""Notebook files: read strictly, so that nothing later has to ask whether a cell is a cell."""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import Any

import nbformat
from nbformat.validator import validate
from nbformat.warnings import MissingIDFieldWarning

from dccrn_lib.runtime.errors import ConfigError
from dccrn_lib.runtime.json_text import parse_object
from dccrn_lib.runtime.paths import PathLike
from dccrn_lib.runtime.settings import shown

_CURE = "open it in JupyterLab and save it again, or take it from where it came"


def read_notebook(path: PathLike) -> nbformat.NotebookNode:
    """A notebook of format 4, checked against its schema.

    Args:
        path: the .ipynb file.

    Returns:
        The notebook; the text of each cell is one string.

    Raises:
        ConfigError: not readable, not JSON, another format, or not as the format wants it.
    """
    path = Path(path)
    try:
        text = path.read_text(encoding="utf-8")
        record = parse_object(text)
    except (OSError, ValueError) as error:
        reason = (error.strerror if isinstance(error, OSError) else None) or error
        raise ConfigError(f"{path}: not a readable notebook ({reason}); {_CURE}") from None
    wrong = _what_is_wrong(record)
    if wrong:
        raise ConfigError(f"{path}: not a readable notebook ({wrong}); {_CURE}")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", MissingIDFieldWarning)  # it makes them
        return nbformat.reads(text, as_version=4)


def _what_is_wrong(record: dict[str, Any]) -> str:
    """Why a JSON object is not a notebook; "" if it is one."""
    numbers = record.get("nbformat"), record.get("nbformat_minor", 0)
    if not (type(numbers[0]) is int and type(numbers[1]) is int and 0 <= numbers[1] < 1000):
        return f"nbformat is {shown(numbers[0], 20)}, its minor part {shown(numbers[1], 20)}"
    if numbers[0] != 4:
        return f"its format is {shown(numbers[0], 20)}, 4 is read here"
    try:
        validate(record, version=4, version_minor=numbers[1], relax_add_props=True)
    except (nbformat.ValidationError, RecursionError) as error:
        return " ".join(str(error).split())[:200]
    except (
        TypeError,
        KeyError,
        AttributeError,
        IndexError,
    ):  # nbformat looks for words, and stumbles over the same place
        return "a part of it is of another kind than the format wants"
    needs = record["metadata"].get("dccrn", {})
    if not isinstance(needs, dict) or not _is_names(needs.get("needs", [])):
        return "dccrn.needs in its metadata must be a list of names"
    return ""


def _is_names(value: Any) -> bool:
    return isinstance(value, list) and all(isinstance(name, str) for name in value)
