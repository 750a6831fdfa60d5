"""Figures of lesson 05b: what a step does where, a log, four sick logs and a real one, the lead of a teacher."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import FancyArrowPatch, Rectangle

from dccrn_lib.lessons.plotting import COLOURS, LABELS, new_figure

PRECISION = {"bfloat16": "#cfe5f5", "float32": "#fbe3c0", "on the CPU": "#e4e4e4"}
ALARM = "#d55e00"


def _box(axis: Axes, left: float, bottom: float, width: float, words: str, kind: str) -> None:
    axis.add_patch(Rectangle((left, bottom), width, 1.1, facecolor=PRECISION[kind], edgecolor="#444444", linewidth=0.9))
    axis.text(left + width / 2, bottom + 0.55, words, ha="center", va="center", fontsize=8, linespacing=1.3)


def step_picture() -> Figure:
    """One distillation step on a GPU: what runs where, and in which precision."""
    figure, axes = new_figure(1, 1, height=3.5)
    axis = axes[0, 0]
    axis.set(xlim=(0, 16.2), ylim=(-0.5, 5.6))
    axis.axis("off")
    boxes = {
        "mix": (0.2, 2.4, 2.2, "workers mix\nthe next batches", "on the CPU"),
        "teacher": (3.3, 3.9, 3.5, "teacher, eval, no gradient\n12 taps and its output", "bfloat16"),
        "student": (3.3, 0.9, 3.5, "student, train\n12 taps and its output", "bfloat16"),
        "loss": (7.6, 2.4, 2.5, "loss $L$ twice,\nAT-KL", "float32"),
        "back": (10.6, 0.9, 2.5, "backward through\nthe student", "bfloat16"),
        "step": (13.6, 2.4, 2.4, "clip, optimiser,\naveraged weights", "float32"),
    }
    for box in boxes.values():
        _box(axis, *box)
    arrows = [
        ((2.4, 3.2), (3.3, 4.2)), ((2.4, 2.7), (3.3, 1.7)), ((6.8, 4.2), (7.6, 3.3)), ((6.8, 1.7), (7.6, 2.6)),
        ((10.1, 2.6), (10.8, 2.0)), ((13.1, 1.7), (13.8, 2.4)),
    ]  # fmt: skip
    for start, end in arrows:
        axis.add_patch(FancyArrowPatch(start, end, arrowstyle="-|>", mutation_scale=11, color="#444444"))
    axis.plot([15.0, 15.0, 5.0], [2.4, 0.2, 0.2], "--", color="#888888", linewidth=1.2)
    back = FancyArrowPatch((5.0, 0.15), (5.0, 0.9), arrowstyle="-|>", mutation_scale=11, color="#888888")
    axis.add_patch(back)
    axis.text(10.0, 0.05, "new weights for the next step", ha="center", va="top", fontsize=8, color="#555555")
    for i, (name, colour) in enumerate(PRECISION.items()):
        axis.add_patch(Rectangle((9.0 + 2.5 * i, 5.0), 0.4, 0.35, facecolor=colour, edgecolor="#444444", linewidth=0.7))
        axis.text(9.5 + 2.5 * i, 5.17, name, va="center", fontsize=8.5)
    return figure


def run_log(
    steps: Sequence[int], loss: Sequence[float], speed: Sequence[float], stages: dict[str, int] | None = None
) -> Figure:
    """Loss of single batches in dB (left) and speed in seconds of audio per second (right) over the steps of a log.

    Args:
        steps, loss, speed: the log's lines, in order.
        stages: name -> its first step, in order; a line is drawn between two, and no mean reaches across it.
    """
    figure, axes = new_figure(1, 2, height=3.0)
    left, right = axes[0]
    step, batch, rate = (np.asarray(column, dtype=float) for column in (steps, loss, speed))
    stages = stages or {"": int(step[0])}
    starts = [*stages.values(), np.inf]
    left.plot(step, batch, ".", color=COLOURS["student_at_kl"], alpha=0.6, label="one batch")
    for i, (name, first) in enumerate(stages.items()):
        part = (step >= first) & (step < starts[i + 1])
        width = min(15, int(part.sum()))
        smooth = np.convolve(batch[part], np.ones(width) / width, mode="valid")
        label = None if i else f"mean of {width}"
        left.plot(step[part][width // 2 :][: len(smooth)], smooth, color="#222222", label=label)
        right.plot(step[part], rate[part], color=COLOURS["student_at_kl"])
        for axis in axes[0]:
            if i:
                border = (first + step[step < first][-1]) / 2
                axis.axvline(border, color=ALARM, linestyle="--", linewidth=1.2)
            if name:
                axis.text(
                    step[part].mean(),
                    1.01,
                    name,
                    transform=axis.get_xaxis_transform(),
                    ha="center",
                    va="bottom",
                    fontsize=8,
                    color=ALARM,
                )
    left.set(xlabel="step", ylabel="loss (dB)")
    figure.legend(*left.get_legend_handles_labels(), loc="outside lower center", ncols=2, fontsize=9)
    right.set(xlabel="step", ylabel="s of audio per second", ylim=(0, 1.1 * rate.max()))
    return figure


def lead(curves: dict[str, tuple[Sequence[float], Sequence[float]]], wanted: float) -> Figure:
    """Valid SI-SNR over hours of audio for teacher and student, and the lead that the rule asks for.

    Args:
        curves: "teacher" and "student" -> (hours, SI-SNR in dB).
        wanted: dB above the student's best value that a teacher should reach.
    """
    figure, axes = new_figure(1, 1, height=3.0)
    axis = axes[0, 0]
    for name, (hours, values) in curves.items():
        axis.plot(hours, values, "o-", markersize=3, color=COLOURS[name], label=LABELS[name])
    best = max(curves["student"][1])
    axis.axhline(best, color=COLOURS["student"], linestyle=":", linewidth=1.4, label="student alone at its best")
    axis.axhline(best + wanted, color=ALARM, linestyle="--", linewidth=1.2, label=f"wanted: {wanted:g} dB more")
    axis.set(xlabel="hours of audio seen", ylabel="SI-SNR on valid (dB)")
    axis.legend(fontsize=9, loc="lower right")
    return figure


def four_sick_logs(logs: dict[str, list[dict[str, float]]]) -> Figure:
    """The column of each log that gives the fault away, over its steps.

    Args:
        logs: "gain", "skipped", "loader" and "teacher" -> rows with "step", "si_snr_db" and the column in question.
    """
    figure, axes = new_figure(2, 2, height=2.4)
    columns = {
        "gain": ("gain", "gain of the output"),
        "skipped": ("skipped", "skipped batches, in all"),
        "loader": ("waiting", "share of time waiting"),
        "teacher": ("features", "KL to the teacher (nat)"),
    }
    titles = {
        "gain": "polarity: the gain is below 0",
        "skipped": "not finite: every batch is skipped",
        "loader": "loader-bound: the device waits",
        "teacher": "KL falls, SI-SNR does not rise",
    }
    for axis, (name, (column, label)) in zip(axes.flat, columns.items(), strict=True):
        rows = logs[name]
        steps = [row["step"] for row in rows]
        axis.plot(steps, [row[column] for row in rows], "o-", markersize=3, color=ALARM)
        axis.set_title(titles[name], fontsize=9)
        axis.set(xlabel="step", ylabel=label)
        axis.yaxis.label.set_fontsize(9)
        if name == "gain":
            axis.axhline(0, color="#222222", linewidth=0.8)
        if name == "loader":
            axis.set_ylim(0, 1)
        if name == "teacher":
            other = axis.twinx()
            other.plot(steps, [row["si_snr_db"] for row in rows], ":", color="#222222")
            other.set_ylabel("SI-SNR (dB), dotted", fontsize=9)
            other.grid(False)
    return figure


def fallen_back(fallen: Mapping[str, Any], anew: Mapping[str, Any], falls_at: float) -> Figure:
    """Two courses of each student: SI-SNR on valid (left) and the clean term of the loss on train (right), both in dB.

    Args:
        fallen: runs that were given up, drawn solid: "student_alone" and "student_at_kl" -> {"history": ...}.
        anew: the same systems begun anew, dotted.
        falls_at: hours until which the learning rate of the runs given up is constant, a grey line.
    """
    figure, axes = new_figure(1, 2, height=3.0)
    systems = {"student_alone": ("student", "student alone"), "student_at_kl": ("student_at_kl", "student with AT-KL")}
    for axis, (part, column, label) in zip(
        axes[0],
        (("valid", "si_snr_db", "SI-SNR on valid (dB)"), ("train", "clean", "clean term on train (dB)")),
        strict=True,
    ):
        for runs, style, words in ((fallen, "o-", "given up"), (anew, ":", "begun anew")):
            for system, (colour, name) in systems.items():
                rows = runs[system]["history"][part]
                hours, values = [row["hours"] for row in rows], [row[column] for row in rows]
                axis.plot(hours, values, style, markersize=3, color=COLOURS[colour], label=f"{name}, {words}")
        axis.axvline(falls_at, color="#bbbbbb", linewidth=1.2)
        axis.set(xlabel="hours of audio seen", ylabel=label)
    figure.legend(*axes[0, 0].get_legend_handles_labels(), loc="outside lower center", ncols=2, fontsize=9)
    return figure
