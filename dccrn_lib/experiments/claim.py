"""The paper's claim on one screen: who is ahead of whom after how many hours of audio.

    python -m dccrn_lib experiment claim 1.70=equal_hours_test 7.0=equal_hours_7h_test 20=equal_hours_20h_test 30=real_test

Reads results/shared_sources.json (:mod:`dccrn_lib.experiments.shared_sources`) and writes a row for each comparison of
these records. Of its three intervals the widest is shown, and the verdict is that of the widest.

Source: ours; the claim is that of Han et al. (2024), of SI-SNR and PESQ against DCCRN at equal DNSMOS.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

from dccrn_lib.evaluation.intervals import Difference
from dccrn_lib.evaluation.metrics import METRICS
from dccrn_lib.experiments.recipe import called
from dccrn_lib.results.records import load_result, save_result
from dccrn_lib.results.tables import NAMES
from dccrn_lib.runtime.errors import ConfigError

SOURCE = "shared_sources"
#: Metric -> decimals shown.
SHOWN = {"si_snr_db": 2, "pesq_wb": 3, "dnsmos_ovrl": 3}
_UNCLEAR = "unclear"


def publish(hours: Sequence[tuple[str, str]], name: str = "claim", folder: str | Path | None = None) -> Path:
    """Write ``<folder>/<name>.json``.

    Args:
        hours: (hours of audio as they are to be shown, name of a record that was compared), in the order of the table.
        name: of the result to write.
        folder: results/ of the project when None; results/shared_sources.json is read from there, too.

    Raises:
        ConfigError: no such record there, none is named, or the result to write is the one that is read.
    """
    if not hours:
        raise ConfigError("name at least one record: HOURS=RECORD, as 7.0=equal_hours_7h_test")
    if name == SOURCE:
        raise ConfigError(f"{name}: the result that is read; write to another name")
    source = load_result(SOURCE, folder)
    rows = []
    for shown, record in hours:
        compared = [row for row in source["rows"] if row["record"] == record]
        if not compared:
            known = ", ".join(dict.fromkeys(row["record"] for row in source["rows"]))
            raise ConfigError(f"{record}: not compared in results/{SOURCE}.json, which has {known}")
        for system, minus, seeds in dict.fromkeys(map(_head, compared)):
            by_metric = {row["metric"]: row for row in compared if _head(row) == (system, minus, seeds)}
            cells = {METRICS[key].column: _cell(by_metric.get(METRICS[key].column), key) for key in SHOWN}
            rows.append(
                {
                    "hours each": shown,
                    "system": NAMES.get(system, system),
                    "minus": NAMES.get(minus, minus),
                    "seeds": seeds,
                    **cells,
                }
            )
    payload = {
        "title": "Who is ahead of whom, after how many hours of audio",
        "note": "Mean difference on the test mixtures, and the widest of three 95 % intervals (over seeds, over speakers "
        f"and noises, both). Better and worse: it leaves out zero; {_UNCLEAR}: it does not. With one seed there is only "
        "that over speakers and noises: other trainings may differ.",
        "command": called("claim", [f"{shown}={record}" for shown, record in hours], name),
        "config": {"hours": [list(pair) for pair in hours], "source": SOURCE},
        "seed": source["seed"],
        "data_hash": source["data_hash"],
        "columns": ["hours each", "system", "minus", "seeds", *(METRICS[key].column for key in SHOWN)],
        "rows": rows,
    }
    return save_result(name, payload, folder)


def _head(row: Mapping) -> tuple[str, str, int]:
    """What a row of the table compares; the same pair over one seed and over three are two rows."""
    return row["system"], row["minus"], row["seeds"]


def widest(values: Mapping, n: int) -> Difference:
    """A difference with the widest of its intervals.

    Args:
        values: ``values`` of a row of results/shared_sources.json, in the unit of its metric.
        n: mixtures.

    >>> widest({"mean": 0.2, "over_seeds": [-0.1, 0.5], "over_sources": [0.1, 0.3], "both": None}, 120).verdict
    'not distinguishable'
    """
    intervals = [values[key] for key in ("over_seeds", "over_sources", "both") if values[key] is not None]
    low, high = max(intervals, key=lambda interval: interval[1] - interval[0])
    return Difference(values["mean"], low, high, n, method="t")


def _cell(row: Mapping | None, key: str) -> str:
    if row is None:
        return "-"
    found = widest(row["values"], row["n"])
    verdict = found.verdict if found.verdict != "not distinguishable" else _UNCLEAR
    if row["seeds"] == 1 and verdict != _UNCLEAR:
        verdict += " (one seed)"
    return f"{found.text(form=f'+.{SHOWN[key]}f')} {verdict}"
