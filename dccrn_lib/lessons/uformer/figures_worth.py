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
            axis.text(total, y, f" {total:,.0f}", va="center", fontsize=9)
        axis.set(xlabel=unit, xlim=(0, 1.18 * left.max()))
    axes[0, 0].invert_yaxis()
    axes[0, 1].legend(title="stream", loc="upper right", fontsize=9)
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


def curves(runs: Mapping[str, Sequence[Sequence[float]]], smooth: int = 20) -> Figure:
    """Training curves, one small panel a variant: name -> runs -> SI-SNR in dB a step; the first variant in grey behind.

    Every thin line is one seed, the thick one their mean, all smoothed over ``smooth`` steps.
    """
    figure, axes = new_figure(1, len(runs), height=2.4, sharex=True, sharey=True)
    smoothed = {}
    for name, values in runs.items():
        table = np.asarray(values)  # (run, step)
        width = min(smooth, table.shape[1])
        kernel = np.ones(width) / width
        smoothed[name] = np.stack([np.convolve(run, kernel, mode="valid") for run in table])
    first = next(iter(smoothed.values())).mean(axis=0)
    steps = np.arange(len(first)) + 1 + np.shape(next(iter(runs.values())))[1] - len(first)
    some = slice(None, None, 5)  # points drawn: they are means over ``smooth`` steps anyway
    for axis, (name, table) in zip(axes[0], smoothed.items(), strict=True):
        axis.plot(steps[some], first[some], color=GREY, linewidth=3, alpha=0.5)
        for run in table:
            axis.plot(steps[some], run[some], color=COMPLEX, linewidth=0.7, alpha=0.7)
        axis.plot(steps[some], table.mean(axis=0)[some], color=COMPLEX, linewidth=1.8)
        axis.set(title=LABELS.get(name, name), xlabel="optimiser step")
    axes[0, 0].set_ylabel("SI-SNR of the batch (dB)")
    return figure


def future_value(lookahead: Sequence[float], change: Sequence[float], quality: Sequence[Sequence[float]]) -> Figure:
    """What the output gains from the future, at evenly spaced marks, one a look-ahead.

    Args:
        lookahead: s of signal after the judged stretch; the last is the reference.
        change: distance to the output with all of the future, in dB of the output, without the reference.
        quality: SI-SNR of the stretch in dB, one row a look-ahead, one value a clip.
    """
    figure, axes = new_figure(1, 2, height=3.0)
    left, right = axes[0]
    marks = np.arange(len(lookahead))
    names = [f"{t:g} s" for t in lookahead]
    left.plot(marks[:-1], change, "o-", color=COLOURS["teacher"])
    left.set_xticks(marks[:-1], names[:-1])
    left.set(ylim=(min(change) - 5, 0), ylabel="distance (dB)", title="how far from the output with all of it")
    table = np.asarray(quality)  # (look-ahead, clip)
    for clip in table.T:
        right.plot(marks, clip, "o-", color=GREY, linewidth=0.8, markersize=3)
    right.plot(marks, table.mean(axis=1), "o-", color=COLOURS["teacher"], linewidth=2.2, label="mean")
    right.set_xticks(marks, names)
    right.set(ylabel="SI-SNR (dB)", ylim=(min(0.0, table.min() - 1), table.max() + 1), title="is it better? each clip")
    right.legend(loc="center right", bbox_to_anchor=(1.0, 0.3))
    for axis in axes[0]:
        axis.set_xlabel("future given")
    return figure
