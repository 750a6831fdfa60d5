"""The same two systems trained with several seeds: is their difference that of the method, or of the seed?

    python -m dccrn_lib experiment over-seeds 0=equal_hours_test 1=equal_hours_seed1_test \\
        --system student_at_kl --minus student_alone --name equal_hours_over_seeds

Reads the scores that ``experiment shipped-weights`` left for each seed, all on the same test mixtures. Within a seed the
unit is the mixture (bootstrap), over the seeds it is the seed (Student's t on the seeds' mean differences).
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from pathlib import Path

from dccrn_lib.evaluation.intervals import compare_systems, means_of_pairs, paired_difference
from dccrn_lib.evaluation.metrics import COMPARED_METRICS
from dccrn_lib.experiments.recipe import called
from dccrn_lib.results.records import load_result, save_result
from dccrn_lib.runtime.errors import ConfigError

METRICS = (*COMPARED_METRICS, "dnsmos_ovrl")


def publish(results: Mapping[int, str], system: str, minus: str, name: str, folder: str | Path | None = None) -> Path:
    """Write ``<folder>/<name>.json``: a row for each seed, and one for the mean over the seeds.

    Args:
        results: seed -> name of a result with the scores of both systems.
        system, minus: the two systems.
        name: of the result to write.
        folder: results/ of the project when None; the scores are read from there too.

    Raises:
        ConfigError: fewer than two seeds, a result given twice or named as the one to write, a result without scores,
            a system that it lacks, other test mixtures, or the same weights for two seeds.
    """
    if len(results) < 2:
        raise ConfigError(f"{len(results)} seed: a spread needs the results of at least two")
    if name in results.values():
        raise ConfigError(f"{name}: one of the results that are compared; write to another name")
    if twice := [result for result, times in Counter(results.values()).items() if times > 1]:
        raise ConfigError(f"{twice[0]}: given for more than one seed; each seed needs a result of its own")
    records = {seed: load_result(result, folder) for seed, result in sorted(results.items())}
    first = next(iter(records.values()))
    for seed, record in records.items():
        if not all(isinstance(scores, Mapping) and "items" in scores for scores in _systems(record).values()):
            raise ConfigError(
                f"{results[seed]}: holds no scores of systems; name a result as shipped-weights writes it"
            )
        missing = [s for s in (system, minus) if s not in record["systems"]]
        if missing:
            raise ConfigError(f"{results[seed]}: no system {missing[0]!r}; it has {', '.join(record['systems'])}")
        if _mixtures(record, minus) != _mixtures(first, minus) or record["data_hash"] != first["data_hash"]:
            raise ConfigError(f"{results[seed]} was scored on other mixtures than {next(iter(results.values()))}")
    _require_other_weights(records, results, (system, minus))
    metrics = [m for m in METRICS if all(_scored(r, s, m) for r in records.values() for s in (system, minus))]
    rows: list[dict] = [{"seed": str(seed)} for seed in records] + [{"seed": f"mean of {len(records)}"}]
    for metric in metrics:
        means: list[tuple[float, float]] = []
        for row, record in zip(rows, records.values(), strict=False):
            items = {s: record["systems"][s]["items"] for s in (system, minus)}
            means.append(means_of_pairs(items[system], items[minus], metric))
            row[metric] = str(compare_systems(items, system, minus, metric))
            row[f"{metric} of both"] = means[-1]
        over = paired_difference([a for a, _ in means], [b for _, b in means], method="t")
        rows[-1][metric] = str(over)
        rows[-1][f"{metric} of both"] = tuple(sum(side) / len(means) for side in zip(*means, strict=True))
    payload = {
        "title": f"{system} minus {minus}, {len(records)} seeds",
        "note": "Mean difference, 95 % interval and verdict. A seed has its interval over the mixtures (bootstrap), "
        "the mean has it over the seeds (Student's t).",
        "command": called(
            "over-seeds", [*(f"{s}={r}" for s, r in results.items()), f"--system={system}", f"--minus={minus}"], name
        ),
        "config": {"system": system, "minus": minus, "results": {str(s): r for s, r in results.items()}},
        "seed": sorted(records),
        "data_hash": first["data_hash"],
        "columns": ["seed", *metrics],
        "rows": rows,
    }
    return save_result(name, payload, folder)


def _systems(record: Mapping) -> Mapping:
    """System -> its scores; a result of something else has none, which shows as a system without scores."""
    found = record.get("systems")
    return found if isinstance(found, Mapping) and found else {"": None}


def _require_other_weights(
    records: Mapping[int, Mapping], results: Mapping[int, str], systems: tuple[str, str]
) -> None:
    """ConfigError if two seeds scored the same weights of both systems: one training would count for two."""
    scored: dict[tuple, int] = {}
    for seed, record in records.items():
        weights = record["config"].get("models", {}) if isinstance(record["config"], Mapping) else {}
        pair = tuple(weights.get(name) for name in systems)
        if not any(pair):
            continue  # results of other makers do not say what they scored
        other = scored.setdefault(pair, seed)
        if other != seed:
            raise ConfigError(
                f"{results[seed]}: scores of the same weights as {results[other]}; each seed needs trainings of its own"
            )


def _mixtures(record: Mapping, system: str) -> list[tuple]:
    """Which mixtures were scored: their names alone count only what was drawn, not from what."""
    return [(item["id"], item.get("snr_db_in"), item.get("label")) for item in record["systems"][system]["items"]]


def _scored(record: Mapping, system: str, metric: str) -> bool:
    return any(item.get(metric) is not None for item in record["systems"][system]["items"])
