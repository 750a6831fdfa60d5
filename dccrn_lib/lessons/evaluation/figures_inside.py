"""Figures of notebook 06 that look inside STOI and PESQ: their stages, envelopes, loudness, disturbance, agreement."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import FancyBboxPatch, Rectangle
from matplotlib.ticker import NullFormatter, StrMethodFormatter

from dccrn_lib.lessons.plotting import COLORMAP, COLOURS, LABELS, new_figure

_DIFFERENCE = "RdBu_r"  # red: added, blue: missing
_MARKERS = "oDsv^<>PX*"

_STOI = (
    ("10 kHz,\npauses cut out", "silence counts\nfor nothing"),
    ("15 third-octave\nbands", "fine structure\nis ignored"),
    ("pieces of\n384 ms", "slow changes:\nsyllables"),
    ("scale, then clip:\nerror up to 15 dB", "gain is ignored;\none bang is not all"),
    ("correlation\nwith clean", "the shape of the\nenvelope counts"),
    ("mean over\nbands, pieces", "one number,\nat most 1"),
)
_PESQ = (
    ("level:\nboth to 79 dB", "deaf to gain"),
    ("time: shift $\\hat s$\nonto $s$", "deaf to delay"),
    ("power in\nBark bands", "no phase, no polarity;\nthe ear's resolution"),
    ("loudness,\n$p^{0.23}$", "quiet sounds\ncount too"),
    ("difference,\nmasked part off", "what is masked\nis not heard"),
    ("$D$: all of it\n$D_A$: added only", "added noise is worse\nthan lost speech"),
    ("sums over band\nand time", "the worst moments\ncount most"),
)


def stoi_stages() -> Figure:
    """The stages of STOI as a chain of boxes, below each what it does to the answer."""
    return _stages(_STOI, "STOI")


def pesq_stages() -> Figure:
    """The stages of PESQ as a chain of boxes, below each what it does to the answer."""
    return _stages(_PESQ, "PESQ")


def _stages(stages: Sequence[tuple[str, str]], result: str) -> Figure:
    r"""Clean $s$ and estimate $\hat s$ on the left, one box a stage in two rows, the result at the end of the second."""
    per_row = -(-len(stages) // 2)
    figure, axes = new_figure(1, 1, height=3.5)
    axis, step, width, below = axes[0, 0], 2.45, 2.0, -3.0
    axis.set(xlim=(-0.85, per_row * step + 0.75), ylim=(below - 1.75, 0.75))
    axis.axis("off")
    look = {"arrowstyle": "->", "color": "#222222", "linewidth": 1.2}
    for k, (name, effect) in enumerate(stages):
        x, y = k % per_row * step, below * (k // per_row)
        shape = FancyBboxPatch(
            (x, y - 0.55), width, 1.1, boxstyle="round,pad=0.05", facecolor="#cfe3f1", edgecolor="#222222"
        )
        axis.add_patch(shape)
        axis.text(x + width / 2, y, name, ha="center", va="center", fontsize=9)
        axis.text(x + width / 2, y - 0.75, effect, ha="center", va="top", fontsize=9, color="#8a3b00")
        if k == per_row - 1:  # on to the second row, on a way between the two
            way = [x + width + 0.06, x + step - 0.1, x + step - 0.1, -0.4, -0.4], [y, y, -1.85, -1.85, below]
            axis.plot(*way, color="#222222", linewidth=1.2)
            axis.annotate("", xy=(-0.04, below), xytext=(-0.41, below), arrowprops=look)
        else:
            axis.annotate("", xy=(x + step - 0.06, y), xytext=(x + width + 0.06, y), arrowprops=look)
    for y, name in ((0.35, "$s$"), (-0.35, r"$\hat s$")):
        axis.annotate(name, xy=(-0.04, y), xytext=(-0.75, y), va="center", fontsize=11, arrowprops=look)
    axis.text((len(stages) - per_row) * step, below, result, ha="left", va="center", fontsize=11, weight="bold")
    return figure


def envelopes(bands: Mapping[str, np.ndarray], hz: Sequence[float], step: float, piece: tuple[int, int, int]) -> Figure:
    """Envelopes in dB over time and band, one picture a signal; a white frame marks one piece.

    Args:
        bands: system -> (band, frame), linear.
        hz: centre of each band in Hz.
        step: seconds between frames.
        piece: (band, first frame, frames) of the piece that is looked at next.
    """
    figure, axes = new_figure(1, len(bands), height=2.7, sharex=True, sharey=True)
    top = max(float(np.asarray(v).max()) for v in bands.values())
    image: Any = None
    for axis, (name, values) in zip(axes[0], bands.items(), strict=True):
        shown = 20 * np.log10(np.maximum(np.asarray(values) / top, 1e-6))
        image = _map(axis, shown, step, COLORMAP, (-60, 0))
        axis.set(title=LABELS.get(name, name), xlabel="time (s)")
        corner = (piece[1] * step, piece[0] - 0.5)
        axis.add_patch(Rectangle(corner, piece[2] * step, 1, fill=False, edgecolor="white", linewidth=1.4))
    _band_ticks(axes[0, 0], hz)
    figure.colorbar(image, ax=axes, label="dB", shrink=0.9)
    return figure


def one_piece(
    raw: Mapping[str, np.ndarray], made_alike: Mapping[str, np.ndarray], agreement: Mapping[str, float]
) -> Figure:
    """One piece of one band: envelopes as they are (left), scaled and clipped (right) with their correlation.

    Args:
        raw, made_alike: system -> (frame,); "clean" among them.
        agreement: system -> correlation with clean.
    """
    figure, axes = new_figure(1, 2, height=3.2)
    for axis, curves in zip(axes[0], (raw, made_alike), strict=True):
        for name, values in curves.items():
            label = LABELS.get(name, name)
            if curves is made_alike and name in agreement:
                label += f", correlation {agreement[name]:.2f}"
            axis.plot(np.asarray(values), color=COLOURS[name], label=label)
        axis.set(xlabel="frame of the piece (12.8 ms each)", ylabel="envelope")
        axis.set_ylim(bottom=0)
        axis.legend(fontsize=8, loc="upper center", bbox_to_anchor=(0.5, -0.2))
    axes[0, 0].set_title("as they are")
    axes[0, 1].set_title("to one energy, then clipped")
    return figure


def agreement(maps: Mapping[str, np.ndarray], hz: Sequence[float], step: float) -> Figure:
    """STOI before its mean: correlation over band and piece (pictures), and its mean over time in each band (lines).

    Args:
        maps: system -> (band, piece).
        hz: centre of each band in Hz.
        step: seconds between the beginnings of pieces.
    """
    figure, axes = new_figure(1, len(maps) + 1, height=2.8, sharey=True)
    image: Any = None
    for axis, (name, values) in zip(axes[0], maps.items(), strict=False):
        image = _map(axis, np.asarray(values), step, COLORMAP, (0, 1))
        axis.set(title=LABELS.get(name, name), xlabel="start of the piece (s)")
        axes[0, -1].plot(
            np.asarray(values).mean(axis=1),
            range(len(hz)),
            "o-",
            markersize=3,
            color=COLOURS[name],
            label=LABELS.get(name, name),
        )
    axes[0, -1].set(xlabel="mean correlation", title="by band")
    axes[0, -1].legend(fontsize=7)
    _band_ticks(axes[0, 0], hz)
    figure.colorbar(image, ax=axes[0, :-1], label="correlation", shrink=0.9)
    return figure


def disturbances(clean: np.ndarray, systems: Mapping[str, tuple], khz: Sequence[float], step: float) -> Figure:
    """Loudness (top), signed disturbance D (middle) and asymmetric disturbance (bottom) over time and Bark band.

    The first column holds clean speech, and the two disturbances added up over the bands.

    Args:
        clean: loudness of clean speech, (band, frame).
        systems: system -> (loudness, D with its sign, asymmetric disturbance), (band, frame) each.
        khz: centre of each band.
        step: seconds between frames.
    """
    figure, axes = new_figure(3, 1 + len(systems), height=1.9, sharex=True)
    limits = [
        float(max(np.max(clean), *(np.max(v[0]) for v in systems.values()))),
        float(np.percentile([np.abs(v[1]) for v in systems.values()], 99)),
        float(np.percentile([v[2] for v in systems.values()], 99)),
    ]
    ranges = ((0, limits[0]), (-limits[1], limits[1]), (0, limits[2]))
    images = [_map(axes[0, 0], clean, step, COLORMAP, ranges[0])]
    axes[0, 0].set_title(LABELS["clean"])
    for column, (name, parts) in enumerate(systems.items(), start=1):
        for row, (values, colours) in enumerate(zip(parts, (COLORMAP, _DIFFERENCE, COLORMAP), strict=True)):
            image = _map(axes[row, column], values, step, colours, ranges[row])
            axes[row, column].set_yticks([])
            images += [image] if row and column == 1 else []
            if row:
                seconds = np.arange(values.shape[1]) * step
                axes[row, 0].plot(seconds, np.abs(values).sum(axis=0), color=COLOURS[name], label=LABELS[name], lw=1)
        axes[0, column].set_title(LABELS.get(name, name))
    for image, row, label in zip(images, range(3), ("loudness", "$D$", "$D_A$"), strict=True):
        figure.colorbar(image, ax=axes[row, -1], label=label)
    for row, label in ((1, "$|D|$, sum over bands"), (2, "$D_A$, sum over bands")):
        axes[row, 0].set_ylabel(label, fontsize=8)
    axes[1, 0].legend(fontsize=6.5, loc="lower left", bbox_to_anchor=(-0.05, 0.98), ncols=2, columnspacing=0.8)
    ticks = [int(np.argmin(np.abs(np.asarray(khz) - k))) for k in (0.25, 0.5, 1, 2, 4, 7)]
    for row, column in ((0, 0), (1, 1), (2, 1)):  # the first picture of each row
        axes[row, column].set_yticks(ticks, ["0.25", "0.5", "1", "2", "4", "7"], fontsize=8)
        axes[row, column].set_ylabel("frequency (kHz)", fontsize=8)
    for axis in axes[-1]:
        axis.set_xlabel("time (s)")
    return figure


def against_pesq(points: Sequence[tuple[str, float, float, float]]) -> Figure:
    """PESQ against our symmetric disturbance alone (left) and against both together (right), a marker for each damage.

    Args:
        points: (damage, D, weighted sum of D and D_A, PESQ) of each pair of signals.
    """
    figure, axes = new_figure(1, 2, height=3.3, sharey=True)
    for k, damage in enumerate(dict.fromkeys(p[0] for p in points)):
        chosen = np.array([p[1:] for p in points if p[0] == damage])
        colour = COLOURS.get(damage) or f"C{k}"
        for axis, x in zip(axes[0], (chosen[:, 0], chosen[:, 1]), strict=True):
            axis.semilogx(
                x,
                chosen[:, 2],
                _MARKERS[k % len(_MARKERS)],
                color=colour,
                markersize=5,
                label=LABELS.get(damage, damage),
            )
    for axis, ticks in zip(axes[0], ((5, 10, 20, 40), (0.5, 1, 2, 5, 10, 20, 50, 100)), strict=True):
        axis.set_xticks(ticks)
        axis.xaxis.set_major_formatter(StrMethodFormatter("{x:g}"))
        axis.xaxis.set_minor_formatter(NullFormatter())
    axes[0, 0].set(xlabel="$D$ alone", ylabel="WB-PESQ")
    axes[0, 1].set(xlabel=r"$0.1\,D + 0.0309\,D_A$")
    figure.legend(*axes[0, 0].get_legend_handles_labels(), loc="outside lower center", ncols=4, fontsize=8)
    return figure


def _map(axis: Axes, values: np.ndarray, step: float, colours: str, limits: tuple[float, float]) -> Any:
    """(band, frame) as a picture with seconds across."""
    axis.grid(False)
    extent = (0, values.shape[1] * step, -0.5, len(values) - 0.5)
    return axis.imshow(
        np.asarray(values),
        origin="lower",
        aspect="auto",
        cmap=colours,
        vmin=limits[0],
        vmax=limits[1],
        extent=extent,
        interpolation="nearest",
    )


def _band_ticks(axis: Axes, hz: Sequence[float]) -> None:
    chosen = range(0, len(hz), 3)
    axis.set_yticks(list(chosen), [f"{hz[k]:.0f}" for k in chosen])
    axis.set_ylabel("centre of the band (Hz)")
