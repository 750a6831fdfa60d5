"""Figures of the first lesson: what a mask does, the paper's idea in one picture, sizes of the networks."""

from __future__ import annotations

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from dccrn_lib.lessons.diagrams import arrow, box, canvas, label
from dccrn_lib.lessons.plotting import COLOURS, LABELS, draw_spectrogram, new_figure

_AT_KL = COLOURS["student_at_kl"]

_MAP = {  # lesson -> (x, y, colour, title, what it is about)
    "00": (50, 62, "#777777", "00 start here", "hear the problem, see the idea"),
    "01": (13, 47, "#777777", "01 complex STFT", "frames, phase, oracle masks"),
    "02": (50, 47, COLOURS["student"], "02 DCCRN", "complex layers, U-Net, LSTM"),
    "03": (87, 47, COLOURS["teacher"], "03 Uformer", "two streams, attention"),
    "04": (68.5, 31, _AT_KL, "04 attention transfer", "profile, KL divergence"),
    "05": (31.5, 31, _AT_KL, "05 distillation", "the step, frozen teacher"),
    "05b": (13, 15, _AT_KL, "05b full size on a GPU", "cost, logs, good enough?"),
    "06": (50, 15, COLOURS["clean"], "06 evaluation", "metrics, pairs, intervals"),
    "07": (87, 15, COLOURS["clean"], "07 streaming, export", "state, latency, ONNX"),
}
_HANDED_ON = (  # from, to, what, where it is written
    ((41, 58), (22, 51), "noisy speech", (24, 56)),
    ((26.3, 46), (36.7, 46), "spectrum\nand mask", (31.5, 49.5)),
    ((63.3, 46), (73.7, 46), "U-Net\nwith skips", (68.5, 49.5)),
    ((84, 43), (76, 35), "features of\n12 layers", (88, 38.5)),
    ((53, 43), (61, 35), "features of\n12 layers", (49, 38.5)),
    ((55.2, 30), (44.8, 30), "AT-KL", (50, 32)),
    ((26, 27), (18, 19), "recipe", (17.5, 24)),
    ((37, 27), (45, 19), "trained\nnetworks", (48, 24)),
    ((63.3, 14), (73.7, 14), "the best\nstudent", (68.5, 17.5)),
)


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
    passed = axes[0, 1].imshow(
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
    figure.colorbar(passed, ax=axes[0, 1], label="mask")
    figure.colorbar(image, ax=axes[0, 2], label="dB")
    return figure


def concept_map() -> Figure:
    """The lessons as a map: what each is about, and what it hands on to the next (along the arrows)."""
    figure, axis = canvas(5.6, 68, bottom=9)
    for x, y, colour, title, about in _MAP.values():
        box(axis, x, y, 25.4, 7.5, colour, "")
        axis.text(x, y + 1.5, title, ha="center", va="center", fontsize=9, weight="bold")
        axis.text(x, y - 1.7, about, ha="center", va="center", fontsize=8, color="#444444")
    for start, stop, text, where in _HANDED_ON:
        arrow(axis, start, stop, COLOURS["noisy"])
        axis.text(*where, text, ha="center", va="center", fontsize=8, color="#555555", style="italic")
    return figure


def distillation_diagram() -> Figure:
    """The paper's idea: a frozen teacher, a student, twelve pairs of layers, and two losses at the output."""
    figure, axis = canvas(4.9, 62, bottom=-4)
    teacher = _network(axis, 46, COLOURS["teacher"], "conformer", 1.15, 56.5)
    student = _network(axis, 15, COLOURS["student"], "LSTM", 0.8, 6.5)
    for (x, bottom, _), (_, _, top) in zip(teacher, student, strict=True):
        axis.plot([x, x], [top + 0.5, bottom - 0.5], linestyle=(0, (2, 2)), color=_AT_KL, linewidth=1.5)
    label(axis, 50, 30.5, "AT-KL: 12 pairs of layers", _AT_KL, weight="bold")
    axis.text(
        50, 59.5, "teacher: Uformer, trained before, frozen", ha="center", color=COLOURS["teacher"], weight="bold"
    )
    axis.text(50, 1.5, "student: DCCRN with 30 % of the parameters", ha="center", color="#b87700", weight="bold")
    box(axis, 5, 30.5, 9, 7, COLOURS["noisy"], "noisy\nspeech")
    for y, text in ((46, "STFT\nhop 160"), (15, "STFT\nhop 100")):
        arrow(axis, (6, 34 if y > 30 else 27), (13.3, y), COLOURS["noisy"])
        box(axis, 17, y, 7, 7, COLOURS["noisy"], text)
        arrow(axis, (20.7, y), (23.6, y), COLOURS["noisy"])
    box(axis, 88, 46, 14, 7, COLOURS["teacher"], "teacher's\nestimate")
    box(axis, 88, 15, 14, 7, COLOURS["student"], "student's\nestimate")
    box(axis, 88, 1.5, 14, 5, COLOURS["clean"], "clean speech")
    for y in (46, 15):
        arrow(axis, (76.4, y), (80.8, y), COLOURS["noisy"])
    arrow(axis, (88, 42.2), (88, 18.9), _AT_KL, both=True)
    arrow(axis, (88, 11.2), (88, 4.3), COLOURS["clean"], both=True)
    label(axis, 88, 30.5, "output\ndistillation\n(SI-SNR)", _AT_KL)
    label(axis, 88, 8.0, "SI-SNR", COLOURS["clean"])
    return figure


def _network(
    axis: Axes, y: float, colour: str, middle: str, scale: float, caption: float
) -> list[tuple[float, float, float]]:
    """Six encoder layers, a bottleneck, six decoder layers; returns (x, bottom, top) of the twelve layers."""
    heights = [scale * h for h in (15, 13, 11, 9, 7, 5)]
    places = []
    for i, height in enumerate(heights):
        for x in (26 + 3.4 * i, 74 - 3.4 * i):
            box(axis, x, y, 2.4, height, colour, "")
            places.append((x, y - height / 2, y + height / 2))
    box(axis, 50, y, 9.5, 6, "#777777", middle)
    for x, name in ((34.5, "encoder"), (65.5, "decoder")):
        axis.text(x, caption, name, ha="center", va="center", fontsize=8, color="#555555")
    return sorted(places)


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
    """Bars of every system for several metrics: system -> {metric: mean}; ``metrics`` maps a metric to its label.

    Clean speech is the end of the scale and no system: its value is written above the bars, which would look alike
    next to it. PESQ begins at 1.
    """
    figure, axes = new_figure(1, len(metrics), height=2.7)
    for axis, (metric, caption) in zip(axes[0], metrics.items(), strict=True):
        names = [name for name in table if np.isfinite(table[name][metric]) and name != "clean"]
        heights = [table[name][metric] for name in names]
        colours = [COLOURS["student"] if n == "network" else COLOURS.get(n, "#56b4e9") for n in names]
        axis.bar_label(axis.bar([LABELS.get(n, n) for n in names], heights, color=colours), fmt="%.2f", fontsize=8)
        bottom = 1.0 if metric.startswith("pesq") else min(0.0, *heights)
        axis.set(ylabel=caption, ylim=(bottom, bottom + 1.25 * max(max(heights) - bottom, 0.1)))
        axis.tick_params(axis="x", rotation=25)
        clean = table.get("clean", {}).get(metric, np.nan)
        if np.isfinite(clean):
            axis.set_title(f"clean speech: {clean:.2f}", fontsize=9, color=COLOURS["clean"])
    return figure
