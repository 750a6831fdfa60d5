"""When does teaching help: the student's gain under each teacher, by way of teaching, early and late in training."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from matplotlib.axes import Axes
from matplotlib.figure import Figure

from dccrn_lib.lessons.plotting import new_figure

#: Way of teaching -> what it is called, and its colour.
WAYS = {
    "output": ("output alone", "#cc79a7"),
    "at_kl_softmax": ("AT-KL, softmax, and output", "#0072b2"),
    "at_kl_sum": ("AT-KL, sum, and output", "#56b4e9"),
}
#: Name of a teacher in the record -> what it is called.
TEACHERS = {"mini": "miniature", "0.25h": "full size, 0.25 h", "1h": "full size, 1 h", "17.4h": "full size, 17.4 h"}


def gain_by_teacher(record: Mapping[str, Any]) -> Figure:
    """A panel for each way of teaching, a row for each teacher: mean gain and its 95 % interval over the seeds.

    Above, what is left at the end of the training; below, the same early. All panels share one axis of the gain.

    Args:
        record: ``teacher_strength`` of results/ (:mod:`dccrn_lib.experiments.teacher_strength`).
    """
    ways = [way for way in WAYS if any(r["way"] == way for r in record["rows"])]
    figure, axes = new_figure(2, len(ways), height=2.3, sharex=True, sharey="row")
    for panels, moment in zip(axes, ("late", "early"), strict=True):
        steps = sorted({p["step"] for p in record["points"] if p["moment"] == moment})
        for panel, way in zip(panels, ways, strict=True):
            _draw_way(panel, [r for r in record["rows"] if (r["moment"], r["way"]) == (moment, way)], way)
        panels[0].set_ylabel(f"{moment}: after {', '.join(map(str, steps))} steps", fontsize=9)
    for panel, way in zip(axes[0], ways, strict=True):
        panel.set_title(WAYS[way][0], fontsize=10)
    figure.supxlabel("gain: taught minus alone, SI-SNR (dB)", fontsize=10)
    return figure


def _draw_way(axes: Axes, rows: list[Mapping[str, Any]], way: str) -> None:
    """A dot and an interval for each teacher, the one with the smallest lead at the bottom."""
    rows = sorted(rows, key=lambda row: row["lead_db"])
    colour = WAYS[way][1]
    for place, row in enumerate(rows):
        axes.plot([row["low"], row["high"]], [place, place], color=colour)
        axes.plot(row["gain_db"], place, "o", color=colour)
    axes.axvline(0.0, color="#222222", linewidth=0.8)
    names = [f"{TEACHERS.get(r['teacher'], r['teacher'])}\n(lead {r['lead_db']:+.1f} dB)" for r in rows]
    axes.set_yticks(range(len(rows)), names, fontsize=8)
    axes.set_ylim(-0.6, len(rows) - 0.4)
