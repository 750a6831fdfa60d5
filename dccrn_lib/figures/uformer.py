"""Figures of the Uformer lesson: the whole network, fusion, dilations, attention, masks, size and reach.

The complex stream is blue, the magnitude stream orange and what couples them green wherever they stand side by side.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Circle, FancyArrowPatch, FancyBboxPatch

from dccrn_lib.figures import COLORMAP, COLOURS, LABELS, draw_spectrogram, new_figure

COMPLEX, MAGNITUDE, FUSED, GREY = "#0072b2", "#e69f00", "#009e73", "#8c8c8c"
STREAMS = {"complex": COMPLEX, "magnitude": MAGNITUDE}
FRAME_SECONDS = 0.01  # hop 160 at 16 kHz


# ------------------------------------------------------------------------------------------------ the whole network
def _box(
    axis: Axes, x: float, y: float, width: float, height: float, colour: str, text: str = "", size: float = 7
):
    """A rounded box centred at (x, y)."""
    corner = (x - width / 2, y - height / 2)
    style = "round,pad=0,rounding_size=0.08"
    axis.add_patch(
        FancyBboxPatch(corner, width, height, boxstyle=style, facecolor=colour, edgecolor="white", zorder=3)
    )
    if text:
        axis.text(x, y, text, ha="center", va="center", fontsize=size, color="white", zorder=4)


def _line(
    axis: Axes, start: tuple[float, float], end: tuple[float, float], colour: str = GREY, bend: float = 0.0
):
    arrow = FancyArrowPatch(
        start, end, arrowstyle="-|>", mutation_scale=7, color=colour, linewidth=0.9, zorder=2, shrinkA=0, shrinkB=0,
        connectionstyle=f"arc3,rad={bend}",
    )  # fmt: skip
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
            axis.text(x, y - height / 2 - 0.07, f"{parts}×{freq}", ha="center", va="top", fontsize=5.8)
        xs = [0.1, *(c[0] for c in columns[:layers]), middle, *(c[0] for c in columns[layers:]), end + 0.3]
        for a, b in zip(xs[:-1], xs[1:], strict=True):
            _line(axis, (a + 0.31, y), (b - 0.31, y), colour)
        for i in range(layers):  # encoder i -> decoder layers - 1 - i
            a, b = columns[i], columns[2 * layers - 1 - i]
            top = y + 0.11 * np.log2(a[3]) if stream == "complex" else y - 0.11 * np.log2(a[3]) - 0.28
            top_b = y + 0.11 * np.log2(b[3]) if stream == "complex" else y - 0.11 * np.log2(b[3]) - 0.28
            _line(axis, (a[0], top), (b[0], top_b), "#cccccc", bend=-0.13 if stream == "complex" else 0.13)
    _box(
        axis, middle, 0, 1.15, 4.4, "#56b4e9", f"conformer\n\n{len(stages)} stages,\neach with\na fusion", 6.5
    )
    for x, *_ in columns:
        for a, b in ((0.16, 0.75), (-0.16, -0.75)):
            axis.plot([x, x], [a, b], color=FUSED, linewidth=1, zorder=2)
        axis.add_patch(Circle((x, 0), 0.16, facecolor=FUSED, edgecolor="white", zorder=3))
        axis.text(x, -0.01, "+", ha="center", va="center", color="white", fontsize=8, zorder=4)
    axis.text(
        -0.62, rows["complex"], "$|X|^{0.5}e^{j\\arg X}$", ha="center", va="center", color=COMPLEX, fontsize=8
    )
    axis.text(-0.62, rows["magnitude"], "$|X|^{0.5}$", ha="center", va="center", color=MAGNITUDE, fontsize=8)
    axis.text(end + 0.75, rows["complex"], "$C$", ha="center", va="center", color=COMPLEX, fontsize=9)
    axis.text(end + 0.75, rows["magnitude"], "$M$", ha="center", va="center", color=MAGNITUDE, fontsize=9)
    axis.text(-0.62, 0, "fusion", ha="center", va="center", color=FUSED, fontsize=8)
    axis.text(
        end + 0.85, 0, "$\\frac{1}{2}(\\tanh|C|+\\sigma(M))$\n$\\arg C$", ha="center", va="center", fontsize=7
    )
    axis.set(xlim=(-1.3, end + 1.7), ylim=(-3.7, 3.7))
    axis.axis("off")
    kinds = {"feed-forward": "#56b4e9", "time": "#d55e00", "frequency": "#cc79a7", "dilated": GREY}
    for i, name in enumerate(stages):
        colour = next((c for word, c in kinds.items() if name.startswith(word)), GREY)
        _box(lower, i, 0, 0.9, 0.8, colour, name.replace(" ", "\n", 1), 5.6)
        _line(lower, (i - 0.55, 0), (i - 0.45, 0))
    if stages:
        _box(lower, len(stages), 0, 0.9, 0.8, "#222222", "LayerNorm", 5.6)
        lower.text(-0.5, 0.62, "inside the conformer; a fusion after every box but the last", fontsize=7.5)
    lower.set(xlim=(-0.7, len(stages) + 0.7), ylim=(-0.55, 0.9))
    lower.axis("off")
    return figure


# --------------------------------------------------------------------------------------------------- streams, fusion
def _crop(values: np.ndarray, span: tuple[float, float], top_khz: float) -> tuple[np.ndarray, tuple]:
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
    panels = (
        ("$|X|$", spectrum),
        ("$|X|^{0.5}$: magnitude stream", compressed),
        ("real part, complex stream", real),
    )
    for axis, (title, values) in zip(axes[0], panels, strict=True):
        part, extent = _crop(values, span, 4.0)
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
            x, y, push, push, angles="xy", scale_units="xy", scale=1, color=colour, width=0.009,
            label=f"M = {gate:g}: + {push:.2f} (1 + j)",
        )  # fmt: skip
    plane.axhline(0, color=GREY, linewidth=0.6)
    plane.axvline(0, color=GREY, linewidth=0.6)
    plane.set(
        xlim=(-2.5, 3),
        ylim=(-2.5, 3.9),
        xlabel="real part of C",
        ylabel="imaginary part of C",
        aspect="equal",
    )
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
    taps.set(
        xlabel="frames from the present one", ylabel="block k", title="three taps in time each", yticks=blocks
    )
    taps.set_xscale("symlog", base=2, linthresh=1)
    ticks = [-128, -16, -4, 0, 4, 16, 128]
    taps.set_xticks(ticks, [str(t) for t in ticks])
    taps.set_ylim(len(pairs) - 0.3, -1.7)
    taps.legend(loc="upper center", fontsize=7.5, ncols=2)
    total.barh(blocks, 2 * np.asarray(reach) + 1, left=-np.asarray(reach) - 0.5, height=0.6, color=FUSED)
    for k, frames in enumerate(reach):
        total.text(
            reach[-1] + 30, k, f"±{frames} frames, {frames * FRAME_SECONDS:.2f} s", va="center", fontsize=7.5
        )
    total.set(
        xlabel="frames from the present one",
        title="seen after block k",
        xlim=(-1.1 * reach[-1], 2.2 * reach[-1]),
    )
    total.set_xticks([-reach[-1], 0, reach[-1]])
    return figure


def stage_bars(updates: Mapping[str, Mapping[str, float]], label: str = "|stage(x) - x| / |x|") -> Figure:
    """Two bars a stage: {"complex" | "magnitude": {stage: value}}."""
    figure, axes = new_figure(1, 1, height=3.2)
    axis = axes[0, 0]
    names = list(next(iter(updates.values())))
    for shift, (stream, values) in zip((-0.2, 0.2), updates.items(), strict=True):
        axis.bar(
            np.arange(len(names)) + shift, list(values.values()), 0.4, color=STREAMS[stream], label=stream
        )
    axis.set_xticks(range(len(names)), names, rotation=40, ha="right")
    axis.set_ylabel(label)
    axis.legend(title="stream")
    return figure


# ---------------------------------------------------------------------------------------------------------- attention
def _cells(weights: np.ndarray, size: int) -> np.ndarray:
    """Means over cells of ``size`` x ``size`` frames, as a multiple of equal attention: (..., frame, frame)."""
    ratio = np.asarray(weights) * np.shape(weights)[-1]
    count = ratio.shape[-1] // size
    if count < 1:
        return ratio
    ratio = ratio[..., : count * size, : count * size]
    return ratio.reshape(*ratio.shape[:-2], count, size, count, size).mean(axis=(-3, -1))


def _level_axis(axis: Axes, level: np.ndarray) -> None:
    seconds = np.arange(len(level)) * FRAME_SECONDS
    axis.fill_between(seconds, level, level.min(), color=GREY, alpha=0.4, linewidth=0)
    axis.set(xlim=(0, seconds[-1] + FRAME_SECONDS), xlabel="time looked at (s)", ylabel="speech\nlevel (dB)")


def time_attention(weights: np.ndarray, level: np.ndarray, title: str = "") -> Figure:
    """An attention map over time above the level of the speech, on one time axis.

    Args:
        weights: (frame, frame), rows sum to 1; shown as a multiple of equal attention, in cells of 3 x 3 frames.
        level: level of each frame in dB.
        title: of the map.
    """
    weights = np.asarray(weights)
    figure, axes = new_figure(2, 1, height=2.6, sharex=True, gridspec_kw={"height_ratios": [3, 1]})
    axis, below = axes[:, 0]
    seconds = weights.shape[1] * FRAME_SECONDS
    ratio = _cells(weights, 3)
    image = axis.imshow(
        ratio, aspect="auto", cmap=COLORMAP, vmin=0, vmax=float(np.quantile(ratio, 0.995)),
        extent=(0, seconds, seconds, 0), interpolation="nearest",
    )  # fmt: skip
    axis.grid(False)
    axis.set(ylabel="frame that asks (s)", title=title)
    figure.colorbar(image, ax=axis, label="weight x frames\n(1 = equal)", pad=0.01)
    _level_axis(below, np.asarray(level))
    return figure


def attention_row(
    weights: np.ndarray, frame: int, level: np.ndarray, spectrum: np.ndarray, title: str = ""
) -> Figure:
    """Where one frame looks: its row of the map over the noisy spectrogram.

    Args:
        weights: (frame, frame).
        frame: index of the asking frame.
        level: level of each frame in dB.
        spectrum: complex (257, frame), drawn in bands of 125 Hz.
        title: of the figure.
    """
    weights = np.asarray(weights)
    row = weights[frame] * weights.shape[1]
    figure, axes = new_figure(2, 1, height=2.0, sharex=True)
    above, below = axes[:, 0]
    power = np.abs(np.asarray(spectrum)[1:]) ** 2
    coarse = np.sqrt(power.reshape(power.shape[0] // 4, 4, -1).mean(axis=1))  # 125 Hz bands
    draw_spectrogram(above, coarse, hop=round(FRAME_SECONDS * 16000), title=title)
    above.set_xlabel("")
    above.axvline((frame + 0.5) * FRAME_SECONDS, color="white", linewidth=1.5, linestyle="--")
    seconds = (np.arange(len(row)) + 0.5) * FRAME_SECONDS
    below.fill_between(seconds, row, color="#d55e00", alpha=0.7, linewidth=0)
    below.axhline(1, color=GREY, linestyle=":", linewidth=1)
    below.axvline((frame + 0.5) * FRAME_SECONDS, color="black", linewidth=1.5, linestyle="--")
    below.set(xlabel="time looked at (s)", ylabel="weight x frames", ylim=(0, None))
    quiet = np.asarray(level) < np.max(level) - 30
    below.fill_between(
        seconds, 0, 1, where=quiet, transform=below.get_xaxis_transform(), color=GREY, alpha=0.2, linewidth=0,
        label="pause: 30 dB below the loudest frame",
    )  # fmt: skip
    below.legend(loc="upper right", fontsize=7.5, frameon=True)
    return figure


def eight_maps(weights: np.ndarray, triples: Sequence[str], signs: Sequence[float]) -> Figure:
    """The eight maps of the complex branch with their signs, real result above, imaginary result below.

    Args:
        weights: (8, frame, frame), shown in cells of 6 x 6 frames on one scale.
        triples: names, e.g. "rri".
        signs: +1 or -1 each.
    """
    weights = np.asarray(weights)
    ratio = _cells(weights, 6)
    figure, axes = new_figure(2, 4, height=2.1, sharex=True, sharey=True)
    seconds = weights.shape[-1] * FRAME_SECONDS
    for axis, values, triple, sign in zip(axes.flat, ratio, triples, signs, strict=True):
        axis.imshow(
            values, aspect="auto", cmap=COLORMAP, vmin=0, vmax=float(np.quantile(ratio, 0.995)),
            extent=(0, seconds, seconds, 0), interpolation="nearest",
        )  # fmt: skip
        axis.set_title(f"{'+' if sign > 0 else '−'} {triple}", color=COMPLEX if sign > 0 else "#d55e00")
        axis.grid(False)
    for axis, name in zip(axes[:, 0], ("real", "imaginary"), strict=True):
        axis.set_ylabel(f"{name} result\nasking (s)")
    for axis in axes[-1]:
        axis.set_xlabel("looked at (s)")
    return figure


def frequency_attention(weights: np.ndarray, level: np.ndarray) -> Figure:
    """Attention over the 4 bins of the bottleneck: its mean map, and the columns' mean over time.

    Args:
        weights: (frame, bin, bin).
        level: level of each frame in dB.
    """
    weights = np.asarray(weights)
    bins = weights.shape[-1]
    figure, axes = new_figure(1, 2, height=2.9, gridspec_kw={"width_ratios": [1, 2]})
    square, lines = axes[0]
    names = [f"{i * 8 / bins:g}-{(i + 1) * 8 / bins:g}" for i in range(bins)]
    mean = weights.mean(axis=0)
    square.imshow(mean, cmap=COLORMAP, vmin=0, vmax=max(0.5, mean.max()))
    for i in range(bins):
        for j in range(bins):
            dark = mean[i, j] < 0.6 * max(0.5, mean.max())
            colour = "white" if dark else "black"
            square.text(j, i, f"{mean[i, j]:.2f}", ha="center", va="center", fontsize=8, color=colour)
    square.set_xticks(range(bins), names, fontsize=7.5)
    square.set_yticks(range(bins), names, fontsize=7.5)
    square.set(xlabel="band looked at (kHz)", ylabel="band that asks (kHz)", title="mean over frames")
    square.grid(False)
    seconds = np.arange(len(weights)) * FRAME_SECONDS
    colours = ("#0072b2", "#56b4e9", "#e69f00", "#d55e00")
    for j, name in enumerate(names):
        lines.plot(
            seconds, weights[:, :, j].mean(axis=1), color=colours[j % 4], linewidth=1, label=f"{name} kHz"
        )
    lines.axhline(1 / bins, color=GREY, linestyle=":", linewidth=1)
    lines.set(xlabel="time (s)", ylabel="weight received", title="attention each band receives")
    lines.set_ylim(0, 1.25 * weights.mean(axis=1).max())
    twin = lines.twinx()
    twin.fill_between(seconds, level, np.min(level), color=GREY, alpha=0.2, linewidth=0)
    twin.set_yticks([])
    twin.grid(False)
    lines.legend(fontsize=7, ncols=4, loc="upper center", frameon=True, columnspacing=0.8, handlelength=1)
    return figure


# -------------------------------------------------------------------------------------------------------------- masks
def gain_plane() -> Figure:
    """Gain of the output magnitude in dB over |C| and M, and along the border where one mask is closed."""
    figure, axes = new_figure(1, 2, height=3.0)
    plane, curve = axes[0]
    size, logit = np.linspace(0, 3, 151), np.linspace(-8, 8, 161)
    gain = 0.5 * (np.tanh(size)[None, :] + 1 / (1 + np.exp(-logit))[:, None])
    level = 40 * np.log10(np.maximum(gain, 1e-3))
    image = plane.imshow(
        level, origin="lower", aspect="auto", cmap=COLORMAP, vmin=-60, vmax=0, extent=(0, 3, -8, 8)
    )
    lines = plane.contour(size, logit, level, levels=[-40, -24, -12, -6, -3], colors="white", linewidths=0.8)
    plane.clabel(lines, fmt="%g dB", fontsize=7)
    plane.set(xlabel="|C|", ylabel="M", title="gain $|Y|/|X|$ = (both masks / 2)$^2$")
    plane.grid(False)
    figure.colorbar(image, ax=plane, label="dB")
    for other, colour in ((0.0, COMPLEX), (0.5, FUSED), (1.0, MAGNITUDE)):
        mask = np.linspace(1e-3, 1, 200)
        curve.plot(mask, 40 * np.log10(0.5 * (mask + other)), color=colour, label=f"other mask = {other:g}")
    curve.axhline(-12.04, color=GREY, linestyle=":")
    curve.set(xlabel="one mask", ylabel="gain (dB)", ylim=(-60, 2), title="one open mask: never below -12 dB")
    curve.legend()
    return figure


def masks(
    complex_mask: np.ndarray, magnitude_mask: np.ndarray, gain: np.ndarray, phase: np.ndarray,
    span: tuple[float, float] = (0.6, 1.4),
) -> Figure:  # fmt: skip
    """The parts of the output mask on one sentence.

    Args:
        complex_mask: tanh|C|, (256, frame), [0, 1].
        magnitude_mask: sigmoid(M), same.
        gain: their mean squared, |Y| / |X|, same.
        phase: arg C in radians, same; shown where the gain is above -12 dB.
        span: s shown, up to 4 kHz.
    """
    figure, axes = new_figure(2, 2, height=2.4, sharex=True, sharey=True)
    heard = np.where(np.asarray(gain) > 0.25, np.degrees(phase), np.nan)  # NaN: below -12 dB, left blank
    panels = [
        ("tanh |C|", complex_mask, COLORMAP, (0, 1), ""),
        ("sigmoid(M)", magnitude_mask, COLORMAP, (0, 1), ""),
        ("gain |Y| / |X|", 20 * np.log10(np.maximum(gain, 1e-4)), COLORMAP, (-40, 0), "dB"),
        ("phase turned where it passes", heard, "RdBu_r", (-60, 60), "degrees"),
    ]
    for axis, (title, values, colours, limits, unit) in zip(axes.flat, panels, strict=True):
        part, extent = _crop(values, span, 4.0)
        image = axis.imshow(
            part, origin="lower", aspect="auto", cmap=colours, vmin=limits[0], vmax=limits[1], extent=extent,
            interpolation="nearest",
        )  # fmt: skip
        axis.set_title(title)
        axis.grid(False)
        figure.colorbar(image, ax=axis, label=unit, pad=0.02)
    for axis in axes[-1]:
        axis.set_xlabel("time (s)")
    for axis in axes[:, 0]:
        axis.set_ylabel("frequency (kHz)")
    return figure


# ------------------------------------------------------------------------------------------------- size, reach, worth
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
    axis.annotate(
        f"{crossing:.0f} s", (crossing, rest / 1e9), xytext=(6, -14), textcoords="offset points", color=GREY
    )
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
