"""Results: JSON files with all that is needed to judge a number. Every published one comes from ``results/<name>.json``."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from dccrn_lib.evaluation.intervals import bootstrap_ci
from dccrn_lib.runtime.environment import environment_record
from dccrn_lib.runtime.errors import ConfigError
from dccrn_lib.runtime.files import atomic_path
from dccrn_lib.runtime.paths import results_dir


def summarise(items: list[Mapping[str, Any]]) -> dict[str, Any]:
    """Count, means and 95 % confidence intervals (bootstrap of the mean) of per-item metrics.

    Args:
        items: one mapping per item; numbers are metrics, None means that it could not be scored.

    Returns:
        {"n", "n_metric": {metric: count}, "mean": {metric: value}, "ci95": {metric: [low, high]}}; None
        stands for a mean of no value and an interval of fewer than two.

    >>> summarise([{"stoi": 1.0}, {"stoi": 1.0}, {"stoi": None}])
    {'n': 3, 'n_metric': {'stoi': 2}, 'mean': {'stoi': 1.0}, 'ci95': {'stoi': [1.0, 1.0]}}
    """
    values: dict[str, list[float]] = {}
    for item in items:
        for key, value in item.items():
            if value is None:
                values.setdefault(key, [])
            elif isinstance(value, int | float) and not isinstance(value, bool):
                values.setdefault(key, []).append(float(value))
    return {
        "n": len(items),
        "n_metric": {key: len(v) for key, v in values.items()},
        "mean": {key: sum(v) / len(v) if v else None for key, v in values.items()},
        "ci95": {key: list(bootstrap_ci(v)) if len(v) > 1 else None for key, v in values.items()},
    }


def save_result(name: str, payload: Mapping[str, Any], folder: str | os.PathLike | None = None) -> Path:
    """Write ``<folder>/<name>.json`` atomically, with the environment and summaries added.

    Args:
        name: stem of the file.
        payload: must hold ``config`` (mapping), ``seed`` (int or list of int), ``data_hash`` (text, "" when
            no data is involved) and one of ``items`` (list of mappings, see :func:`summarise`), ``systems``
            ({system: {"items": [...]}}) or ``rows`` (list of mappings, a free table). Other keys are kept.
        folder: results/ of the project when None.

    Raises:
        ConfigError: a key is missing, or a value is not JSON (NaN included).
    """
    missing = [key for key in ("config", "seed", "data_hash") if key not in payload]
    if missing:
        raise ConfigError(f"result {name}: missing {', '.join(missing)}")
    if not any(key in payload for key in ("items", "systems", "rows")):
        raise ConfigError(f"result {name}: needs items, systems or rows")
    record = {"name": name, **payload, "environment": environment_record()}
    if "items" in payload:
        record.update(summarise(payload["items"]))
    if "systems" in payload:
        record["systems"] = {k: {**v, **summarise(v["items"])} for k, v in payload["systems"].items()}
    try:
        text = json.dumps(record, indent=1, allow_nan=False) + "\n"
    except (TypeError, ValueError) as error:
        raise ConfigError(f"result {name}: {error}") from None
    path = Path(folder or results_dir()) / f"{name}.json"
    with atomic_path(path) as temporary:
        temporary.write_text(text, encoding="utf-8")
    return path


def load_result(name: str, folder: str | os.PathLike | None = None) -> dict[str, Any]:
    """The record that :func:`save_result` wrote.

    Raises:
        ConfigError: no such file, or not JSON.
    """
    path = Path(folder or results_dir()) / f"{name}.json"
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise ConfigError(f"{path}: no readable result ({error})") from None
