"""When does teaching help: the student's gain over the lead of its teacher, early and late in training."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from dccrn_lib.lessons.plotting import new_figure

#: Way of teaching -> what it is called, its colour and its mark.
WAYS = {
    "output": ("output alone", "#cc79a7", "s"),
    "at_kl_softmax": ("AT-KL, softmax, and output", "#0072b2", "o"),
    "at_kl_sum": ("AT-KL, sum, and output", "#56b4e9", "^"),
}


#: What sets the ways apart where their teachers lead by the same, in dB on the axis of the lead.
APART = 0.1
HOLLOW = "hollow, of every colour: under the miniature teacher"
MINIATURE = "mini"  # name of the teacher that is drawn hollow and joined to no other: a network of another size


def gain_over_lead(record: Mapping[str, Any]) -> Figure:
    """Two panels, early and late: mean gain and its 95 % interval over the seeds, beside it every seed.

    Args:
        record: ``teacher_strength`` of results/ (:mod:`dccrn_lib.experiments.teacher_strength`).
    """
    figure, axes = new_figure(1, 2, height=3.8, sharey=True)
    for panel, moment in zip(axes[0], ("early", "late"), strict=True):
        steps = {p["step"] for p in record["points"] if p["moment"] == moment}
        for k, way in enumerate(WAYS):
            _draw_way(panel, record, moment, way, APART * (k - 1))
        panel.axhline(0.0, color="#8c8c8c", linewidth=0.8)
        panel.set_title(f"{moment}: after {', '.join(map(str, sorted(steps)))} steps")
        panel.set_xlabel("lead of the teacher over the student alone (dB)")
    axes[0, 0].set_ylabel("gain: taught minus alone (dB)")
    handles, labels = axes[0, 1].get_legend_handles_labels()
    hollow = Line2D([], [], marker="o", linestyle="", color="#666666", markerfacecolor="white", markersize=7)
    figure.legend([*handles, hollow], [*labels, HOLLOW], loc="outside lower center", ncols=2, fontsize=9)
    return figure


def _draw_way(axes: Axes, record: Mapping[str, Any], moment: str, way: str, shift: float) -> None:
    """Means with intervals, the full-size teachers joined in the order of their lead; every seed as a small mark."""
    label, colour, mark = WAYS[way]
    rows = [r for r in record["rows"] if (r["moment"], r["way"]) == (moment, way)]
    rows.sort(key=lambda row: row["lead_db"])
    for mini in (False, True):
        chosen = [r for r in rows if (r["teacher"] == MINIATURE) == mini]
        if not chosen:
            continue
        lead, gain = [r["lead_db"] + shift for r in chosen], [r["gain_db"] for r in chosen]
        bars = [[r["gain_db"] - r["low"] for r in chosen], [r["high"] - r["gain_db"] for r in chosen]]
        look = {
            "color": colour,
            "marker": mark,
            "markersize": 7,
            "capsize": 3,
            "markerfacecolor": "white" if mini else colour,
        }
        axes.errorbar(lead, gain, yerr=bars, label=None if mini else label, linewidth=1.2, **look)
    points = [p for p in record["points"] if (p["moment"], p["way"]) == (moment, way)]
    place = [p["lead_db"] + shift for p in points]
    axes.plot(place, [p["gain_db"] for p in points], mark, color=colour, alpha=0.3, markersize=3)
