"""Results: JSON files with all that is needed to judge a number. Every published one comes from ``results/<name>.json``."""

from __future__ import annotations

import difflib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from dccrn_lib.evaluation.intervals import summarise
from dccrn_lib.runtime.environment import environment_record
from dccrn_lib.runtime.errors import ConfigError, MetricError
from dccrn_lib.runtime.files import require_stem, write_json
from dccrn_lib.runtime.json_text import parse_object
from dccrn_lib.runtime.paths import PathLike, results_dir


def save_result(name: str, payload: Mapping[str, Any], folder: PathLike | None = None) -> Path:
    """Write ``<folder>/<name>.json`` atomically, with the environment and summaries added.

    Args:
        name: stem of the file.
        payload: must hold ``config`` (mapping), ``seed`` (int or list of int), ``data_hash`` (text, "" when
            no data is involved) and one of ``items`` (list of mappings), ``systems``
            ({system: {"items": [...]}}) or ``rows`` (list of mappings, a free table). Other keys are kept.
        folder: results/ of the project when None.

    Raises:
        ConfigError: a key is missing, a value is not JSON (NaN included), or the name is no stem of a file.
    """
    require_stem(name)
    missing = [key for key in ("config", "seed", "data_hash") if key not in payload]
    if missing:
        raise ConfigError(f"result {name}: missing {', '.join(missing)}")
    if not any(key in payload for key in ("items", "systems", "rows")):
        raise ConfigError(f"result {name}: needs items, systems or rows")
    record = {"name": name, **payload, "environment": environment_record()}
    path = Path(folder or results_dir()) / f"{name}.json"
    try:
        if "items" in payload:
            record.update(summarise(payload["items"]))
        if "systems" in payload:
            record["systems"] = {k: {**v, **summarise(v["items"])} for k, v in payload["systems"].items()}
        write_json(path, record, allow_nan=False)
    except (TypeError, ValueError, MetricError) as error:
        raise ConfigError(f"result {name}: {error}") from None
    return path


def require_not_read(name: str, folder: PathLike | None, source: Path) -> None:
    """ConfigError if ``<folder>/<name>.json``, which is to be written, is the file that is read."""
    path = Path(folder or results_dir()) / f"{name}.json"
    if path.resolve() == source.resolve():
        raise ConfigError(f"{path}: the record that is read; write to another name or folder")


def load_result(name: str, folder: PathLike | None = None, needed: Sequence[str] = ()) -> dict[str, Any]:
    """The record that :func:`save_result` wrote.

    Args:
        name: stem of the file.
        folder: results/ of the project when None.
        needed: what the caller reads of it; ``"config.steps"`` is a key of the mapping under ``"config"``.

    Raises:
        ConfigError: no such file, no JSON object in it, or it lacks what is needed.
    """
    path = Path(folder or results_dir()) / f"{name}.json"
    try:
        record = {"name": name, **parse_object(path.read_text(encoding="utf-8"))}
    except FileNotFoundError:
        near = difflib.get_close_matches(name, [other.stem for other in path.parent.glob("*.json")], n=1)
        hint = f"; did you mean {near[0]}?" if near else ""
        raise ConfigError(f"no readable result {name!r} in {path.parent}: there is no {path.name}{hint}") from None
    except (OSError, ValueError) as error:
        raise ConfigError(f"{path}: no readable result ({error})") from None
    lacks = [key for key in needed if not _holds(record, key.split("."))]
    if lacks:
        raise ConfigError(f"{path}: lacks {', '.join(lacks)}; give the command that made it again")
    return record


def _holds(record: Any, keys: Sequence[str]) -> bool:
    """Whether a value stands below these keys, one in the other."""
    return not keys or (isinstance(record, Mapping) and keys[0] in record and _holds(record[keys[0]], keys[1:]))
