"""Figures of the Uformer lesson: the whole network, its streams, their fusion, and the conformer's reach.

The complex stream is blue, the magnitude stream orange and what couples them green wherever they stand side by side.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Circle, FancyArrowPatch, FancyBboxPatch

from dccrn_lib.lessons.plotting import COLORMAP, new_figure

COMPLEX, MAGNITUDE, FUSED, GREY = "#0072b2", "#e69f00", "#009e73", "#8c8c8c"
STREAMS = {"complex": COMPLEX, "magnitude": MAGNITUDE}
FRAME_SECONDS = 0.01  # hop 160 at 16 kHz


# ------------------------------------------------------------------------------------------------ the whole network
def _box(axis: Axes, x: float, y: float, width: float, height: float, colour: str, text: str = "", size: float = 7.5):
    """A rounded box centred at (x, y)."""
    corner = (x - width / 2, y - height / 2)
    style = "round,pad=0,rounding_size=0.08"
    axis.add_patch(FancyBboxPatch(corner, width, height, boxstyle=style, facecolor=colour, edgecolor="white", zorder=3))
    if text:
        axis.text(x, y, text, ha="center", va="center", fontsize=size, color="white", zorder=4)


def _line(axis: Axes, start: tuple[float, float], end: tuple[float, float], colour: str = GREY, bend: float = 0.0):
    arrow = FancyArrowPatch(
        start,
        end,
        arrowstyle="-|>",
        mutation_scale=7,
        color=colour,
        linewidth=0.9,
        zorder=2,
        shrinkA=0,
        shrinkB=0,
        connectionstyle=f"arc3,rad={bend}",
    )
    axis.add_patch(arrow)


def architecture(channels: Sequence[int], bins: int = 256, stages: Sequence[str] = ()) -> Figure:
    """The whole Uformer: two U-shaped streams above each other, skips, fusions, and the conformer's stages below.

    Args:
        channels: magnitude channels at the input and after each encoder layer.
        bins: frequencies at the input.
        stages: names of the conformer's stages.
    """
    figure, axes = new_figure(2, 1, height=2.9, gridspec_kw={"height_ratios": [3.6, 1]})
    axis, lower = axes[:, 0]
    layers = len(channels) - 1
    columns = []  # (x, title, chan, freq)
    for i in range(layers):
        columns.append((i + 1.0, f"E{i + 1}", channels[i + 1], bins >> (i + 1)))
    for i in range(layers):
        columns.append((layers + 2.8 + i, f"D{i + 1}", channels[layers - 1 - i], bins >> (layers - 1 - i)))
    middle, end = layers + 1.4, 2 * layers + 2.8
    rows = {"complex": 1.7, "magnitude": -1.7}
    for stream, y in rows.items():
        colour = STREAMS[stream]
        for x, title, chan, freq in columns:
            height = 0.22 * np.log2(freq)
            _box(axis, x, y, 0.62, height, colour, title)
            parts = f"2·{chan}" if stream == "complex" else f"{chan}"
            axis.text(x, y - height / 2 - 0.07, f"{parts}×{freq}", ha="center", va="top", fontsize=6.1)
        xs = [0.1, *(c[0] for c in columns[:layers]), middle, *(c[0] for c in columns[layers:]), end + 0.3]
        for a, b in zip(xs[:-1], xs[1:], strict=True):
            _line(axis, (a + 0.31, y), (b - 0.31, y), colour)
        for i in range(layers):  # encoder i -> decoder layers - 1 - i
            a, b = columns[i], columns[2 * layers - 1 - i]
            top = y + 0.11 * np.log2(a[3]) if stream == "complex" else y - 0.11 * np.log2(a[3]) - 0.28
            top_b = y + 0.11 * np.log2(b[3]) if stream == "complex" else y - 0.11 * np.log2(b[3]) - 0.28
            _line(axis, (a[0], top), (b[0], top_b), "#cccccc", bend=-0.13 if stream == "complex" else 0.13)
    _box(axis, middle, 0, 1.35, 4.4, "#56b4e9", f"conformer\n\n{len(stages)} stages,\neach with\na fusion", 7)
    for x, *_ in columns:
        for a, b in ((0.16, 0.48), (-0.16, -0.72)):
            axis.plot([x, x], [a, b], color=FUSED, linewidth=1, zorder=2)
        axis.add_patch(Circle((x, 0), 0.16, facecolor=FUSED, edgecolor="white", zorder=3))
        axis.text(x, -0.01, "+", ha="center", va="center", color="white", fontsize=8, zorder=4)
    axis.text(-0.62, rows["complex"], "$|X|^{0.5}e^{j\\arg X}$", ha="center", va="center", color=COMPLEX, fontsize=9)
    axis.text(-0.62, rows["magnitude"], "$|X|^{0.5}$", ha="center", va="center", color=MAGNITUDE, fontsize=9)
    axis.text(end + 0.75, rows["complex"], "$C$", ha="center", va="center", color=COMPLEX, fontsize=9)
    axis.text(end + 0.75, rows["magnitude"], "$M$", ha="center", va="center", color=MAGNITUDE, fontsize=9)
    axis.text(-0.62, 0, "fusion", ha="center", va="center", color=FUSED, fontsize=9)
    axis.text(end + 0.95, 0, "$\\frac{1}{2}(\\tanh|C|+\\sigma(M))$\n$\\arg C$", ha="center", va="center", fontsize=7.8)
    axis.set(xlim=(-1.4, end + 2), ylim=(-3.7, 3.7))
    axis.axis("off")
    kinds = {"feed-forward": "#56b4e9", "time": "#d55e00", "frequency": "#cc79a7", "dilated": GREY}
    for i, name in enumerate(stages):
        colour = next((c for word, c in kinds.items() if name.startswith(word)), GREY)
        _box(lower, i, 0, 0.9, 0.8, colour, name.replace(" ", "\n", 1).replace("-", "-\n", 1), 6.3)
        _line(lower, (i - 0.55, 0), (i - 0.45, 0))
    if stages:
        _box(lower, len(stages), 0, 0.9, 0.8, "#222222", "LayerNorm", 6.3)
        lower.text(-0.5, 0.62, "inside the conformer; a fusion after every box but the last", fontsize=9)
    lower.set(xlim=(-0.7, len(stages) + 0.7), ylim=(-0.55, 0.9))
    lower.axis("off")
    return figure


# --------------------------------------------------------------------------------------------------- streams, fusion
def crop(values: np.ndarray, span: tuple[float, float], top_khz: float) -> tuple[np.ndarray, tuple]:
    """The part of (256, frame) within ``span`` seconds and below ``top_khz``, and its extent for imshow."""
    first, last = (round(t / FRAME_SECONDS) for t in span)
    part = np.asarray(values)[: round(256 * top_khz / 8), first:last]
    return part, (span[0], span[0] + part.shape[1] * FRAME_SECONDS, 0, top_khz)


def streams(
    spectrum: np.ndarray, compressed: np.ndarray, real: np.ndarray, span: tuple[float, float] = (0.6, 1.6)
) -> Figure:
    """One spectrum as the network could see it: magnitude, compressed magnitude, compressed real part.

    Args:
        spectrum, compressed: real, (256, frame), each shown on a linear scale up to its own maximum.
        real: (256, frame), shown on a symmetric scale.
        span: s shown, up to 4 kHz.
    """
    figure, axes = new_figure(1, 3, height=2.7, sharey=True)
    panels = (("$|X|$", spectrum), ("$|X|^{0.5}$: magnitude stream", compressed), ("real part, complex stream", real))
    for axis, (title, values) in zip(axes[0], panels, strict=True):
        part, extent = crop(values, span, 4.0)
        top = np.abs(part).max()
        signed = {"cmap": "RdBu_r", "vmin": -top, "vmax": top}
        look = signed if part.min() < 0 else {"cmap": COLORMAP, "vmin": 0, "vmax": top}
        axis.imshow(part, origin="lower", aspect="auto", extent=extent, interpolation="nearest", **look)
        axis.set(title=title, xlabel="time (s)")
        axis.grid(False)
    axes[0, 0].set_ylabel("frequency (kHz)")
    return figure


def fusion_field(gates: Sequence[float] = (4.0, 0.0, -1.5)) -> Figure:
    """Where fusion moves the complex stream for some values M, and what it adds to the magnitude stream.

    Args:
        gates: values of M for the arrows in the complex plane.
    """
    figure, axes = new_figure(1, 2, height=3.4)
    plane, curve = axes[0]
    grid = np.array([-2.0, -0.5, 1.0])
    x, y = np.meshgrid(grid, grid)
    for gate, colour in zip(gates, ("#9ecae1", COMPLEX, "black"), strict=True):
        push = 1 / (1 + np.exp(-gate))
        plane.quiver(
            x,
            y,
            push,
            push,
            angles="xy",
            scale_units="xy",
            scale=1,
            color=colour,
            width=0.009,
            label=f"M = {gate:g}: + {push:.2f} (1 + j)",
        )
    plane.axhline(0, color=GREY, linewidth=0.6)
    plane.axvline(0, color=GREY, linewidth=0.6)
    plane.set(xlim=(-2.5, 3), ylim=(-2.5, 3.9), xlabel="real part of C", ylabel="imaginary part of C", aspect="equal")
    plane.set_title("complex stream: all push one way")
    plane.legend(loc="upper left", fontsize=7.5, frameon=True)
    size = np.linspace(0, 6, 200)
    curve.plot(size, 1 / (1 + np.exp(-size)), color=MAGNITUDE, label="added to M: $\\sigma(|C|)$")
    curve.axhline(0.5, color=GREY, linestyle=":", label="floor 0.5")
    curve.set(xlabel="|C|", ylabel="M' - M", ylim=(0, 1.05), title="magnitude stream: at least 0.5")
    curve.legend(loc="lower right")
    return figure


def clouds(panels: Mapping[str, np.ndarray], limit: float | None = None) -> Figure:
    """Point clouds in the complex plane side by side, on one scale: title -> complex (point,)."""
    figure, axes = new_figure(1, len(panels), height=2.9)
    points = np.concatenate([np.asarray(z) for z in panels.values()])
    reach = limit or 1.05 * float(max(np.abs(points.real).max(), np.abs(points.imag).max()))
    for axis, (title, z) in zip(axes[0], panels.items(), strict=True):
        z = np.asarray(z)
        axis.plot(z.real, z.imag, ".", color=COMPLEX, markersize=2, alpha=0.5)
        axis.set(xlim=(-reach, reach), ylim=(-reach, reach), title=title, aspect="equal")
        axis.set(xlabel="real part")
    axes[0, 0].set_ylabel("imaginary part")
    return figure


# ---------------------------------------------------------------------------------------------------------- conformer
def dilations(pairs: Sequence[tuple[int, int]], reach: Sequence[int]) -> Figure:
    """Taps of every dilated block along frames, and the reach of all blocks up to each.

    Args:
        pairs: (dilation of the signal branch, dilation of the gate) of each block.
        reach: frames that the stack up to and including each block sees on each side.
    """
    figure, axes = new_figure(1, 2, height=3.3, sharey=True)
    taps, total = axes[0]
    blocks = np.arange(len(pairs))
    for k, (signal, gate) in enumerate(pairs):
        for dilation, colour, shift in ((signal, COMPLEX, 0.13), (gate, "#d55e00", -0.13)):
            at = np.array([-dilation, 0, dilation])
            taps.plot(at, [k + shift] * 3, "o-", color=colour, markersize=4, linewidth=1)
    taps.plot([], [], "o-", color=COMPLEX, label="signal, $2^k$")
    taps.plot([], [], "o-", color="#d55e00", label="gate, $2^{7-k}$")
    taps.set(xlabel="frames from the present one", ylabel="block k", title="three taps in time each", yticks=blocks)
    taps.set_xscale("symlog", base=2, linthresh=1)
    ticks = [-128, -16, -4, 0, 4, 16, 128]
    taps.set_xticks(ticks, [str(t) for t in ticks])
    taps.set_ylim(len(pairs) - 0.3, -1.7)
    taps.legend(loc="upper center", fontsize=7.5, ncols=2)
    total.barh(blocks, 2 * np.asarray(reach) + 1, left=-np.asarray(reach) - 0.5, height=0.6, color=FUSED)
    for k, frames in enumerate(reach):
        total.text(reach[-1] + 30, k, f"±{frames} frames, {frames * FRAME_SECONDS:.2f} s", va="center", fontsize=7.5)
    total.set(
        xlabel="frames from the present one", title="seen after block k", xlim=(-1.1 * reach[-1], 2.2 * reach[-1])
    )
    total.set_xticks([-reach[-1], 0, reach[-1]])
    return figure


def stage_bars(updates: Mapping[str, Mapping[str, float]], label: str = "|stage(x) - x| / |x|") -> Figure:
    """Two bars a stage: {"complex" | "magnitude": {stage: value}}."""
    figure, axes = new_figure(1, 1, height=3.2)
    axis = axes[0, 0]
    names = list(next(iter(updates.values())))
    for shift, (stream, values) in zip((-0.2, 0.2), updates.items(), strict=True):
        axis.bar(np.arange(len(names)) + shift, list(values.values()), 0.4, color=STREAMS[stream], label=stream)
    axis.set_xticks(range(len(names)), names, rotation=40, ha="right")
    axis.set_ylabel(label)
    axis.legend(title="stream")
    return figure
