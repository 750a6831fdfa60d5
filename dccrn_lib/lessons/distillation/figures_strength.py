"""When does teaching help: the student's gain over the lead of its teacher, early and late in training."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from matplotlib.axes import Axes
from matplotlib.figure import Figure

from dccrn_lib.lessons.plotting import new_figure

#: Way of teaching -> what it is called, its colour and its mark.
WAYS = {
    "output": ("output alone", "#cc79a7", "s"),
    "at_kl_softmax": ("AT-KL, softmax, and output", "#0072b2", "o"),
    "at_kl_sum": ("AT-KL, sum, and output", "#56b4e9", "^"),
}


def gain_over_lead(record: Mapping[str, Any]) -> Figure:
    """Two panels, early and late: mean gain and its 95 % interval over the seeds, beside it every seed.

    Args:
        record: ``teacher_strength`` of results/ (:mod:`dccrn_lib.experiments.teacher_strength`).
    """
    figure, axes = new_figure(1, 2, height=3.6, sharey=True)
    for panel, moment in zip(axes[0], ("early", "late"), strict=True):
        steps = {p["step"] for p in record["points"] if p["moment"] == moment}
        _panel(panel, record, moment)
        panel.set_title(f"{moment}: after {', '.join(map(str, sorted(steps)))} steps")
        panel.set_xlabel("lead of the teacher over the student alone (dB)")
    axes[0, 0].set_ylabel("gain: taught minus alone (dB)")
    axes[0, 1].legend(loc="best", fontsize=8)
    return figure


def _panel(axes: Axes, record: Mapping[str, Any], moment: str) -> None:
    axes.axhline(0.0, color="#8c8c8c", linewidth=0.8)
    for way, (label, colour, mark) in WAYS.items():
        rows = [r for r in record["rows"] if (r["moment"], r["way"]) == (moment, way)]
        rows.sort(key=lambda row: row["lead_db"])
        if not rows:
            continue
        lead, gain = [r["lead_db"] for r in rows], [r["gain_db"] for r in rows]
        bars = [[r["gain_db"] - r["low"] for r in rows], [r["high"] - r["gain_db"] for r in rows]]
        axes.errorbar(lead, gain, yerr=bars, color=colour, marker=mark, markersize=6, capsize=3, label=label)
        points = [p for p in record["points"] if (p["moment"], p["way"]) == (moment, way)]
        axes.plot(
            [p["lead_db"] for p in points], [p["gain_db"] for p in points], mark, color=colour, alpha=0.3, markersize=3
        )
