"""Figures of notebook 06: what metrics hear, pairs, intervals against the number of items, and breakdowns."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import matplotlib
import numpy as np
from matplotlib.figure import Figure

from dccrn_lib.evaluation.metrics import METRICS
from dccrn_lib.lessons.diagrams import arrow, box, canvas
from dccrn_lib.lessons.plotting import COLORMAP, COLOURS, LABELS, new_figure

_METRIC_COLOURS = {"pesq_wb": "#0072b2", "pesq_nb": "#56b4e9", "stoi": "#009e73", "si_snr_db": "#d55e00"}


def chain_of_evidence() -> Figure:
    """From two systems and a test set to a verdict, with the question that each step can get wrong."""
    figure, axis = canvas(3.5, 38)
    grey, blue, red = COLOURS["noisy"], COLOURS["student_at_kl"], "#b42318"
    steps = (
        (9.5, "test mixtures", "the same for\nboth systems", grey, "unseen voices\nand noises?"),
        (29.5, "metrics", "a number for each\noutput, by name", blue, "what is this\nmetric deaf to?"),
        (50, "differences", "system A minus B,\nmixture by mixture", blue, "what could not\nbe scored?"),
        (71, "interval", "mean, 95 %,\neffect size", blue, "enough mixtures?\nenough seeds?"),
        (90.5, "verdict", "better, worse or not\ndistinguishable", COLOURS["clean"], "which mixtures\ngot worse?"),
    )
    for (x, title, about, colour, doubt), following in zip(steps, (*steps[1:], None), strict=True):
        box(axis, x, 25, 17.5, 13, colour, "")
        axis.text(x, 28.6, title, ha="center", va="center", fontsize=9, weight="bold")
        axis.text(x, 23.2, about, ha="center", va="center", fontsize=7.5, color="#444444")
        axis.text(x, 8, doubt, ha="center", va="center", fontsize=8.5, color=red, style="italic")
        axis.plot([x, x], [12, 17.6], linestyle=(0, (2, 2)), color=red, linewidth=1)
        if following:
            arrow(axis, (x + 9, 25), (following[0] - 9, 25), grey)
    axis.text(50, 35.5, "two systems, one question asked beforehand", ha="center", va="center", fontsize=9)
    axis.text(50, 1.5, "what to doubt at each step", ha="center", va="center", fontsize=9, color=red)
    return figure


def responses(curves: Mapping[str, tuple[Sequence[float], Sequence[Mapping[str, float]]]]) -> Figure:
    """How each metric answers to each change of the signal: one column a change, one row a metric.

    Args:
        curves: axis label of the change -> (amounts, one dict of metrics an amount).
    """
    metrics = ("si_snr_db", "pesq_wb", "pesq_nb", "stoi")
    figure, axes = new_figure(len(metrics), len(curves), height=1.45, sharex="col", sharey="row")
    for column, (label, (amounts, scores)) in enumerate(curves.items()):
        for row, metric in enumerate(metrics):
            axis = axes[row, column]
            axis.plot(amounts, [s[metric] for s in scores], "o-", color=_METRIC_COLOURS[metric], markersize=3)
            if column == 0:
                axis.set_ylabel(METRICS[metric].axis)
        axes[-1, column].set_xlabel(label)
        if amounts[0] > amounts[-1]:  # damage grows to the right in every column
            axes[-1, column].invert_xaxis()
    figure.align_ylabels()
    return figure


def one_number_many_sounds(scores: Mapping[str, Mapping[str, float]]) -> Figure:
    """Damages of equal SI-SNR one below the other, a dot with its value: WB-PESQ and STOI tell them apart.

    Args:
        scores: damage -> metrics.
    """
    figure, axes = new_figure(1, 2, height=2.8)
    names = list(scores)
    for axis, metric in zip(axes[0], ("pesq_wb", "stoi"), strict=True):
        values = [s[metric] for s in scores.values()]
        axis.plot(values, range(len(names)), "o", color=_METRIC_COLOURS[metric])
        for row, value in enumerate(values):
            axis.annotate(f"{value:.2f}", (value, row), (6, 0), textcoords="offset points", va="center", fontsize=9)
        axis.set(xlabel=METRICS[metric].axis, ylim=(len(names) - 0.5, -0.5))
        axis.set_yticks(range(len(names)), names)
        axis.margins(x=0.15)
    axes[0, 0].set_xlim(left=1.0)  # where the scale begins
    axes[0, 1].set_xlim(min(0.8, *(s["stoi"] for s in scores.values())), 1.0)
    axes[0, 1].set_yticklabels([])
    return figure


def pairs(items: Mapping[str, Sequence[Mapping]], a: str, b: str, metric: str) -> Figure:
    """One point a test mixture, system b across, system a up; the colour is the band of the input SNR."""
    both = [(q[metric], p[metric], p["snr_db_in"]) for p, q in zip(items[a], items[b], strict=True)]
    x, y, snr = np.array([v for v in both if None not in v], dtype=float).T
    figure, axes = new_figure(1, 1, height=3.6)
    axis = axes[0, 0]
    low, high = min(x.min(), y.min()), max(x.max(), y.max())
    axis.plot([low, high], [low, high], color="#222222", linewidth=0.8, label="no difference")
    band = np.floor(snr / 5).astype(int)
    colours = matplotlib.colormaps[COLORMAP](np.linspace(0.1, 0.9, int(band.max() - band.min()) + 1))
    for k in np.unique(band):
        name = f"input SNR {5 * k} to {5 * k + 5} dB"
        style = {"s": 28, "edgecolors": "#222222", "linewidths": 0.4, "label": name}
        axis.scatter(x[band == k], y[band == k], color=colours[k - band.min()], **style)
    label = METRICS[metric].axis
    axis.set(xlabel=f"{LABELS.get(b, b)}: {label}", ylabel=f"{LABELS.get(a, a)}: {label}")
    axis.legend(loc="upper left")
    return figure


def interval_by_count(unpaired: Sequence[float], paired: Sequence[float], wanted: float, unit: str) -> Figure:
    """Half-width of the 95 % interval against the number of mixtures, for unpaired and paired comparison.

    half-width = 1.96 * standard deviation / sqrt(n), with the standard deviations measured.

    Args:
        unpaired: values of the two systems, one after the other's mean removed (their pooled scatter), (n,).
        paired: differences by mixture, (n,).
        wanted: the difference one would like to see.
        unit: of the values.
    """
    figure, axes = new_figure(1, 1, height=3.0)
    axis = axes[0, 0]
    counts = np.unique(np.geomspace(4, 3000, 60).astype(int))
    for values, factor, colour, label in (
        (unpaired, np.sqrt(2), COLOURS["noisy"], "unpaired"),
        (paired, 1.0, COLOURS["student_at_kl"], "paired"),
    ):
        spread = float(np.std(values, ddof=1))
        axis.loglog(counts, 1.96 * factor * spread / np.sqrt(counts), color=colour, label=label)
    axis.axhline(wanted, color="#222222", linestyle="--", label=f"difference to see: {wanted:g} {unit}")
    axis.set(xlabel="number of test mixtures", ylabel=f"half-width ({unit})")
    axis.legend()
    return figure


def by_group(groups: Mapping[str, Mapping[str, tuple[float, float, float, int]]], label: str) -> Figure:
    """Mean with its 95 % interval for each group and system.

    Args:
        groups: group -> {system: (mean, low, high, n)}; low and high may be NaN for a single item.
        label: of the y axis.
    """
    figure, axes = new_figure(1, 1, height=3.2)
    axis = axes[0, 0]
    systems = list(dict.fromkeys(name for values in groups.values() for name in values))
    width = 0.8 / len(systems)
    for k, name in enumerate(systems):
        places = [i - 0.4 + width * (k + 0.5) for i, values in enumerate(groups.values()) if name in values]
        stats = np.array([values[name][:3] for values in groups.values() if name in values])
        axis.bar(places, stats[:, 0], width * 0.9, color=COLOURS.get(name, "#56b4e9"), label=LABELS.get(name, name))
        axis.vlines(places, stats[:, 1], stats[:, 2], color="#222222", linewidth=1)
    names = [f"{group}\nn = {next(iter(values.values()))[3]}" for group, values in groups.items()]
    axis.set_xticks(range(len(groups)), names, rotation=0 if len(groups) <= 5 else 20)
    axis.axhline(0, color="#222222", linewidth=0.8)
    axis.set_ylabel(label)
    figure.legend(loc="outside upper center", ncols=len(systems), fontsize=9)
    return figure


def chance_of_guessing(trials: Sequence[int], p_value) -> Figure:
    """Probability to reach a score in an A/B/X test by guessing, one line for each number of trials.

    Args:
        trials: numbers of trials.
        p_value: function (correct, trials) -> probability.
    """
    figure, axes = new_figure(1, 1, height=2.8)
    axis = axes[0, 0]
    colours = matplotlib.colormaps[COLORMAP](np.linspace(0.15, 0.8, len(trials)))  # more trials, lighter; no system's
    for n, colour, marker in zip(trials, colours, "osD^v", strict=False):
        scores = range(n // 2, n + 1)
        chances = [p_value(k, n) for k in scores]
        axis.semilogy([k / n for k in scores], chances, f"{marker}-", color=colour, markersize=4)
        axis.annotate(f"{n} trials", (1.0, chances[-1]), (8, 0), textcoords="offset points", va="center", fontsize=9)
    axis.plot([0.38, 1.0], [0.05, 0.05], color="#222222", linestyle="--", linewidth=1.0)
    axis.annotate("0.05", (0.405, 0.05), (0, 3), textcoords="offset points", va="bottom", fontsize=9)
    axis.set(xlabel="share of right answers", ylabel="probability by guessing", xlim=(0.38, 1.08))
    return figure
