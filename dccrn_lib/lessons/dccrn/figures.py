"""Figures of the DCCRN lesson: complex layers, the U-Net, masks in the complex plane, look-ahead and cost.

Real parts are blue and imaginary parts orange wherever the two stand side by side.
"""

# numpy's stubs give real and imag only to arrays whose dtype they know.
# pyright: reportAttributeAccessIssue=false

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import FancyBboxPatch

from dccrn_lib.lessons.plotting import COLOURS, draw_spectrogram, new_figure
from dccrn_lib.runtime.errors import ConfigError

REAL, IMAG, ACCENT, GREY = "#0072b2", "#e69f00", "#d55e00", "#8c8c8c"
BLOCK_COLOURS = {"encoder": "#56b4e9", "bottleneck": "#f0e442", "decoder": "#0072b2"}


def _plane(axis: Axes, limit: float, title: str = "") -> None:
    """Cross hairs, equal scales and the names of the complex plane's axes."""
    axis.axhline(0, color=GREY, linewidth=0.8)
    axis.axvline(0, color=GREY, linewidth=0.8)
    axis.set(xlim=(-limit, limit), ylim=(-limit, limit), aspect="equal", title=title)
    axis.set(xlabel="real part", ylabel="imaginary part")


def _arrow(axis: Axes, z: complex, colour: str, label: str, **options) -> None:
    style = {"arrowstyle": "-|>", "color": colour, "linewidth": 1.8, "shrinkA": 0, "shrinkB": 0, **options}
    axis.annotate("", xy=(z.real, z.imag), xytext=(0, 0), arrowprops=style)
    length = max(abs(z), 1e-6)
    axis.annotate(
        label,
        xy=(z.real, z.imag),
        xytext=(9 * z.real / length, 9 * z.imag / length),
        textcoords="offset points",
        color=colour,
        ha="center",
        va="center",
    )


def rotation(points: Sequence[complex], factor: complex, matrix: np.ndarray) -> Figure:
    """What a complex weight does to points of the plane, beside what a free real 2 x 2 matrix does.

    Args:
        points: a closed outline.
        factor: the complex weight.
        matrix: real, (2, 2).
    """
    outline = np.append(np.asarray(points), points[0])
    free = matrix @ np.stack([outline.real, outline.imag])  # (re/im, point)
    figure, axes = new_figure(1, 2, height=3.6)
    limit = 1.15 * max(np.abs(outline).max(), np.abs(factor * outline).max(), np.abs(free).max())
    moved = (factor * outline, free[0] + 1j * free[1])
    titles = ("one complex weight: turn and scale", "four free real weights: any linear map")
    for axis, image, title in zip(axes[0], moved, titles, strict=True):
        axis.fill(outline.real, outline.imag, color=GREY, alpha=0.25)
        axis.plot(outline.real, outline.imag, "o-", color=GREY, markersize=4, label="input")
        axis.fill(image.real, image.imag, color=REAL, alpha=0.15)
        axis.plot(image.real, image.imag, "o-", color=REAL, markersize=4, label="output")
        _plane(axis, limit, title)
        axis.legend(loc="lower right")
    return figure


def block_weight(weight: np.ndarray) -> Figure:
    """The block weight of a complex 1 x 1 layer as an image with its four blocks named: (out, in)."""
    weight = np.asarray(weight)
    figure, axes = new_figure(height=3.4)
    axis = axes[0, 0]
    (rows, columns), limit = weight.shape, np.abs(weight).max()
    image = axis.imshow(weight, cmap="RdBu_r", vmin=-limit, vmax=limit)
    axis.axhline(rows / 2 - 0.5, color="black", linewidth=2)
    axis.axvline(columns / 2 - 0.5, color="black", linewidth=2)
    for (i, j), value in np.ndenumerate(weight):
        ink = "white" if abs(value) > 0.6 * limit else "black"
        axis.text(j, i, f"{value:+.3g}" if value else "0", ha="center", va="center", fontsize=10, color=ink)
    for size, ticks in ((columns // 2, axis.set_xticks), (rows // 2, axis.set_yticks)):
        ticks(range(2 * size), [f"{part} {i}" for part in ("re", "im") for i in range(size)])
    axis.set(xlabel="input channel", ylabel="output channel", title="block weight  [[Wr, -Wi], [Wi, Wr]]")
    axis.grid(False)
    figure.colorbar(image, ax=axis, label="weight")
    return figure


def stamps(x: Sequence[float], kernel: Sequence[float], stride: int, padding: int, output_padding: int) -> Figure:
    """A transposed convolution along freq: each input value stamps the kernel; overlaps add; the edges are cut."""
    values, shape = np.asarray(x, dtype=float), np.asarray(kernel, dtype=float)
    full = (len(x) - 1) * stride + len(kernel) + output_padding
    parts = np.zeros((len(x), full))
    for i, value in enumerate(values):
        parts[i, i * stride : i * stride + len(kernel)] = value * shape
    figure, axes = new_figure(height=3.2)
    axis = axes[0, 0]
    bottom = np.zeros(full)
    shades = ("#0072b2", "#56b4e9", "#009e73", "#e69f00", "#cc79a7", "#f0e442")
    for i, part in enumerate(parts):
        axis.bar(np.arange(full) - padding, part, bottom=bottom, color=shades[i % 6], label=f"input bin {i}")
        bottom += part
    kept = full - 2 * padding
    axis.axvspan(-padding - 0.5, -0.5, color=GREY, alpha=0.3)
    cut = axis.axvspan(kept - 0.5, kept + padding - 0.5, color=GREY, alpha=0.3, label="cut by padding")
    axis.set_xticks(np.arange(full) - padding)
    axis.set(xlabel="output bin", ylabel="value", title=f"{len(x)} input bins -> {kept} output bins")
    axis.set_ylim(0, 1.08 * bottom.max())
    handles = [h for h in axis.get_legend_handles_labels()[0] if h is not cut]
    axis.legend(handles=[*handles, cut], loc="center left", bbox_to_anchor=(1.0, 0.5))
    return figure


def whitening(clouds: Mapping[str, np.ndarray]) -> Figure:
    """Scatter of complex values with the ellipse of two standard deviations: title -> complex (value,)."""
    figure, axes = new_figure(1, len(clouds), height=3.1, sharex=True, sharey=True)
    circle = 2 * np.exp(2j * np.pi * np.arange(101) / 100)
    limit = max(np.percentile(np.abs(z), 99.5) for z in map(np.asarray, clouds.values())) * 1.1
    for axis, (title, values) in zip(axes[0], clouds.items(), strict=True):
        z = np.asarray(values)
        mean, cov = z.mean(), np.cov(z.real, z.imag)
        axis.plot(z.real[:1500], z.imag[:1500], ".", color=REAL, markersize=2, alpha=0.4)
        size, axis_of = np.linalg.eigh(cov)
        ellipse = axis_of @ (np.sqrt(size)[:, None] * np.stack([circle.real, circle.imag]))
        axis.plot(mean.real + ellipse[0], mean.imag + ellipse[1], color=ACCENT)
        _plane(axis, limit, title)
    for axis in axes[0, 1:]:
        axis.set_ylabel("")
    return figure


def equivariance(degrees: Sequence[float], errors: Mapping[str, Sequence[float]]) -> Figure:
    """How far layers are from commuting with a turn of the phase: layer -> relative error at each angle."""
    figure, axes = new_figure(height=2.8)
    styles = ((REAL, "o-"), ("#56b4e9", "s-"), ("#009e73", "^-"), (IMAG, "v-"), (ACCENT, "D-"), ("#cc79a7", "P-"))
    if len(errors) > len(styles):
        raise ConfigError(f"equivariance() draws at most {len(styles)} layers, got {len(errors)}")
    for (name, values), (colour, style) in zip(errors.items(), styles, strict=False):
        wide = {"linewidth": 5, "alpha": 0.5} if colour == REAL else {}  # stays visible below the next one
        axes[0, 0].plot(degrees, values, style, color=colour, label=name, markersize=4, **wide)
    axes[0, 0].set(xlabel="angle (degrees)", ylabel="relative error", xticks=list(degrees))
    axes[0, 0].legend(loc="center left", bbox_to_anchor=(1.0, 0.5))
    return figure


def student(channels: Sequence[int], rnn_units: int, bins: int = 256) -> Figure:
    """The student as a block diagram: wave, spectrum, the U with its skips, mask, wave; each box with chan x freq.

    Args:
        channels: of the encoder layers, real and imaginary counted together.
        rnn_units: of the LSTM, both parts together.
        bins: frequency bins of the U-Net's input.
    """
    figure, axes = new_figure(height=6.6)
    axis = axes[0, 0]
    axis.axis("off")
    left, middle, right, n = 2.0, 5.0, 8.0, len(channels)
    axis.set(xlim=(0, 10), ylim=(-0.75, n + 3.0))

    def box(x: float, y: float, text: str, colour: str, width: float = 2.9) -> None:
        shape = FancyBboxPatch((x - width / 2, y - 0.25), width, 0.5, boxstyle="round,pad=0.02,rounding_size=0.1")
        shape.set(facecolor=colour, edgecolor="#333333", linewidth=0.8)
        axis.add_patch(shape)
        axis.text(x, y, text, ha="center", va="center", fontsize=9)

    def arrow(start: tuple[float, float], end: tuple[float, float], text: str = "", skip: bool = False) -> None:
        style = {"arrowstyle": "-|>", "color": ACCENT if skip else "#333333", "linestyle": "--" if skip else "-"}
        axis.annotate("", xy=end, xytext=start, arrowprops={"linewidth": 1.3, "shrinkA": 0, "shrinkB": 0, **style})
        if text:
            place = ((start[0] + end[0]) / 2, (start[1] + end[1]) / 2 + 0.06)
            axis.text(*place, text, ha="center", va="bottom", fontsize=9, color=style["color"])

    sizes = [2, *channels]
    top = n + 0.6
    box(left, top + 2, "noisy wave $y$", "#eeeeee")
    box(left, top + 1, f"STFT: $Y$, {bins + 1} bins", "#eeeeee")
    box(left, top, f"without DC: 2 × {bins}", "#eeeeee")
    box(right, top, f"mask $M$: 2 × {bins}, 0 at DC", "#eeeeee")
    box(right, top + 1, r"inverse STFT of $\hat S$", "#eeeeee")
    box(right, top + 2, r"enhanced wave $\hat s$", "#eeeeee")
    for i in range(n):  # encoder i and decoder n - 1 - i stand on one level
        y, freq = n - 0.4 - i, bins // 2 ** (i + 1)
        shape = f"{sizes[i + 1]} × {freq}"
        box(left, y, f"encoder.{i}:  {shape}", BLOCK_COLOURS["encoder"])
        box(right, y, f"decoder.{n - 1 - i}:  {sizes[i]} × {2 * freq}", "#9ecbee")
        arrow((left + 1.5, y), (right - 1.5, y), f"skip {shape}", skip=True)
        arrow((left, y + 0.73), (left, y + 0.29))
        arrow((right, y + 0.29), (right, y + 0.73))
    low = -0.4
    box(middle, low, f"LSTM, {rnn_units // 2} + {rnn_units // 2} units:  {shape}", BLOCK_COLOURS["bottleneck"], 3.6)
    bend = {"arrowstyle": "-|>", "color": "#333333", "linewidth": 1.3, "shrinkA": 0, "shrinkB": 0}
    ends = (((left, 0.33), (middle - 1.84, low), "90,angleB=0"), ((middle + 1.84, low), (right, 0.31), "0,angleB=90"))
    for start, end, angles in ends:
        style = {**bend, "connectionstyle": f"angle,angleA={angles}"}
        axis.annotate("", xy=end, xytext=start, arrowprops=style)
    for y in (top, top + 1):
        arrow((left, y + 0.73), (left, y + 0.29))
    arrow((right, top + 1.29), (right, top + 1.73))
    arrow((left + 1.5, top + 1), (middle - 0.22, top + 1), "$Y$")
    arrow((middle + 0.22, top + 1), (right - 1.5, top + 1), r"$\hat S$")
    arrow((right - 1.5, top), (middle + 0.1, top + 0.8), "")
    axis.text(middle + 0.72, top + 0.62, "$M$", fontsize=9)
    axis.plot(middle, top + 1, "o", markersize=17, markerfacecolor="white", markeredgecolor="#333333")
    axis.text(middle, top + 1, "×", ha="center", va="center", fontsize=13)
    axis.text(left - 1.9, n / 2, "bins halve, channels grow", rotation=90, va="center", ha="center", fontsize=9)
    axis.text(right + 1.9, n / 2, "bins double, channels shrink", rotation=90, va="center", ha="center", fontsize=9)
    return figure


def heard(spectra: Mapping[str, np.ndarray], hop: int = 100) -> Figure:
    """Spectrograms side by side on one dB scale, tall enough for harmonics: title -> complex (freq, frame)."""
    figure, axes = new_figure(1, len(spectra), height=3.4, sharey=True)
    reference = max(float(np.abs(s).max()) for s in spectra.values())
    for axis, (title, spectrum) in zip(axes[0], spectra.items(), strict=True):
        image = draw_spectrogram(axis, spectrum, hop, title=title, reference=reference)
        axis.label_outer()
    figure.colorbar(image, ax=axes, label="level (dB)", pad=0.01)
    return figure


def training(curves: Mapping[str, Sequence[float]]) -> Figure:
    """Loss over the optimiser's steps: network -> losses."""
    figure, axes = new_figure(height=2.6)
    styles = ((COLOURS["student"], "o-", 5), ("#222222", "x", 6))
    for (name, values), (colour, style, size) in zip(curves.items(), styles, strict=False):
        axes[0, 0].plot(range(len(values)), values, style, color=colour, label=name, markersize=size)
    axes[0, 0].set(xlabel="step", ylabel="loss (dB)")
    axes[0, 0].legend()
    return figure


def mask_reach(outputs: Mapping[str, np.ndarray], bin_value: complex, target: complex) -> Figure:
    """Where each kind of mask can take one noisy bin: title -> complex outputs for a grid of masks |M| <= 1.5."""
    figure, axes = new_figure(1, len(outputs), height=3.2, sharex=True, sharey=True)
    for axis, (title, values) in zip(axes[0], outputs.items(), strict=True):
        z = np.asarray(values)
        axis.plot(z.real, z.imag, ".", color="#56b4e9", markersize=3, zorder=1)
        circle = abs(bin_value) * np.exp(2j * np.pi * np.arange(101) / 100)
        axis.plot(circle.real, circle.imag, ":", color=GREY)
        _arrow(axis, bin_value, "#222222", "Y")
        axis.plot(target.real, target.imag, "*", color=ACCENT, markersize=12)
        ground = {"facecolor": "white", "edgecolor": "none", "pad": 0.5, "alpha": 0.8}
        axis.text(target.real + 0.2, target.imag, "S", color=ACCENT, va="center", bbox=ground)
        _plane(axis, 1.75, title)
    for axis in axes[0, 1:]:
        axis.set_ylabel("")
    return figure


def constant_masks(degrees: Sequence[float], si_snr: Sequence[float], total: Sequence[float]) -> Figure:
    """Loss of one phase for all bins: SI-SNR alone, and with the level term, over the phase in degrees."""
    figure, axes = new_figure(height=2.8)
    axis = axes[0, 0]
    axis.plot(degrees, si_snr, color=REAL, label="SI-SNR loss")
    axis.plot(degrees, total, "--", color=ACCENT, label="SI-SNR loss + level term")
    axis.set(xlabel="phase of the mask (degrees)", ylabel="loss (dB)", xticks=range(-180, 181, 45), ylim=(-8, 40))
    axis.legend(loc="upper center")
    return figure


def gains(runs: Mapping[str, Sequence[tuple[float, float]]]) -> Figure:
    """Gain of the output before and after training, one line per seed: recipe -> [(before, after), ...]."""
    figure, axes = new_figure(height=0.9 + 0.8 * len(runs))
    axis = axes[0, 0]
    for row, pairs in enumerate(runs.values()):
        for i, (before, after) in enumerate(pairs):
            y = row + 0.5 * (i / max(len(pairs) - 1, 1) - 0.5)
            colour = ACCENT if after < 0 else REAL
            axis.plot([before, after], [y, y], color=colour, linewidth=1)
            axis.plot(before, y, "o", color=colour, markersize=4, markerfacecolor="white")
            axis.plot(after, y, "o", color=colour, markersize=5)
    axis.axvline(0, color=GREY, linewidth=1)
    axis.axvline(1, color=GREY, linewidth=1, linestyle=":")
    axis.set_yticks(range(len(runs)), list(runs))
    axis.set(xlabel="gain of the speech in the output (open: before, filled: after training)", xlim=(-1.15, 1.15))
    axis.set_ylim(len(runs) - 0.5, -0.5)
    return figure


def dependency(reached: Mapping[str, np.ndarray], frame: int) -> Figure:
    """Which frames of each layer a NaN in one input frame reaches: layer -> bool (frame,)."""
    table = np.stack([np.asarray(row) for row in reached.values()])
    figure, axes = new_figure(height=0.24 * len(table) + 0.9)
    axis = axes[0, 0]
    axis.imshow(
        table,
        cmap="Blues",
        vmin=0,
        vmax=1.4,
        aspect="auto",
        interpolation="nearest",
        extent=(-frame - 0.5, table.shape[1] - frame - 0.5, len(table) - 0.5, -0.5),
    )
    axis.set_xticks(np.arange(-frame, table.shape[1] - frame, 2))
    axis.set_xticks(np.arange(-frame, table.shape[1] - frame) - 0.5, minor=True)
    axis.set_yticks(range(len(table)), list(reached))
    axis.set_yticks(np.arange(len(table)) - 0.5, minor=True)
    axis.grid(False)
    axis.grid(which="minor", color="white", linewidth=1)
    axis.axvline(0, color=ACCENT, linewidth=1.2)
    axis.tick_params(which="minor", length=0)
    axis.set(xlabel="frame, counted from the one that was changed", title="blue: depends on the changed frame")
    return figure


def cost(rows: Mapping[str, Mapping[str, tuple[int, float]]]) -> Figure:
    """Parameters and MACs by block: model -> block -> (parameters, MACs per second of audio)."""
    figure, axes = new_figure(1, 2, height=2.6, sharey=True)
    names = list(rows)
    for column, (axis, scale, label) in enumerate(
        zip(axes[0], (1e6, 1e9), ("parameters (million)", "GMAC per second of audio"), strict=True)
    ):
        left = np.zeros(len(names))
        for block, colour in BLOCK_COLOURS.items():
            values = np.array([rows[name][block][column] for name in names]) / scale
            axis.barh(names, values, left=left, color=colour, label=block, edgecolor="black", linewidth=0.4)
            left += values
        for y, total in enumerate(left):
            axis.text(total, y, f" {total:.2f}", va="center")
        axis.set(xlabel=label, xlim=(0, left.max() * 1.18))
    axes[0, 0].invert_yaxis()
    axes[0, 1].legend(loc="lower right")
    return figure


def explored(noisy: np.ndarray, mask: np.ndarray, result: np.ndarray, hop: int = 100) -> Figure:
    """Noisy spectrum, gain of the mask in dB, and what came out: complex (freq, frame) each."""
    figure, axes = new_figure(1, 3, height=3.0, sharey=True)
    reference = float(np.abs(noisy).max())
    angle = np.degrees(np.angle(np.asarray(mask).flat[-1]))
    draw_spectrogram(axes[0, 0], noisy, hop, title="noisy, $|Y|$", reference=reference)
    gain = 20 * np.log10(np.maximum(np.abs(result) / np.maximum(np.abs(noisy), 1e-9), 1e-3))
    image = axes[0, 1].imshow(
        gain,
        origin="lower",
        aspect="auto",
        cmap="RdBu_r",
        vmin=-40,
        vmax=40,
        extent=(0, gain.shape[-1] * hop / 16000, 0, 8),
        interpolation="nearest",
    )
    axes[0, 1].set(title=f"gain $|\\hat S|/|Y|$, phase {angle:.0f}°", xlabel="time (s)")
    axes[0, 1].grid(False)
    last = draw_spectrogram(axes[0, 2], result, hop, title="enhanced, $|\\hat S|$", reference=reference)
    figure.colorbar(image, ax=axes[0, 1], label="gain (dB)", location="bottom", shrink=0.9)
    for axis in (axes[0, 0], axes[0, 2]):
        figure.colorbar(last, ax=axis, label="level (dB)", location="bottom", shrink=0.9)
    for axis in axes[0, 1:]:
        axis.set_ylabel("")
    return figure


def part_sizes(sizes: Mapping[str, np.ndarray]) -> Figure:
    """How large an exact mask must be: fraction of bins whose largest mask part exceeds a value, kind -> sizes."""
    figure, axes = new_figure(height=2.6)
    thresholds = np.logspace(-1, 3, 60)
    looks = zip((REAL, IMAG, COLOURS["teacher"]), ("-", "--", ":"), strict=True)
    for (name, values), (colour, line) in zip(sizes.items(), looks, strict=False):
        percent = [100 * float((np.asarray(values) > t).mean()) for t in thresholds]
        axes[0, 0].loglog(thresholds, np.maximum(percent, 1e-3), line, color=colour, label=name)
    axes[0, 0].set(xlabel="largest part of the mask needed", ylabel="bins above it (%)", ylim=(1e-2, 130))
    axes[0, 0].legend()
    return figure
