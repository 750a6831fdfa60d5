"""Figures of the lesson on the complex STFT: frames, leakage, phase, the geometry of masks, ceilings.

Arrays are numpy or torch on the CPU. Frequencies are in Hz unless an argument says bin; hops are in samples.
"""

# numpy's stubs give real and imag only to arrays whose dtype they know.
# pyright: reportAttributeAccessIssue=false

from __future__ import annotations

from itertools import cycle
from typing import Any

import numpy as np
from matplotlib.figure import Figure

from dccrn_lib.lessons.diagrams import arrow, box, canvas
from dccrn_lib.lessons.plotting import COLORMAP, COLOURS, DB_LIMITS, draw_spectrogram, new_figure, to_db

#: One colour per thing compared in this lesson; systems keep theirs.
LINES = {
    "noisy": COLOURS["noisy"],
    "binary": "#b3b3b3",
    "magnitude ratio": "#56b4e9",
    "phase-sensitive": "#d55e00",
    "clean phase": "#f0a3c2",
    "bounded complex": "#7f3c8d",
    "complex": COLOURS["clean"],
}
_CYCLE = ("#0072b2", "#d55e00", "#7f3c8d", "#e69f00", "#56b4e9", "#009e73")


def round_trip() -> Figure:
    """The way of a recording through the lesson: cut, fade, transform, multiply by a mask, and all the way back."""
    figure, axis = canvas(3.6, 40)
    grey, blue, red = COLOURS["noisy"], COLOURS["student_at_kl"], "#d55e00"
    there = (
        (10, "recording $y$", "(sample,)", grey),
        (30, "frames", "400 samples, every 100", blue),
        (51, "windowed", "fade in, fade out", blue),
        (74, "DFT", "257 numbers a frame", blue),
    )
    back = (
        (10, r"estimate $\hat s$", "(sample,)", grey),
        (30, "overlap-add", "sum the frames, divide", blue),
        (51, "windowed again", "cut to 400 samples", blue),
        (74, "inverse DFT", "of each column", blue),
    )
    for y, row, forward in ((31, there, True), (7, back, False)):
        for (x, title, about, colour), (following, *_) in zip(row, (*row[1:], (91,)), strict=True):
            box(axis, x, y, 17.5, 9, colour, "")
            axis.text(x, y + 1.6, title, ha="center", va="center", fontsize=9, weight="bold")
            axis.text(x, y - 2, about, ha="center", va="center", fontsize=7.5, color="#444444")
            if following != 91:
                left, right = (x + 9, y), (following - 9, y)
                arrow(axis, left if forward else right, right if forward else left, grey)
    box(axis, 89.5, 19, 19, 9, red, "")
    axis.text(89.5, 20.6, r"$\hat S = M\,Y$", ha="center", va="center", fontsize=10, weight="bold")
    axis.text(89.5, 17, "a mask, point by point", ha="center", va="center", fontsize=7.5, color="#444444")
    arrow(axis, (83.1, 31), (89.5, 24), grey)
    arrow(axis, (89.5, 14), (83.1, 7), grey)
    for y, text in ((38.5, "analysis"), (-0.3, "synthesis")):
        axis.text(41, y, text, ha="center", va="center", fontsize=9, color=blue, style="italic")
    axis.text(41, 19, "without a mask the way back gives exactly the recording", ha="center", va="center", fontsize=9)
    return figure


def sentence(x, start: int, length: int = 1600, sample_rate: int = 16000) -> Figure:
    """A recording, and ``length`` samples of it from ``start`` on, enlarged: x is (sample,)."""
    x = np.asarray(x)
    figure, axes = new_figure(2, 1, height=1.6)
    whole, part = axes[:, 0]
    seconds = np.arange(len(x)) / sample_rate
    low, high = _envelope(x)  # 64,000 points on 7 inches would be one dark band, and half a megabyte
    whole.fill_between(np.linspace(0, len(x) / sample_rate, len(low)), low, high, color=COLOURS["clean"], linewidth=0.2)
    whole.axvspan(start / sample_rate, (start + length) / sample_rate, color="#e69f00", alpha=0.5, linewidth=0)
    part.plot(seconds[start : start + length], x[start : start + length], color=COLOURS["clean"], linewidth=0.9)
    part.axvspan(seconds[start], seconds[start] + 0.025, color="#56b4e9", alpha=0.25, linewidth=0)
    whole.set(ylabel="amplitude", title="the sentence")
    part.set(ylabel="amplitude", xlabel="time (s)", title="the orange stretch, 25 ms of it blue")
    return figure


def _envelope(x: np.ndarray, columns: int = 600) -> tuple[np.ndarray, np.ndarray]:
    """Lowest and highest sample in each of ``columns`` equal pieces of (sample,); short signals keep their samples."""
    pieces = np.array_split(x, min(columns, len(x)))
    return np.array([p.min() for p in pieces]), np.array([p.max() for p in pieces])


def frames(x, window, hop: int, count: int = 7, sample_rate: int = 16000) -> Figure:
    """The first samples of a signal, and below them the first frames, each drawn where it lies.

    Args:
        x: signal, (sample,).
        window: (window_length,).
        hop: samples between frames; the padding on the left is window_length - hop.
        count: frames to draw.
    """
    x, window = np.asarray(x), np.asarray(window)
    left = len(window) - hop
    stop = (count - 1) * hop + len(window) - left
    padded = np.concatenate([np.zeros(left), x[:stop]])
    figure, axes = new_figure(2, 1, height=2.0, sharex=True, gridspec_kw={"height_ratios": [1, 1.7]})
    n = np.arange(-left, stop)
    top, bottom = axes[:, 0]
    top.plot(n[::2], padded[::2], color=COLOURS["clean"], linewidth=0.8)
    for axis in (top, bottom):
        axis.axvspan(-left, 0, color="#dddddd", alpha=0.6, linewidth=0)
    top.set(ylabel="amplitude", title=f"grey: {left} zeros of padding; sample 0 is where the recording starts")
    peak = np.abs(padded).max() or 1.0
    for k in range(count):
        start = k * hop - left
        piece = padded[k * hop : k * hop + len(window)]
        place = np.arange(start, start + len(window))
        colour = _CYCLE[k % len(_CYCLE)]
        shape, coarse = 0.45 * window[::8], place[::8]  # a smooth curve needs no more points
        bottom.fill_between(coarse, -k - shape, -k + shape, color=colour, alpha=0.18, linewidth=0)
        bottom.plot(place[::2], -k + (0.45 * window * piece / peak)[::2], color=colour, linewidth=0.9)
    bottom.set_yticks([-k for k in range(count)], [f"k = {k}" for k in range(count)])
    bottom.set(xlabel=f"sample (100 samples are {1e5 / sample_rate:.2f} ms)", ylabel="frame")
    return figure


def coverage(counts: dict[str, np.ndarray]) -> Figure:
    """How many frames hold each sample, for several padding rules: title -> (sample,)."""
    figure, axes = new_figure(1, len(counts), height=2.4, sharey=True)
    for axis, (name, values), colour in zip(axes[0], counts.items(), _CYCLE, strict=False):
        axis.step(np.arange(len(values)), np.asarray(values), where="post", color=colour)
        axis.set(title=name, xlabel="sample")
    axes[0, 0].set(ylabel="frames that hold it", ylim=(0, None))
    return figure


def tone_spectra(spectra: dict[str, np.ndarray], hertz: float, sample_rate: int = 16000, span: float = 600) -> Figure:
    """One tone seen through several windows: title -> magnitudes (freq,) on a dense grid from 0 to half the rate."""
    figure, axes = new_figure(1, 1, height=2.9)
    axis = axes[0, 0]
    for (name, values), colour, line in zip(spectra.items(), _CYCLE, ("-", "--", ":", "-."), strict=False):
        grid = np.linspace(0, sample_rate / 2, len(values))
        shown = np.abs(grid - hertz) <= span
        axis.plot(grid[shown], to_db(values)[shown], line, label=name, color=colour)
    axis.axvline(hertz, color=COLOURS["clean"], linestyle=":", linewidth=1)
    axis.set(xlim=(max(0, hertz - span), hertz + span), ylim=(-80, 3), xlabel="frequency (Hz)", ylabel="magnitude (dB)")
    axis.legend(loc="upper right")
    return figure


def winding(products: dict[str, np.ndarray]) -> Figure:
    """The sum of the DFT drawn step by step in the complex plane: title -> terms w[n] x[n] e^{-j...}, (sample,)."""
    paths = {name: np.concatenate([[0], np.cumsum(np.asarray(terms))]) for name, terms in products.items()}
    everything = np.concatenate(list(paths.values()))
    middle = (everything.real.max() + everything.real.min()) / 2 + 0.5j * (
        everything.imag.max() + everything.imag.min()
    )
    reach = 0.56 * max(np.ptp(everything.real), 1.6 * np.ptp(everything.imag))
    figure, axes = new_figure(1, len(products), height=2.5)
    for axis, (name, path), colour in zip(axes[0], paths.items(), _CYCLE, strict=False):
        axis.plot(path.real, path.imag, color=colour, linewidth=0.9)
        axis.annotate("", (path[-1].real, path[-1].imag), (0, 0), arrowprops={"arrowstyle": "->", "linewidth": 2})
        axis.plot(0, 0, "o", color=COLOURS["clean"], markersize=4)
        axis.set(title=name, xlabel="real", aspect="equal")
        axis.set(xlim=middle.real + reach * np.array([-1, 1]), ylim=middle.imag + reach * np.array([-0.62, 0.62]))
    axes[0, 0].set_ylabel("imaginary")
    return figure


def zero_padding(dense, grids: dict[str, np.ndarray], sample_rate: int = 16000, limit: float = 1000) -> Figure:
    """A frame's spectrum as a curve and the points that FFTs of several sizes see of it.

    Args:
        dense: magnitudes on a very fine grid from 0 to half the rate.
        grids: title -> magnitudes (freq,) of rfft, 0 to half the rate.
        limit: upper end of the axis in Hz.
    """
    figure, axes = new_figure(1, 1, height=2.8)
    axis = axes[0, 0]
    reference = float(np.max(dense))
    grid = np.linspace(0, sample_rate / 2, len(dense))
    shown = grid <= limit
    axis.plot(
        grid[shown],
        to_db(np.asarray(dense)[shown], reference),
        color=COLOURS["noisy"],
        linewidth=1.2,
        label="the frame's spectrum",
    )
    for (name, values), marker, colour in zip(grids.items(), "so^", _CYCLE, strict=False):
        hertz = np.linspace(0, sample_rate / 2, len(values))
        inside = hertz <= limit
        axis.plot(
            hertz[inside],
            to_db(np.asarray(values)[inside], reference),
            marker,
            color=colour,
            label=name,
            markersize=5,
            fillstyle="none",
        )
    axis.set(xlim=(0, limit), ylim=(-45, 12), xlabel="frequency (Hz)", ylabel="magnitude (dB)")
    axis.legend(loc="upper right", ncols=3)
    return figure


def overlap_weights(weights: dict[str, np.ndarray], label: str = "sum of squared windows") -> Figure:
    """Overlap-added squared windows, one panel a setting on one scale: title -> (sample,)."""
    figure, axes = new_figure(1, len(weights), height=2.3, sharey=True)
    for axis, (name, values), colour in zip(axes[0], weights.items(), _CYCLE, strict=False):
        axis.plot(np.asarray(values), color=colour)
        axis.set(title=name, xlabel="sample")
    axes[0, 0].set(ylabel=label, ylim=(0, None))
    return figure


def phase(
    spectrum,
    deviation,
    delay,
    hop: int,
    sample_rate: int = 16000,
    seconds=(0.0, 0.5),
    limit: float = 2000.0,
    floor_db: float = -55.0,
) -> Figure:
    """Four views of one piece of a spectrum: magnitude, phase, instantaneous frequency, group delay.

    Args:
        spectrum: complex (freq, frame).
        deviation: instantaneous frequency minus the bin's centre in Hz, (freq, frame).
        delay: centre of energy of the frame minus the window's centre in ms, (freq, frame).
        hop: samples between frames.
        seconds: first and last time shown.
        limit: highest frequency shown in Hz.
        floor_db: bins below it are left grey in the two lower panels.
    """
    spectrum = np.asarray(spectrum)
    first, last = (int(s * sample_rate / hop) for s in seconds)
    top = int(limit / (sample_rate / 2) * (spectrum.shape[0] - 1)) + 1
    cut = (slice(0, top), slice(first, last))
    loud = to_db(spectrum)[cut] > floor_db
    views = (
        (to_db(spectrum)[cut], "magnitude", "dB", COLORMAP, DB_LIMITS),
        (np.angle(spectrum)[cut], "phase as it comes", "rad", "twilight", (-np.pi, np.pi)),
        (
            np.where(loud, np.asarray(deviation)[cut], np.nan),
            "frequency offset from the bin's centre",
            "Hz",
            "RdBu_r",
            (-60, 60),
        ),
        (np.where(loud, np.asarray(delay)[cut], np.nan), "delay from the window's centre", "ms", "PuOr_r", (-8, 8)),
    )
    figure, axes = new_figure(2, 2, height=2.6, sharex=True, sharey=True)
    for axis, (values, title, unit, colormap, limits) in zip(axes.flat, views, strict=True):
        axis.set_facecolor("#cccccc")
        image = axis.imshow(
            values,
            origin="lower",
            aspect="auto",
            cmap=colormap,
            vmin=limits[0],
            vmax=limits[1],
            extent=(first * hop / sample_rate, last * hop / sample_rate, 0, limit / 1000),
            interpolation="nearest",
        )
        axis.set_title(title)
        axis.grid(False)
        figure.colorbar(image, ax=axis, label=unit)
    for axis in axes[1]:
        axis.set_xlabel("time (s)")
    for axis in axes[:, 0]:
        axis.set_ylabel("frequency (kHz)")
    return figure


def mask_geometry(speech: complex, noise: complex) -> Figure:
    """One bin in the complex plane: speech, noise, their sum, and what real masks can reach on the sum's line."""
    mixture = speech + noise
    line = mixture / abs(mixture)
    points = {"magnitude ratio": abs(speech) * line, "phase-sensitive": (speech * np.conj(line)).real * line}
    figure, axes = new_figure(1, 1, height=4.0)
    axis = axes[0, 0]
    for start, stop, colour in ((0, speech, COLOURS["clean"]), (speech, mixture, "#009e73"), (0, mixture, "#8c8c8c")):
        style = {"arrowstyle": "-|>", "color": colour, "linewidth": 2, "shrinkA": 0, "shrinkB": 0}
        axis.annotate("", (stop.real, stop.imag), (start.real, start.imag), arrowprops=style)
    for name, point in points.items():
        axis.plot([point.real, speech.real], [point.imag, speech.imag], "--", color=LINES[name], linewidth=1.4)
        axis.plot(point.real, point.imag, "o", color=LINES[name], markersize=9)
        axis.annotate(
            f"{name} mask, error {abs(point - speech):.2f}",
            (point.real, point.imag),
            xytext=(-12, 4),
            ha="right",
            textcoords="offset points",
            color=LINES[name],
        )
    for text, place, colour, shift, side in (
        ("speech S", speech / 2, COLOURS["clean"], (6, -12), "left"),
        ("noise V", speech + noise / 2, "#009e73", (8, 0), "left"),
        ("mixture Y = S + V", mixture, "#666666", (-10, 0), "right"),
    ):
        axis.annotate(text, (place.real, place.imag), xytext=shift, textcoords="offset points", color=colour, ha=side)
    axis.set(xlabel="real", ylabel="imaginary", aspect="equal")
    low, high = min(0.0, speech.imag, noise.imag), max(mixture.imag, speech.imag)
    axis.set(xlim=(-0.75 * abs(mixture), 1.35 * max(abs(speech), mixture.real)), ylim=(low - 0.15, high + 0.15))
    return figure


def masks(values: dict[str, np.ndarray], hop: int, sample_rate: int = 16000) -> Figure:
    """Masks between 0 (black) and 1 (white), side by side: title -> real (freq, frame)."""
    figure, axes = new_figure(1, len(values), height=2.5, sharex=True, sharey=True)
    image: Any = None
    for axis, (name, mask) in zip(axes[0], values.items(), strict=True):
        mask = np.asarray(mask)
        image = axis.imshow(
            mask,
            origin="lower",
            aspect="auto",
            cmap="gray",
            vmin=0,
            vmax=1,
            interpolation="nearest",
            extent=(0, mask.shape[-1] * hop / sample_rate, 0, sample_rate / 2000),
        )
        axis.set(title=name, xlabel="time (s)")
        axis.grid(False)
    axes[0, 0].set_ylabel("frequency (kHz)")
    figure.colorbar(image, ax=axes, label="mask")
    return figure


def curves(
    x, lines: dict[str, np.ndarray], xlabel: str, ylabel: str, log: bool = False, dashed: tuple[str, ...] = ()
) -> Figure:
    """Lines over one axis: title -> (point,); those named in ``dashed`` are theory or reference."""
    figure, axes = new_figure(1, 1, height=3.0)
    axis = axes[0, 0]
    spare = iter(_CYCLE)
    for (name, values), marker in zip(lines.items(), cycle("os^Dv"), strict=False):
        colour = LINES.get(name) or next(spare)
        style = {"linestyle": "--"} if name in dashed else {"marker": marker, "markersize": 4}
        axis.plot(np.asarray(x), np.asarray(values), label=name, color=colour, **style)
    if log:
        axis.set_xscale("log", base=2)
        axis.set_xticks(list(x), [f"{v:g}" for v in x])
        axis.minorticks_off()
    axis.set(xlabel=xlabel, ylabel=ylabel)
    if len(lines) > 1:
        axis.legend(loc="center left", bbox_to_anchor=(1.0, 0.5))
    return figure


def layers(spectra: dict[str, np.ndarray], hop: int, limit: float = 4000.0, seconds=(0.4, 1.4)) -> Figure:
    """Spectrograms of one passage at several window lengths: title -> (complex (freq, frame), hop)."""
    figure, axes = new_figure(1, len(spectra), height=2.6, sharey=True, sharex=True)
    image: Any = None
    for axis, (name, spectrum) in zip(axes[0], spectra.items(), strict=True):
        spectrum = np.asarray(spectrum)
        image = draw_spectrogram(axis, spectrum, hop, title=name)
        axis.set(xlim=seconds, ylim=(0, limit / 1000), ylabel="")
    axes[0, 0].set_ylabel("frequency (kHz)")
    figure.colorbar(image, ax=axes, label="dB")
    return figure
