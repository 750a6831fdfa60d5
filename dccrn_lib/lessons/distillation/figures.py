"""Figures of notebook 05: a training step, the first steps, all systems on one sentence, curves, learning rate,
distance by layer, the spread over frequency, differences by mixture, by metric and by seed, the sweep.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import FancyBboxPatch
from matplotlib.ticker import MaxNLocator

from dccrn_lib.evaluation.intervals import Difference
from dccrn_lib.lessons.plotting import COLOURS, LABELS, draw_spectrogram, new_figure

#: Names of published runs that stand for a system of the lessons.
_PUBLISHED = {"student_alone": "student", "uformer": "teacher"}
_OTHERS = "grey, right: the other systems"  # of the learning curves
#: Marker and line style of a system in the learning curves, so that colour is not the only key.
_LOOKS = {"student": ("o", "-"), "student_at_kl": ("s", (0, (5, 2))), "teacher": ("^", (0, (5, 1.5, 1, 1.5)))}


def training_step() -> Figure:
    """One step of distillation as a diagram: what is frozen, what flows, what is averaged."""
    figure, axes = new_figure(1, 1, height=3.9)
    axis = axes[0, 0]
    axis.set(xlim=(0, 16), ylim=(0, 8))
    axis.axis("off")
    learnt, frozen, plain = "#cfe3f1", "#dddddd", "#ffffff"

    def box(x: float, y: float, width: float, text: str, colour: str) -> None:
        shape = FancyBboxPatch((x, y), width, 1.2, boxstyle="round,pad=0.05", facecolor=colour, edgecolor="#222222")
        axis.add_patch(shape)
        axis.text(x + width / 2, y + 0.6, text, ha="center", va="center", fontsize=9)

    def arrow(start: tuple, end: tuple, colour: str = "#222222", style: str = "-") -> None:
        look = {"arrowstyle": "->", "color": colour, "linestyle": style, "linewidth": 1.4}
        axis.annotate("", xy=end, xytext=start, arrowprops=look)

    box(0.2, 3.4, 2.2, "noisy $y$", plain)
    box(3.8, 5.6, 3.4, "teacher\neval, no gradient", frozen)
    box(3.8, 3.4, 3.4, "student\nlearns", learnt)
    box(3.8, 0.6, 3.4, "averaged student\nvalidated, saved", plain)
    box(9.3, 6.4, 4.2, "AT-KL over 12 layers, weight $b$", plain)
    box(9.3, 4.5, 4.2, r"$L(\hat{s}_S, \hat{s}_T)$, weight $a$", plain)
    box(9.3, 2.6, 4.2, r"$L(\hat{s}_S, s)$, weight $1 - a$", plain)
    box(9.3, 0.6, 4.2, "clean $s$", plain)
    box(14.5, 4.5, 1.3, "loss", plain)
    arrow((2.45, 4.3), (3.75, 6.0))
    arrow((2.45, 4.0), (3.75, 4.0))
    for y in (7.0, 5.3):
        arrow((7.25, 6.3), (9.25, y))
    for y in (6.7, 5.0, 3.3):
        arrow((7.25, 4.2), (9.25, y))
    arrow((11.4, 1.85), (11.4, 2.55))
    for y, end in ((7.0, 5.5), (5.1, 5.1), (3.2, 4.7)):
        arrow((13.55, y), (14.45, end))
    gradient = {"color": "#d55e00", "linestyle": "--", "linewidth": 1.4}
    axis.plot([15.15, 15.15, 6.5, 6.5], [4.4, 2.2, 2.2, 2.9], **gradient)
    arrow((6.5, 2.8), (6.5, 3.35), "#d55e00")
    axis.text(13.8, 2.05, "gradient,\nclipped", color="#d55e00", ha="left", va="top", fontsize=9)
    arrow((4.7, 3.35), (4.7, 1.9), "#0072b2", ":")
    axis.text(4.5, 2.6, "average, decay $d_k$", color="#0072b2", ha="right", va="center", fontsize=9)
    return figure


def first_steps(log: Sequence[Mapping[str, float]], width: int = 10) -> Figure:
    """Loss over that of the noisy input, and KL, of the first steps: a dot a batch, a line the mean of ``width``.

    Args:
        log: of every step, at least ``width`` of them: "clean" and "noisy", the loss against clean speech of the
            student's estimate and of the untouched input (dB), and "features", the mean KL (nat).
        width: steps that a mean is taken over; it is drawn at their centre.
    """
    figure, axes = new_figure(1, 2, height=2.6)
    drawn = {
        "loss minus that of\nthe noisy input (dB)": [row["clean"] - row["noisy"] for row in log],
        "mean KL of the layers (nat)": [row["features"] for row in log],
    }
    for axis, (label, values) in zip(axes[0], drawn.items(), strict=True):
        smooth = np.convolve(values, np.ones(width) / width, mode="valid")
        axis.plot(np.arange(len(values)), values, ".", color="#aaaaaa")
        axis.plot(np.arange(len(smooth)) + (width - 1) / 2, smooth, color=COLOURS["student_at_kl"])
        axis.set(xlabel="step", ylabel=label)
    axes[0, 0].axhline(0, color="#222222", linewidth=0.8)
    axes[0, 1].set_ylim(bottom=0)
    return figure


def side_by_side(spectra: Mapping[str, np.ndarray], hop: int = 100) -> Figure:
    """Spectrograms of all systems on one sentence, three in a row, on one dB scale; the bar stands in the last place.

    A point is the mean power of two bins and two frames: so the picture fits into its size at full width.

    Args:
        spectra: system -> complex (freq, frame), at most 5.
        hop: samples between frames.
    """
    averaged = {name: _two_by_two(spectrum) for name, spectrum in spectra.items()}
    reference = max(float(v.max()) for v in averaged.values())
    rows = len(averaged) // 3 + 1  # one place more than systems
    figure, axes = new_figure(rows, 3, height=2.5)
    image = None
    for k, (name, magnitude) in enumerate(averaged.items()):
        axis = axes.flat[k]
        image = draw_spectrogram(axis, magnitude, 2 * hop, title=LABELS.get(name, name), reference=reference)
        if k % 3:
            axis.set_ylabel("")
            axis.set_yticklabels([])
        if k + 3 < len(averaged):
            axis.set_xlabel("")
    for axis in list(axes.flat)[len(averaged) :]:
        axis.axis("off")
    assert image is not None, "at least one spectrum"
    bar = axes.flat[len(averaged)].inset_axes((0.05, 0.5, 0.9, 0.08))
    figure.colorbar(image, cax=bar, orientation="horizontal", label="dB re the loudest point")
    return figure


def _two_by_two(spectrum: np.ndarray) -> np.ndarray:
    """Root mean square over two bins and two frames: (freq, frame) -> (freq // 2, frame // 2)."""
    power = np.abs(np.asarray(spectrum)) ** 2
    freq, frame = (size // 2 for size in power.shape)
    return np.sqrt(power[: 2 * freq, : 2 * frame].reshape(freq, 2, frame, 2).mean(axis=(1, 3)))


def learning_curves(histories: Mapping[str, dict]) -> Figure:
    """SI-SNR on valid (left), and the loss on the training batches, over hours of audio.

    Each system has a panel of its own for the loss, with its spread from batch to batch as a band and the mean of the
    others as grey lines, so that no band covers another. A line style stands for one system in all panels.

    Args:
        histories: system -> ``TrainResult.history``.
    """
    named = {_PUBLISHED.get(name, name): history for name, history in histories.items()}
    losses = {name: _loss_curve(history) for name, history in named.items()}
    figure, axes = new_figure(1, 1 + len(named), height=3.2, width_ratios=(2.0, *[1] * len(named)))
    valid, *panels = axes[0]
    for name, history in named.items():
        points = [(row["hours"], row["si_snr_db"]) for row in history["valid"]]
        colour = COLOURS.get(name, "#56b4e9")
        marker, style = _LOOKS.get(name, ("o", "-"))
        look = {"color": colour, "marker": marker, "linestyle": style, "markersize": 4}
        valid.plot(*zip(*points, strict=True), label=LABELS.get(name, name), **look)
    noisy = next(iter(named.values()))["valid"][0]["noisy_si_snr_db"]
    valid.axhline(noisy, color=COLOURS["noisy"], linestyle=":", label=LABELS["noisy"])
    valid.set(title="valid split", xlabel="audio seen (h)", ylabel="SI-SNR (dB)")
    for axis, name in zip(panels, named, strict=True):
        colour = COLOURS.get(name, "#56b4e9")
        for other in named:
            hours, mean, spread = losses[other]
            if other == name:
                axis.fill_between(hours, mean - spread, mean + spread, color=colour, alpha=0.25, linewidth=0)
            look = {"color": colour, "zorder": 3} if other == name else {"color": "#888888", "zorder": 2}
            axis.plot(hours, mean, linestyle=_LOOKS.get(other, ("o", "-"))[1], **look)
        axis.sharey(panels[0])
        axis.sharex(panels[0])
        axis.set_title(re.sub(" (with|alone)", r"\n\1", LABELS.get(name, name)))
        axis.set_xlabel("audio (h)")
        if axis is not panels[0]:
            axis.tick_params(labelleft=False)
    panels[0].set_ylabel("loss against clean speech (dB)")
    handles, labels = valid.get_legend_handles_labels()
    grey = Line2D([], [], color="#888888")
    figure.legend(
        [*handles, grey], [*labels, _OTHERS], loc="outside lower center", ncols=3, fontsize=9, handlelength=3.2
    )
    return figure


def _loss_curve(history: Mapping) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Hours, mean and batch-to-batch spread of the loss against clean speech."""
    rows = history["train"]
    columns = (
        [row["hours"] for row in rows],
        [row["clean"] for row in rows],
        [row.get("clean_std", 0.0) for row in rows],
    )
    hours, mean, spread = (np.array(column, dtype=float) for column in columns)
    return hours, mean, spread


def schedule(rates: Sequence[float]) -> Figure:
    """Learning rate over the optimiser's steps."""
    figure, axes = new_figure(1, 1, height=2.2)
    axes[0, 0].plot(np.arange(len(rates)), np.asarray(rates) * 1e3, color="#0072b2")
    axes[0, 0].set(xlabel="step", ylabel="learning rate (1e-3)")
    axes[0, 0].set_ylim(bottom=0)
    return figure


def distance_by_layer(distances: Mapping[str, Mapping[str, float]]) -> Figure:
    """KL to the teacher's attention for each of the 12 layers, one line per system.

    Args:
        distances: system (a key of COLOURS, or any title) -> {layer: nats}, all with the same layers.
    """
    figure, axes = new_figure(1, 1, height=3.2)
    axis = axes[0, 0]
    markers = {"untrained": ("s", "#bbbbbb"), "student": ("o", None), "student_at_kl": ("D", None)}
    for name, values in distances.items():
        marker, colour = markers.get(name, ("^", None))
        colour = colour or COLOURS.get(name, "#56b4e9")
        layers = [f"{part[0].upper()}{number}" for part, _, number in (key.partition(".") for key in values)]
        axis.plot(layers, list(values.values()), marker=marker, color=colour, label=LABELS.get(name, name))
    axis.set_yscale("log")
    axis.set(xlabel="layer (E: encoder, D: decoder)", ylabel="KL to the teacher (nat)")
    axis.legend(loc="lower center", bbox_to_anchor=(0.5, 1.0), ncols=len(axis.lines))
    return figure


def profiles(layers: Mapping[str, Mapping[str, Sequence[float]]], labels: Mapping[str, str]) -> Figure:
    """What AT-KL compares: how layers spread their energy over frequency, a panel a layer; 1 is an even spread.

    Args:
        layers: name -> {system (a key of COLOURS): probability of each bin, from 0 to 8 kHz}.
        labels: what a system is called.
    """
    figure, axes = new_figure(1, len(layers), height=2.8)
    for axis, (layer, systems) in zip(axes.flat, layers.items(), strict=True):
        for name, spread in systems.items():
            edges = np.linspace(0.0, 8.0, len(spread) + 1)
            width = 3.5 if name == "teacher" else 1.5  # the others are drawn over it
            over_even = np.asarray(spread) * len(spread)
            axis.stairs(over_even, edges, color=COLOURS[name], lw=width, label=labels[name], baseline=None)
        axis.set(title=f"{layer}, {len(spread)} bins", xlabel="frequency (kHz)")
    axes[0, 0].set_ylabel("probability over\nthat of an even spread")
    figure.legend(*axes[0, 0].get_legend_handles_labels(), loc="outside upper center", ncols=3)
    return figure


def paired_differences(values: Sequence[float], difference: Difference, unit: str = "dB") -> Figure:
    """One bar a mixture, sorted, with mean and 95 % interval across.

    Args:
        values: a - b for each mixture.
        difference: from ``evaluation.compare_systems``.
        unit: of the values.
    """
    figure, axes = new_figure(1, 1, height=2.8)
    axis = axes[0, 0]
    ordered = np.sort(np.asarray(values, dtype=float))
    colours = [COLOURS["student_at_kl"] if v > 0 else COLOURS["student"] for v in ordered]
    axis.bar(np.arange(1, len(ordered) + 1), ordered, color=colours)
    axis.axhline(0, color="#222222", linewidth=0.8)
    axis.axhline(difference.mean, color="#222222", linestyle="--", label=f"mean {difference.mean:+.2f} {unit}")
    low, high = difference.low, difference.high
    if low is not None:
        axis.axhspan(low, high, color="#222222", alpha=0.12, linewidth=0, label="95 % interval of the mean")
    axis.set(xlabel="test mixture, sorted by the difference", ylabel=f"{LABELS['student_at_kl']}\nminus alone ({unit})")
    axis.legend()
    return figure


def gains(differences: Mapping[str, Mapping[str, Difference]], labels: Mapping[str, str]) -> Figure:
    """Paired differences to the noisy input: a panel a metric, a point with its 95 % interval a system.

    Args:
        differences: metric -> system -> from ``evaluation.compare_systems``.
        labels: metric -> name and unit for its axis.
    """
    figure, axes = new_figure(1, len(differences), height=2.0, sharey=True)
    for axis, (metric, by_system) in zip(axes[0], differences.items(), strict=True):
        for place, (name, d) in enumerate(reversed(list(by_system.items()))):
            _interval(axis, place, d.mean, d.low, d.high, COLOURS.get(name, "#56b4e9"))
        axis.axvline(0, color="#222222", linewidth=0.8)
        axis.xaxis.set_major_locator(MaxNLocator(3))  # more labels would touch
        axis.set_yticks(range(len(by_system)), [LABELS.get(name, name) for name in reversed(list(by_system))])
        axis.set_ylim(-0.6, len(by_system) - 0.4)
        axis.set_xlabel(labels[metric])
    return figure


def over_seeds(rows: Sequence[Mapping], metrics: Mapping[str, str]) -> Figure:
    """Differences of two systems, seed by seed and over the seeds: a panel a metric, with 95 % intervals.

    Args:
        rows: of a record of ``experiment over-seeds``: "seed" and, by metric, text like "+0.5 [+0.3, +0.7] better".
        metrics: metric -> name and unit for its axis.
    """
    figure, axes = new_figure(1, len(metrics), height=2.2, sharey=True)
    for axis, (metric, label) in zip(axes[0], metrics.items(), strict=True):
        for place, row in enumerate(reversed(rows)):
            mean, low, high = (float(v) for v in re.findall(r"[-+]?\d[\d.e+-]*", row[metric])[:3])
            _interval(axis, place, mean, low, high, "#888888" if row["seed"].isdigit() else COLOURS["student_at_kl"])
        axis.axvline(0, color="#222222", linewidth=0.8)
        names = [f"seed {row['seed']}" if row["seed"].isdigit() else row["seed"] for row in reversed(rows)]
        axis.set_yticks(range(len(rows)), names)
        axis.set_ylim(-0.6, len(rows) - 0.4)
        axis.set_xlabel(label)
    return figure


def _interval(axis: Axes, place: float, mean: float | None, low: float | None, high: float | None, colour: str) -> None:
    """A point with its interval at one height of the vertical axis; nothing where there is no mean."""
    if mean is not None:
        axis.plot(mean, place, "o", color=colour)
    if low is not None and high is not None:
        axis.plot([low, high], [place, place], color=colour)


def sweep(rows: Sequence[Mapping], metric: str = "SI-SNR (dB)", title: str = "") -> Figure:
    """Difference of every method to the baseline, with the 95 % interval over seeds.

    Args:
        rows: from ``experiments.grid.compare_methods``.
        metric: name and unit for the axis.
        title: of the figure.
    """
    shown = [row for row in rows if row["difference"] is not None]
    figure, axes = new_figure(1, 1, height=1.0 + 0.45 * max(len(shown), 1))
    axis = axes[0, 0]
    for place, row in enumerate(shown):
        _interval(axis, place, row["difference"], row["low"], row["high"], "#0072b2")
    axis.axvline(0, color="#222222", linewidth=0.8)
    axis.set_yticks(range(len(shown)), [f"{row['method']} ({row['seeds']} seeds)" for row in shown])
    axis.set_ylim(-0.7, max(len(shown), 1) - 0.3)
    axis.set_xlabel(f"difference to the student alone, {metric}")
    axis.set_title(title, fontsize=9)
    return figure
