"""Figures of notebook 05: a training step, all systems on one sentence, curves, learning rate, distance by layer,
differences by mixture, the sweep.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
from matplotlib.figure import Figure
from matplotlib.patches import FancyBboxPatch

from dccrn_lib.evaluation.intervals import Difference
from dccrn_lib.lessons.plotting import COLORMAP, COLOURS, LABELS, draw_spectrogram, new_figure

#: Names of published runs that stand for a system of the lessons.
_PUBLISHED = {"student_alone": "student", "uformer": "teacher"}


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

    box(0.2, 3.4, 2.2, "noisy $x$", plain)
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
    arrow((15.1, 4.45), (7.25, 3.8), "#d55e00", "--")
    axis.text(14.0, 3.55, "gradient, clipped", color="#d55e00", ha="left", va="top", fontsize=9)
    arrow((5.5, 3.35), (5.5, 1.9), "#0072b2", ":")
    axis.text(5.7, 2.6, "average, decay $d_k$", color="#0072b2", va="center", fontsize=9)
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
    """Loss on the training batches with its batch-to-batch band (left), SI-SNR on valid (right), over hours of audio.

    Args:
        histories: system -> ``TrainResult.history``.
    """
    figure, axes = new_figure(1, 2, height=3.4)
    loss, valid = axes[0]
    for name, history in histories.items():
        name = _PUBLISHED.get(name, name)
        colour, label = COLOURS.get(name, "#56b4e9"), LABELS.get(name, name)
        hours = np.array([row["hours"] for row in history["train"]])
        mean = np.array([row["clean"] for row in history["train"]])
        spread = np.array([row.get("clean_std", 0.0) for row in history["train"]])
        loss.plot(hours, mean, color=colour, label=label)
        loss.fill_between(hours, mean - spread, mean + spread, color=colour, alpha=0.15, linewidth=0)
        points = [(row["hours"], row["si_snr_db"]) for row in history["valid"]]
        valid.plot(*zip(*points, strict=True), "o-", color=colour, label=label, markersize=4)
    noisy = next(iter(histories.values()))["valid"][0]["noisy_si_snr_db"]
    valid.axhline(noisy, color=COLOURS["noisy"], linestyle="--", label=LABELS["noisy"])
    loss.set(title="training batches, mean and spread", xlabel="audio seen (h)")
    loss.set_ylabel("loss against clean speech")
    valid.set(title="valid split", xlabel="audio seen (h)", ylabel="SI-SNR (dB)")
    figure.legend(*valid.get_legend_handles_labels(), loc="outside lower center", ncols=5, fontsize=9)
    return figure


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
    markers = {"untrained": ("s", "#bbbbbb"), "student": ("o", None), "student_at_kl": ("o", None)}
    for name, values in distances.items():
        marker, colour = markers.get(name, ("^", None))
        colour = colour or COLOURS.get(name, "#56b4e9")
        axis.plot(list(values), list(values.values()), marker=marker, color=colour, label=LABELS.get(name, name))
    axis.set_yscale("log")
    axis.set(xlabel="layer", ylabel="KL to the teacher (nats)")
    axis.tick_params(axis="x", rotation=35)
    axis.legend(loc="lower center", bbox_to_anchor=(0.5, 1.0), ncols=len(axis.lines))
    return figure


def distance_over_training(history: Mapping) -> Figure:
    """KL of every layer over training, from the history of a student with a feature loss: a map layer by step."""
    rows = history["train"]
    layers = [key for key in rows[0] if key.startswith("layer ")]
    values = np.array([[row[key] for row in rows] for key in layers])  # (layer, point)
    figure, axes = new_figure(1, 1, height=3.4)
    axis = axes[0, 0]
    image = axis.imshow(np.log10(np.maximum(values, 1e-6)), aspect="auto", cmap=COLORMAP, interpolation="nearest")
    axis.set_xticks(range(len(rows)), [row["step"] for row in rows])
    axis.set_yticks(range(len(layers)), [key.removeprefix("layer ") for key in layers])
    axis.set(xlabel="step (mean since the point before)", ylabel="layer")
    axis.grid(False)
    figure.colorbar(image, ax=axis, label="log10 of KL (nats)")
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


def sweep(rows: Sequence[Mapping], metric: str = "SI-SNR (dB)") -> Figure:
    """Difference of every method to the baseline, with the 95 % interval over seeds.

    Args:
        rows: from ``experiments.grid.compare_methods``.
        metric: name and unit for the axis.
    """
    shown = [row for row in rows if row["difference"] is not None]
    figure, axes = new_figure(1, 1, height=1.0 + 0.45 * max(len(shown), 1))
    axis = axes[0, 0]
    for place, row in enumerate(shown):
        axis.plot(row["difference"], place, "o", color="#0072b2")
        if row["low"] is not None:
            axis.plot([row["low"], row["high"]], [place, place], color="#0072b2")
    axis.axvline(0, color="#222222", linewidth=0.8)
    axis.set_yticks(range(len(shown)), [f"{row['method']} ({row['seeds']} seeds)" for row in shown])
    axis.set_ylim(-0.7, max(len(shown), 1) - 0.3)
    axis.set_xlabel(f"difference to the student alone, {metric}")
    return figure
