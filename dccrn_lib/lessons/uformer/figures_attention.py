"""Figures of the Uformer lesson: attention maps over time and frequency, and the masks at the output."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from dccrn_lib.lessons.plotting import COLORMAP, draw_spectrogram, new_figure
from dccrn_lib.lessons.uformer.figures import COMPLEX, FRAME_SECONDS, GREY, crop


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
        ratio,
        aspect="auto",
        cmap=COLORMAP,
        vmin=0,
        vmax=float(np.quantile(ratio[:, 3:], 0.99)),  # the first frames hold the start of the file
        extent=(0, seconds, seconds, 0),
        interpolation="nearest",
    )
    axis.grid(False)
    axis.set(ylabel="frame that asks (s)", title=title)
    figure.colorbar(image, ax=axis, label="weight x frames\n(1 = equal)", pad=0.01)
    _level_axis(below, np.asarray(level))
    return figure


def attention_row(weights: np.ndarray, frame: int, level: np.ndarray, spectrum: np.ndarray, title: str = "") -> Figure:
    """Where one frame looks: its row of the map over the noisy spectrogram.

    Args:
        weights: (frame, frame).
        frame: index of the asking frame.
        level: level of each frame in dB.
        spectrum: complex (257, frame), drawn in bands of 250 Hz.
        title: of the figure.
    """
    weights = np.asarray(weights)
    row = weights[frame] * weights.shape[1]
    figure, axes = new_figure(2, 1, height=2.0, sharex=True)
    above, below = axes[:, 0]
    power = np.abs(np.asarray(spectrum)[1:]) ** 2
    coarse = np.sqrt(power.reshape(power.shape[0] // 8, 8, -1).mean(axis=1))  # 250 Hz bands
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
        seconds,
        0,
        1,
        where=quiet,
        transform=below.get_xaxis_transform(),
        color=GREY,
        alpha=0.2,
        linewidth=0,
        label="pause: 30 dB below the loudest frame",
    )
    below.legend(loc="upper right", fontsize=9, frameon=True)
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
        image = axis.imshow(
            values,
            aspect="auto",
            cmap=COLORMAP,
            vmin=0,
            vmax=max(2.0, float(np.quantile(ratio, 0.995))),
            extent=(0, seconds, seconds, 0),
            interpolation="nearest",
        )
        axis.set_title(f"{'+' if sign > 0 else '−'} {triple}", color=COMPLEX if sign > 0 else "#d55e00")
        axis.grid(False)
    for axis, name in zip(axes[:, 0], ("real", "imaginary"), strict=True):
        axis.set_ylabel(f"{name} result\nasking (s)")
    for axis in axes[-1]:
        axis.set_xlabel("looked at (s)")
    figure.colorbar(image, ax=axes, label="weight x frames (1 = equal)", pad=0.01)
    return figure


def frequency_attention(maps: Mapping[str, np.ndarray]) -> Figure:
    """Attention over the 4 bins of the bottleneck, mean over the frames, one square a head on one scale.

    Args:
        maps: title -> (frame, bin, bin), rows sum to 1.
    """
    figure, axes = new_figure(1, len(maps), height=2.9, sharey=True)
    for axis, (title, weights) in zip(axes[0], maps.items(), strict=True):
        mean = np.asarray(weights).mean(axis=0)
        bins = len(mean)
        names = [f"{i * 8 / bins:g}-{(i + 1) * 8 / bins:g}" for i in range(bins)]
        image = axis.imshow(mean, cmap=COLORMAP, vmin=0, vmax=1)
        for i in range(bins):
            for j in range(bins):
                colour = "white" if mean[i, j] < 0.6 else "black"
                axis.text(j, i, f"{mean[i, j]:.2f}", ha="center", va="center", fontsize=9, color=colour)
        axis.set_xticks(range(bins), names)
        axis.set_yticks(range(bins), names)
        axis.set(xlabel="band looked at (kHz)", title=title)
        axis.grid(False)
    axes[0, 0].set_ylabel("band that asks (kHz)")
    figure.colorbar(image, ax=axes, label="weight (rows sum to 1)", pad=0.02)
    return figure


def masks(
    complex_mask: np.ndarray,
    magnitude_mask: np.ndarray,
    gain: np.ndarray,
    phase: np.ndarray,
    span: tuple[float, float] = (0.6, 1.3),
) -> Figure:
    """The parts of the output mask on one sentence.

    Args:
        complex_mask: tanh|C|, (256, frame), [0, 1].
        magnitude_mask: sigmoid(A), same.
        gain: their mean squared, |S| / |Y|, same.
        phase: arg C in radians, same; shown where the gain is above -12 dB.
        span: s shown, up to 3 kHz.
    """
    figure, axes = new_figure(2, 2, height=2.4, sharex=True, sharey=True)
    heard = np.where(np.asarray(gain) > 0.25, np.degrees(phase), np.nan)  # NaN: below -12 dB, left blank
    panels = [
        ("complex mask, tanh |C|", complex_mask, COLORMAP, (0, 1), "mask"),
        ("magnitude mask, sigmoid(A)", magnitude_mask, COLORMAP, (0, 1), "mask"),
        (r"gain $|\hat S|$ / |Y|", 20 * np.log10(np.maximum(gain, 1e-4)), COLORMAP, (-40, 0), "dB"),
        ("phase turned, where it passes", heard, "RdBu_r", (-20, 20), "degrees"),
    ]
    for axis, (title, values, colours, limits, unit) in zip(axes.flat, panels, strict=True):
        part, extent = crop(values, span, 3.0)
        image = axis.imshow(
            part,
            origin="lower",
            aspect="auto",
            cmap=colours,
            vmin=limits[0],
            vmax=limits[1],
            extent=extent,
            interpolation="nearest",
        )
        axis.set_title(title)
        axis.grid(False)
        figure.colorbar(image, ax=axis, label=unit, pad=0.02)
    for axis in axes[-1]:
        axis.set_xlabel("time (s)")
    for axis in axes[:, 0]:
        axis.set_ylabel("frequency (kHz)")
    return figure


def exchange(weights: np.ndarray, asks: Sequence[str], offers: Sequence[str]) -> Figure:
    """One small attention as a drawing: lines from the frames that ask to the frames that answer, as wide as the weight.

    Args:
        weights: (frame, frame), rows sum to 1.
        asks: what each frame looks for; beside the frames on the left.
        offers: what each frame is and tells; beside the frames on the right.
    """
    table = np.asarray(weights)
    figure, axes = new_figure(1, 1, height=3.3)
    axis = axes[0, 0]
    axis.axis("off")
    count = len(table)
    axis.set(xlim=(0, 16), ylim=(count - 0.7, -0.9))
    colours = (COMPLEX, "#d55e00", "#009e73", "#cc79a7", "#e69f00", GREY)
    for i, row in enumerate(table):
        colour = colours[i % len(colours)]
        for j, weight in enumerate(row):
            axis.plot([5.4, 10.6], [i, j], color=colour, linewidth=0.5 + 9 * weight, alpha=0.75, solid_capstyle="butt")
            place = 5.4 + 5.2 * 0.22, i + 0.22 * (j - i)
            ground = {"facecolor": "white", "edgecolor": "none", "pad": 0.8}
            axis.text(*place, f"{weight:.2f}", ha="center", va="center", fontsize=9, color=colour, bbox=ground)
    for x, texts, side in ((5.2, asks, "right"), (10.8, offers, "left")):
        for y, text in enumerate(texts):
            axis.text(x, y, text, ha=side, va="center", fontsize=10)
    axis.text(5.2, -0.7, "the frame that asks", ha="right", va="center", fontsize=10, weight="bold")
    axis.text(10.8, -0.7, "the frame that answers", ha="left", va="center", fontsize=10, weight="bold")
    axis.text(8.0, -0.7, "weights $P$", ha="center", va="center", fontsize=10, weight="bold")
    return figure
