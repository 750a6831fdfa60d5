"""Figures of the Uformer lesson: the whole network, its streams, their fusion, and the conformer's reach.

The complex stream is blue, the magnitude stream orange and what couples them green wherever they stand side by side.
"""

# numpy's stubs give real and imag only to arrays whose dtype they know.
# pyright: reportAttributeAccessIssue=false

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Circle, FancyBboxPatch

from dccrn_lib.lessons.plotting import COLORMAP, new_figure

COMPLEX, MAGNITUDE, FUSED, GREY = "#0072b2", "#e69f00", "#009e73", "#8c8c8c"
STREAMS = {"complex": COMPLEX, "magnitude": MAGNITUDE}
LIGHT = {"complex": "#a9cfe8", "magnitude": "#f6d999"}
FRAME_SECONDS = 0.01  # hop 160 at 16 kHz


# ------------------------------------------------------------------------------------------------ the whole network
def _box(axis: Axes, x: float, y: float, width: float, height: float, colour: str, text: str = "", size: float = 8):
    """A rounded box centred at (x, y)."""
    corner = (x - width / 2, y - height / 2)
    style = "round,pad=0,rounding_size=0.06"
    axis.add_patch(FancyBboxPatch(corner, width, height, boxstyle=style, facecolor=colour, edgecolor="white", zorder=3))
    if text:
        axis.text(x, y, text, ha="center", va="center", fontsize=size, zorder=4)


def _arrow(axis: Axes, start: tuple[float, float], end: tuple[float, float], colour: str = GREY, style: str = "-|>"):
    options = {"arrowstyle": style, "color": colour, "linewidth": 1.2, "shrinkA": 0, "shrinkB": 0, "mutation_scale": 8}
    axis.annotate("", xy=end, xytext=start, arrowprops=options, zorder=2)


def _height(freq: int) -> float:
    """Of the box of a layer with so many bins."""
    return max(0.3, 0.1 * np.log2(freq))


def architecture(channels: Sequence[int], bins: int = 256, stages: Sequence[str] = ()) -> Figure:
    """The whole Uformer: two U-shaped streams above each other, skips, fusions, and the conformer's stages below.

    Args:
        channels: magnitude channels at the input and after each encoder layer.
        bins: frequencies at the input.
        stages: names of the conformer's stages.
    """
    figure, axes = new_figure(1, 1, height=6.6)
    figure.set_size_inches(10.4, 6.6)
    axis = axes[0, 0]
    layers = len(channels) - 1
    columns = []  # (x, name, chan, freq)
    for i in range(layers):
        columns.append((1.25 + 0.62 * i, f"encoder.{i}", channels[i + 1], bins >> (i + 1)))
    middle = 1.25 + 0.62 * layers + 0.15
    for i in range(layers):
        columns.append((middle + 0.77 + 0.62 * i, f"decoder.{i}", channels[layers - 1 - i], bins >> (layers - 1 - i)))
    last = columns[-1][0]
    rows = {"complex": 4.6, "magnitude": 2.7}
    for stream, y in rows.items():
        colour, up = STREAMS[stream], 1 if stream == "complex" else -1
        light = LIGHT[stream]
        for x, _, chan, freq in columns:
            _box(axis, x, y, 0.5, _height(freq), light)
            shape = f"2·{chan}" if stream == "complex" else f"{chan}"
            axis.text(x, y, f"{shape}\n× {freq}", ha="center", va="center", fontsize=7.5, zorder=5)
        xs = [0.58, *(c[0] for c in columns[:layers]), middle, *(c[0] for c in columns[layers:]), last + 0.85]
        for a, b in zip(xs[:-1], xs[1:], strict=True):
            _arrow(axis, (a + (0.36 if a == middle else 0.25), y), (b - (0.36 if b == middle else 0.25), y), colour)
        for i in range(layers):  # encoder i -> decoder layers - 1 - i
            a, b = columns[i], columns[2 * layers - 1 - i]
            level = y + up * (0.55 + 0.1 * (layers - i))
            axis.plot([a[0], a[0], b[0]], [y + up * _height(a[3]) / 2, level, level], color=GREY, linewidth=0.8)
            _arrow(axis, (b[0], level), (b[0], y + up * _height(b[3]) / 2))
        axis.text(0.42, y, {"complex": "complex\nstream", "magnitude": "magnitude\nstream"}[stream], color=colour,
                  ha="center", va="center", fontsize=8.5)  # fmt: skip
    axis.text(1.0, 5.62, "in a box: channels × bins,\nand all T frames", ha="right", va="center", fontsize=7.5)
    axis.text(0.42, 4.2, "√|Y|·exp(j arg Y)\n2 × 256", ha="center", va="top", fontsize=7.5)
    axis.text(0.42, 2.3, "√|Y|\n1 × 256", ha="center", va="top", fontsize=7.5)
    axis.text(middle, 5.77, "skips of the complex stream", ha="center", fontsize=7.5, color=GREY)
    axis.text(middle, 1.47, "skips of the magnitude stream", ha="center", va="top", fontsize=7.5, color=GREY)
    for x, name, *_ in columns:
        axis.text(x, 3.87, name, ha="center", va="center", fontsize=7.2)
        _arrow(axis, (x, 3.76), (x, 3.2), FUSED, "<|-|>")
        axis.add_patch(Circle((x, 3.48), 0.1, facecolor=FUSED, edgecolor="white", zorder=3))
        axis.text(x, 3.475, "+", ha="center", va="center", color="white", fontsize=8, zorder=4)
    axis.text(0.42, 3.48, "fusion", ha="center", va="center", color=FUSED, fontsize=8.5)
    words = f"conformer\n\n{len(stages)} stages\na fusion\nbehind\neach\n\n4 bins"
    _box(axis, middle, 3.65, 0.72, 2.5, "#d9d9d9", words, 7.5)
    end = last + 1.0
    axis.text(last + 0.68, 4.6, "C", ha="center", va="center", color=COMPLEX, fontsize=11)
    axis.text(last + 0.68, 2.7, "A", ha="center", va="center", color="#b87800", fontsize=11)
    _arrow(axis, (last + 0.76, 4.5), (end + 0.1, 4.12), COMPLEX)
    _arrow(axis, (last + 0.76, 2.8), (end + 0.1, 3.18), MAGNITUDE)
    _box(axis, end + 0.15, 3.65, 1.08, 0.9, "#d9f0e7", "gain of √|Y|:\n½(tanh|C| + σ(A))\nphase + arg C", 7.2)
    axis.text(end + 0.4, 2.62, "enhanced\nspectrum Ŝ", ha="center", va="center", fontsize=8.5)
    _arrow(axis, (end + 0.4, 3.2), (end + 0.4, 2.85), FUSED)
    _stages(axis, stages)
    axis.set(xlim=(-0.2, 11.2), ylim=(0.2, 5.9), aspect="equal")
    axis.axis("off")
    return figure


def _stages(axis: Axes, stages: Sequence[str]) -> None:
    """The row of the conformer's stages below the streams."""
    kinds = {"feed-forward": "#a6d8f0", "time": "#f2b28c", "frequency": "#e6bcd3", "dilated": "#d9d9d9"}
    for i, name in enumerate(stages):
        colour = next((c for word, c in kinds.items() if name.startswith(word)), "#d9d9d9")
        _box(axis, 0.5 + 0.8 * i, 0.55, 0.68, 0.55, colour, name.replace(" ", "\n", 1).replace("-", "-\n", 1), 7.2)
        _arrow(axis, (0.5 + 0.8 * i - 0.46, 0.55), (0.5 + 0.8 * i - 0.34, 0.55))
    if stages:
        x = 0.5 + 0.8 * len(stages)
        _box(axis, x, 0.55, 0.68, 0.55, "#bbbbbb", "LayerNorm", 7.2)
        _arrow(axis, (x - 0.46, 0.55), (x - 0.34, 0.55))
        words = "inside the conformer, in each stream; a fusion behind every stage, none behind the LayerNorm"
        axis.text(0.15, 0.95, words, fontsize=8)


# --------------------------------------------------------------------------------------------------- streams, fusion
def crop(values: np.ndarray, span: tuple[float, float], top_khz: float) -> tuple[np.ndarray, tuple]:
    """The part of (256, frame) within ``span`` seconds and below ``top_khz``, and its extent for imshow."""
    first, last = (round(t / FRAME_SECONDS) for t in span)
    part = np.asarray(values)[: round(256 * top_khz / 8), first:last]
    return part, (span[0], span[0] + part.shape[1] * FRAME_SECONDS, 0, top_khz)


def streams(
    spectrum: np.ndarray, compressed: np.ndarray, real: np.ndarray, span: tuple[float, float] = (0.6, 1.3)
) -> Figure:
    """One spectrum as the network could see it: magnitude, compressed magnitude, compressed real part.

    Args:
        spectrum, compressed: real, (256, frame), each shown on a linear scale up to its own maximum.
        real: (256, frame), shown on a symmetric scale.
        span: s shown, up to 3 kHz.
    """
    figure, axes = new_figure(1, 3, height=2.9, sharey=True)
    panels = (("$|Y|$", spectrum), (r"$\sqrt{|Y|}$: magnitude stream", compressed), ("real part of C", real))
    for axis, (title, values) in zip(axes[0], panels, strict=True):
        part, extent = crop(values, span, 3.0)
        top = np.abs(part).max()
        signed = {"cmap": "RdBu_r", "vmin": -top, "vmax": top}
        look = signed if part.min() < 0 else {"cmap": COLORMAP, "vmin": 0, "vmax": top}
        image = axis.imshow(part, origin="lower", aspect="auto", extent=extent, interpolation="nearest", **look)
        axis.set(title=title, xlabel="time (s)")
        axis.grid(False)
        figure.colorbar(image, ax=axis, location="bottom", label="linear scale", aspect=30)
    axes[0, 0].set_ylabel("frequency (kHz)")
    return figure


def fusion_field(gates: Sequence[float] = (4.0, 0.0, -1.5)) -> Figure:
    """Where fusion moves the complex stream for some values of A, and what it adds to the magnitude stream.

    Args:
        gates: values of A for the arrows in the complex plane.
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
            label=f"A = {gate:g}: + {push:.2f} (1 + j)",
        )
    plane.axhline(0, color=GREY, linewidth=0.6)
    plane.axvline(0, color=GREY, linewidth=0.6)
    plane.set(xlim=(-2.5, 3), ylim=(-2.5, 3.9), xlabel="real part of C", ylabel="imaginary part of C", aspect="equal")
    plane.set_title("complex stream: all push one way")
    plane.legend(loc="upper left", fontsize=7.5, frameon=True)
    size = np.linspace(0, 6, 200)
    curve.plot(size, 1 / (1 + np.exp(-size)), color=MAGNITUDE, label="added to A: $\\sigma(|C|)$")
    curve.axhline(0.5, color=GREY, linestyle=":", label="floor 0.5")
    curve.set(xlabel="|C|", ylabel="A' - A", ylim=(0, 1.05), title="magnitude stream: at least 0.5")
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
    axis.set_yscale("log")  # one stage may move its stream a hundred times as far as another
    axis.set_ylabel(label)
    axis.legend(title="stream", ncols=2)
    return figure
