"""Figures of the first lesson: what a mask does, the paper's idea in one picture, sizes of the networks."""

from __future__ import annotations

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import FancyArrowPatch, FancyBboxPatch

from dccrn_lib.lessons.plotting import COLOURS, LABELS, draw_spectrogram, new_figure

_AT_KL = COLOURS["student_at_kl"]


def masking(noisy, mask, hop: int = 100, sample_rate: int = 16000) -> Figure:
    """Three panels: the noisy spectrum, the mask from 0 (black) to 1 (white), and their product.

    Args:
        noisy: complex (freq, frame).
        mask: real or complex of the same shape; its magnitude is drawn.
    """
    noisy, mask = np.asarray(noisy), np.asarray(mask)
    figure, axes = new_figure(1, 3, height=2.5, sharex=True, sharey=True)
    reference = float(np.abs(noisy).max())
    seconds = noisy.shape[-1] * hop / sample_rate
    draw_spectrogram(axes[0, 0], noisy, hop, sample_rate, "noisy", reference)
    axes[0, 1].imshow(
        np.abs(mask),
        origin="lower",
        aspect="auto",
        cmap="gray",
        vmin=0,
        vmax=1,
        interpolation="nearest",
        extent=(0, seconds, 0, sample_rate / 2000),
    )
    axes[0, 1].set(title="times the mask", xlabel="time (s)")
    axes[0, 1].grid(False)
    image = draw_spectrogram(axes[0, 2], mask * noisy, hop, sample_rate, "is the estimate", reference)
    axes[0, 2].set_ylabel("")
    figure.colorbar(image, ax=axes, label="dB")
    return figure


def distillation_diagram() -> Figure:
    """The paper's idea: a frozen teacher, a student, twelve pairs of layers, and two losses at the output."""
    figure, axes = new_figure(1, 1, height=4.9)
    axis = axes[0, 0]
    axis.set(xlim=(0, 100), ylim=(-4, 62))
    axis.axis("off")
    teacher = _network(axis, 46, COLOURS["teacher"], "conformer", 1.15, 56.5)
    student = _network(axis, 15, COLOURS["student"], "LSTM", 0.8, 6.5)
    for (x, bottom, _), (_, _, top) in zip(teacher, student, strict=True):
        axis.plot([x, x], [top + 0.5, bottom - 0.5], linestyle=(0, (2, 2)), color=_AT_KL, linewidth=1.5)
    _label(axis, 50, 30.5, "AT-KL: 12 pairs of layers", _AT_KL, weight="bold")
    axis.text(
        50, 59.5, "teacher: Uformer, trained before, frozen", ha="center", color=COLOURS["teacher"], weight="bold"
    )
    axis.text(50, 1.5, "student: DCCRN with 30 % of the parameters", ha="center", color="#b87700", weight="bold")
    _box(axis, 5, 30.5, 9, 7, COLOURS["noisy"], "noisy\nspeech")
    for y, text in ((46, "STFT\nhop $\\mu$"), (15, "STFT\nhop $\\nu$")):
        _arrow(axis, (6, 34 if y > 30 else 27), (13.3, y), COLOURS["noisy"])
        _box(axis, 17, y, 7, 7, COLOURS["noisy"], text)
        _arrow(axis, (20.7, y), (23.6, y), COLOURS["noisy"])
    _box(axis, 88, 46, 14, 7, COLOURS["teacher"], "teacher's\nestimate")
    _box(axis, 88, 15, 14, 7, COLOURS["student"], "student's\nestimate")
    _box(axis, 88, 1.5, 14, 5, COLOURS["clean"], "clean speech")
    for y in (46, 15):
        _arrow(axis, (76.4, y), (80.8, y), COLOURS["noisy"])
    _arrow(axis, (88, 42.2), (88, 18.9), _AT_KL, both=True)
    _arrow(axis, (88, 11.2), (88, 4.3), COLOURS["clean"], both=True)
    _label(axis, 88, 30.5, "output\ndistillation\n(SI-SNR)", _AT_KL)
    _label(axis, 88, 8.0, "SI-SNR", COLOURS["clean"])
    return figure


def _network(
    axis: Axes, y: float, colour: str, middle: str, scale: float, caption: float
) -> list[tuple[float, float, float]]:
    """Six encoder layers, a bottleneck, six decoder layers; returns (x, bottom, top) of the twelve layers."""
    heights = [scale * h for h in (15, 13, 11, 9, 7, 5)]
    places = []
    for i, height in enumerate(heights):
        for x in (26 + 3.4 * i, 74 - 3.4 * i):
            _box(axis, x, y, 2.4, height, colour, "")
            places.append((x, y - height / 2, y + height / 2))
    _box(axis, 50, y, 9.5, 6, "#777777", middle)
    for x, name in ((34.5, "encoder"), (65.5, "decoder")):
        axis.text(x, caption, name, ha="center", va="center", fontsize=8, color="#555555")
    return sorted(places)


def _box(axis: Axes, x: float, y: float, width: float, height: float, colour: str, text: str) -> None:
    box = FancyBboxPatch(
        (x - width / 2, y - height / 2),
        width,
        height,
        boxstyle="round,pad=0,rounding_size=0.8",
        linewidth=1.4,
        edgecolor=colour,
        facecolor=(*_rgb(colour), 0.18),
    )
    axis.add_patch(box)
    axis.text(x, y, text, ha="center", va="center", fontsize=8)


def _rgb(colour: str) -> tuple[float, ...]:
    return tuple(int(colour[i : i + 2], 16) / 255 for i in (1, 3, 5))


def _arrow(axis: Axes, start: tuple, stop: tuple, colour: str, both: bool = False) -> None:
    style = "<|-|>" if both else "-|>"
    axis.add_patch(FancyArrowPatch(start, stop, arrowstyle=style, mutation_scale=10, color=colour, linewidth=1.4))


def _label(axis: Axes, x: float, y: float, text: str, colour: str, **style) -> None:
    box = {"facecolor": "white", "edgecolor": "none", "pad": 2}
    axis.text(x, y, text, ha="center", va="center", fontsize=9, color=colour, bbox=box, **style)


def sizes(parameters: dict[str, int], macs: dict[str, int]) -> Figure:
    """Parameters in millions and multiply-accumulates of one second of audio in billions: system -> number."""
    figure, axes = new_figure(1, 2, height=2.4)
    for axis, values, unit, title in (
        (axes[0, 0], parameters, 1e6, "parameters (millions)"),
        (axes[0, 1], macs, 1e9, "GMAC for one second of audio"),
    ):
        names = ["student" if name == "student" else LABELS.get(name, name) for name in values]
        drawn = axis.barh(names, [v / unit for v in values.values()], color=[COLOURS.get(n, "#56b4e9") for n in values])
        axis.bar_label(drawn, fmt="%.2f", padding=3)
        axis.set(xlabel=title, xlim=(0, 1.2 * max(values.values()) / unit))
        axis.invert_yaxis()
    axes[0, 1].set_yticklabels([])
    return figure


def scores(table: dict[str, dict[str, float]], metrics: dict[str, str]) -> Figure:
    """Bars of every system for several metrics: system -> {metric: mean}; ``metrics`` maps a metric to its label."""
    figure, axes = new_figure(1, len(metrics), height=2.7)
    for axis, (metric, label) in zip(axes[0], metrics.items(), strict=True):
        names = [name for name in table if np.isfinite(table[name][metric])]
        heights = [table[name][metric] for name in names]
        colours = [COLOURS["student"] if n == "network" else COLOURS.get(n, "#56b4e9") for n in names]
        axis.bar_label(axis.bar([LABELS.get(n, n) for n in names], heights, color=colours), fmt="%.2f", fontsize=8)
        axis.set(ylabel=label, ylim=(min(0.0, *heights), 1.15 * max(heights)))
        axis.tick_params(axis="x", rotation=25)
    return figure
