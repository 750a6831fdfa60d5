"""Figures of the Uformer lesson: size and cost by part, reach in time, and what a part is worth."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
from matplotlib.figure import Figure

from dccrn_lib.lessons.plotting import COLOURS, LABELS, new_figure
from dccrn_lib.lessons.uformer.figures import COMPLEX, GREY, STREAMS


def parts(parameters: Mapping[tuple[str, str], int], macs: Mapping[tuple[str, str], int]) -> Figure:
    """Parameters and MACs of each part, split by stream: {(part, stream): count}."""
    figure, axes = new_figure(1, 2, height=2.4, sharey=True)
    names = list(dict.fromkeys(part for part, _ in parameters))
    for axis, (values, unit, scale) in zip(
        axes[0], ((parameters, "parameters (thousand)", 1e3), (macs, "MMAC/s", 1e6)), strict=True
    ):
        left = np.zeros(len(names))
        for stream, colour in STREAMS.items():
            width = np.array([values[(name, stream)] / scale for name in names])
            axis.barh(names, width, left=left, color=colour, label=stream)
            left += width
        for y, total in enumerate(left):
            axis.text(total, y, f" {total:,.0f}", va="center", fontsize=8)
        axis.set(xlabel=unit, xlim=(0, 1.18 * left.max()))
    axes[0, 0].invert_yaxis()
    axes[0, 1].legend(title="stream", loc="upper right", fontsize=8)
    return figure


def attention_cost(seconds: np.ndarray, attention: np.ndarray, rest: float, crossing: float) -> Figure:
    """Cost per second of audio over the length of the signal.

    Args:
        seconds: lengths.
        attention: MAC/s of the attention products at each length.
        rest: MAC/s of everything else, whatever the length.
        crossing: length in s at which both are equal.
    """
    figure, axes = new_figure(1, 1, height=2.9)
    axis = axes[0, 0]
    axis.loglog(seconds, attention / 1e9, color="#d55e00", label="attention products")
    axis.axhline(rest / 1e9, color=COMPLEX, label="convolutions and linear maps")
    axis.axvline(crossing, color=GREY, linestyle=":")
    axis.annotate(f"{crossing:.0f} s", (crossing, rest / 1e9), xytext=(6, -14), textcoords="offset points", color=GREY)
    axis.set(xlabel="length of the signal (s)", ylabel="GMAC per second of audio")
    axis.legend()
    return figure


def nan_reach(hits: Mapping[str, np.ndarray], at: int, sample_rate: int = 16000) -> Figure:
    """Which output samples a NaN at input sample ``at`` spoils, one bar a model: label -> bool (sample,)."""
    figure, axes = new_figure(1, 1, height=0.6 + 0.5 * len(hits))
    axis = axes[0, 0]
    for row, hit in enumerate(hits.values()):
        edges = np.flatnonzero(np.diff(np.r_[0, np.asarray(hit, dtype=int), 0])).reshape(-1, 2)
        axis.broken_barh(
            [(a / sample_rate, (b - a) / sample_rate) for a, b in edges], (row - 0.3, 0.6), color="#d55e00"
        )
    axis.axvline(at / sample_rate, color="black", linestyle="--", linewidth=1)
    axis.set_yticks(range(len(hits)), list(hits))
    axis.set(xlabel="output time (s)", xlim=(0, len(hit) / sample_rate), ylim=(len(hits) - 0.5, -0.5))
    axis.set_title("outputs that depend on the input at the dashed line")
    return figure


def worth(values: Mapping[str, Sequence[float]], label: str, colour: str = COLOURS["teacher"]) -> Figure:
    """One row a part: the mean as a bar, every single value as a dot; name -> values."""
    figure, axes = new_figure(1, 1, height=0.9 + 0.24 * len(values))
    axis = axes[0, 0]
    names = [LABELS.get(name, name) for name in values]
    axis.barh(names, [np.mean(v) for v in values.values()], color=colour, alpha=0.6)
    for y, points in enumerate(values.values()):
        axis.plot(points, [y] * len(points), "o", color="black", markersize=3.5, alpha=0.7)
    axis.axvline(0, color=GREY, linewidth=0.8)
    axis.set_xlabel(label)
    axis.invert_yaxis()
    return figure


def curves(runs: Mapping[str, Sequence[Sequence[float]]], smooth: int = 10) -> Figure:
    """Training curves: name -> runs -> SI-SNR in dB a step; mean over runs with the range between them."""
    figure, axes = new_figure(1, 1, height=2.9)
    axis = axes[0, 0]
    colours = ("#009e73", "#0072b2", "#d55e00", "#8c8c8c")
    for (name, values), colour in zip(runs.items(), colours, strict=False):
        table = np.asarray(values)  # (run, step)
        width = min(smooth, table.shape[1])
        kernel = np.ones(width) / width
        table = np.stack([np.convolve(run, kernel, mode="valid") for run in table])
        steps = np.arange(table.shape[1]) + width
        axis.plot(steps, table.mean(axis=0), color=colour, label=name)
        axis.fill_between(steps, table.min(axis=0), table.max(axis=0), color=colour, alpha=0.15, linewidth=0)
    axis.set(xlabel="optimiser step", ylabel="SI-SNR of the batch (dB)")
    axis.legend()
    return figure


def future_value(lookahead: Sequence[float], change: Sequence[float], quality: Sequence[float]) -> Figure:
    """What the output gains from the future: against the look-ahead in s.

    Args:
        lookahead: s of signal after the judged stretch.
        change: distance to the output with all of the future, in dB of the output.
        quality: SI-SNR of the stretch in dB.
    """
    figure, axes = new_figure(1, 2, height=2.7)
    left, right = axes[0]
    left.plot(lookahead, change, "o-", color=COLOURS["teacher"])
    left.set(xlabel="future given (s)", ylabel="change (dB)", title="distance to the output with all")
    right.plot(lookahead, quality, "o-", color=COLOURS["teacher"])
    right.set(xlabel="future given (s)", ylabel="SI-SNR (dB)", title="quality of the stretch")
    for axis in axes[0]:
        axis.set_xscale("symlog", linthresh=0.05)
        axis.set_xticks(list(lookahead), [f"{t:g}" for t in lookahead])
        axis.minorticks_off()
    return figure
