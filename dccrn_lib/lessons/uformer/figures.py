"""Figures of the Uformer lesson: the whole network, its streams, their fusion, and the conformer's reach.

The complex stream is blue, the magnitude stream orange and what couples them green wherever they stand side by side.
"""

# numpy's stubs give real and imag only to arrays whose dtype they know.
# pyright: reportAttributeAccessIssue=false

from __future__ import annotations

from collections.abc import Mapping, Sequence
from collections.abc import Set as AbstractSet

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import FancyBboxPatch

from dccrn_lib.lessons.plotting import COLORMAP, new_figure

COMPLEX, MAGNITUDE, FUSED, GREY = "#0072b2", "#e69f00", "#009e73", "#8c8c8c"
STREAMS = {"complex": COMPLEX, "magnitude": MAGNITUDE}
LIGHT = {"complex": "#a9cfe8", "magnitude": "#f6d999"}
FRAME_SECONDS = 0.01  # hop 160 at 16 kHz


# ------------------------------------------------------------------------------------------------ the whole network
ENCODER = {"complex": 2.95, "magnitude": 5.75}  # x of the two streams on the way down, in half inches
DECODER = {"complex": 13.05, "magnitude": 10.25}  # and on the way up
INK = "#333333"


def _box(axis: Axes, place: tuple[float, float], size: tuple[float, float], colour: str, text: str):
    """A rounded box with text around a centre."""
    (x, y), (width, height) = place, size
    style = "round,pad=0,rounding_size=0.12"
    corner = (x - width / 2, y - height / 2)
    axis.add_patch(
        FancyBboxPatch(corner, width, height, boxstyle=style, facecolor=colour, edgecolor=INK, linewidth=0.8)
    )
    axis.text(x, y, text, ha="center", va="center", fontsize=9, zorder=4)


def _arrow(
    axis: Axes, start: tuple[float, float], end: tuple[float, float], colour: str = INK, style: str = "-|>", **look
):
    options = {"arrowstyle": style, "color": colour, "linewidth": 1.3, "shrinkA": 0, "shrinkB": 0, "mutation_scale": 9}
    axis.annotate("", xy=end, xytext=start, arrowprops=options | look, zorder=2)


def architecture(channels: Sequence[int], bins: int = 256, stages: Sequence[str] = ()) -> Figure:
    """The whole Uformer as a block diagram: two streams down the encoder, through the conformer, up the decoder.

    Each row is one layer of both streams with the fusion between them; a skip joins two rows of equal height, as in
    the drawing of the student (:func:`dccrn_lib.lessons.dccrn.figures.student`).

    Args:
        channels: magnitude channels at the input and after each encoder layer.
        bins: frequencies at the input.
        stages: names of the conformer's stages.
    """
    layers = len(channels) - 1
    figure, axes = new_figure(1, 1, height=8.0)
    axis = axes[0, 0]
    axis.axis("off")
    top = layers - 0.5  # y of the first encoder layer; a layer is one unit high
    axis.set(xlim=(0, 16), ylim=(-3.3, top + 2.6))
    for i in range(layers):
        _layer(axis, top - i, ENCODER, f"encoder.{i}", (channels[i + 1], bins >> (i + 1)), label_x=0.85, up=False)
    for i in range(layers):
        _layer(
            axis, 0.5 + i, DECODER, f"decoder.{i}", (channels[layers - 1 - i], bins >> (layers - 1 - i)), 15.15, up=True
        )
        _arrow(axis, (6.85, 0.5 + i), (9.15, 0.5 + i), "#d55e00", linestyle="--")
        axis.text(8.0, 0.56 + i, "both skips", ha="center", va="bottom", fontsize=9, color="#d55e00")
    _ends(axis, top, bins)
    fusions = f"a fusion behind each of the {len(stages)} stages, none behind LayerNorm"
    _conformer(axis, stages, f"conformer: all frames of {bins >> layers} bins; {fusions}")
    axis.text(
        8.0,
        -3.0,
        "blue: complex stream, yellow: magnitude stream; in a box: channels × bins, for all $T$ frames",
        ha="center",
        va="center",
        fontsize=9,
        color=INK,
    )
    return figure


def _layer(
    axis: Axes, y: float, columns: Mapping[str, float], name: str, shape: tuple[int, int], label_x: float, up: bool
) -> None:
    """One layer of both streams, the fusion between them, and the arrows above."""
    chan, freq = shape
    for stream, x in columns.items():
        text = f"2·{chan} × {freq}" if stream == "complex" else f"{chan} × {freq}"
        _box(axis, (x, y), (2.1, 0.56), LIGHT[stream], text)
        above = (y + 0.28, y + 0.72) if up else (y + 0.72, y + 0.28)
        _arrow(axis, (x, above[0]), (x, above[1]), STREAMS[stream])
    left, right = sorted(columns.values())
    middle = (left + right) / 2
    _arrow(axis, (left + 1.06, y), (right - 1.06, y), FUSED, "<|-|>")
    axis.plot(middle, y, "o", color=FUSED, markersize=11, markeredgecolor="white", zorder=3)
    axis.text(middle, y - 0.012, "+", ha="center", va="center", color="white", fontsize=10, zorder=4)
    axis.text(label_x, y, name, ha="center", va="center", fontsize=9)


def _ends(axis: Axes, top: float, bins: int) -> None:
    """The two inputs above the encoder, and the two masks above the decoder."""
    entries = {
        "complex": r"$\sqrt{|Y|}\,e^{j\,\arg Y}$, 2 × " + f"{bins}",
        "magnitude": r"$\sqrt{|Y|}$, 1 × " + f"{bins}",
    }
    for stream, x in ENCODER.items():
        _box(axis, (x, top + 1), (2.62, 0.56), "#eeeeee", entries[stream])
        _arrow(axis, (4.35, top + 1.72), (x, top + 1.28))
    _box(axis, (4.35, top + 2), (4.9, 0.56), "#eeeeee", f"noisy spectrum $Y$: {bins + 1} bins")
    for stream, text in (("complex", r"mask $C$: $\tanh|C|$"), ("magnitude", r"mask $A$: $\sigma(A)$")):
        x = DECODER[stream]
        _box(axis, (x, top + 1), (2.62, 0.56), "#eeeeee", text)
        _arrow(axis, (x, top + 1.28), (11.65 + 0.3 * (x - 11.65), top + 1.72), STREAMS[stream])
    _box(axis, (11.65, top + 2), (4.9, 0.56), "#d9f0e7", r"$\hat S$: mean of both, squared, times $|Y|$")
    _arrow(axis, (6.85, top + 2), (9.15, top + 2))
    axis.text(7.9, top + 2.06, "$Y$", ha="center", va="bottom", fontsize=10)


def _conformer(axis: Axes, stages: Sequence[str], title: str) -> None:
    """The conformer below both halves, its stages in a row; the dilated blocks stand together in one box."""
    names = [
        name.replace(" ", "\n", 1).replace("-", "-\n").replace("\n1", " 1").replace("\n2", " 2") for name in stages
    ]
    names = [name for name in names if not name.startswith("dilated")]
    dilated = [name for name in stages if name.startswith("dilated")]
    if dilated:
        names.insert(-1, f"dilated 0\nto {len(dilated) - 1}")
    names = [*names, "LayerNorm"]
    style = "round,pad=0,rounding_size=0.15"
    axis.add_patch(FancyBboxPatch((1.6, -2.55), 12.8, 2.1, boxstyle=style, facecolor="#f2f2f2", edgecolor=INK))
    axis.text(8.0, -0.78, title, ha="center", va="center", fontsize=9)
    kinds = {"feed": "#a6d8f0", "time": "#f2b28c", "frequency": "#e6bcd3", "dilated": "#ffffff"}
    step = 12.4 / len(names)
    for i, name in enumerate(names):
        x = 1.8 + step * (i + 0.5)
        colour = next((c for word, c in kinds.items() if name.startswith(word)), "#d9d9d9")
        _box(axis, (x, -1.72), (step - 0.34, 0.9), colour, name)
        if i:
            _arrow(axis, (x - step / 2 - 0.17, -1.72), (x - step / 2 + 0.17, -1.72))
    for columns, ends in ((ENCODER, (0.22, -0.45)), (DECODER, (-0.45, 0.22))):
        for stream, x in columns.items():
            _arrow(axis, (x, ends[0]), (x, ends[1]), STREAMS[stream])


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
    plane.set(xlim=(-2.8, 3.4), ylim=(-2.5, 4.6), xlabel="real part of C", ylabel="imaginary part of C", aspect="equal")
    plane.set_title("complex stream: all push one way")
    plane.legend(loc="upper left", fontsize=9, frameon=True)
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
def runs(frames: AbstractSet[int]) -> list[tuple[int, int]]:
    """Stretches without a gap of a set of frames: (first, last) of each, in order.

    >>> runs({-1, 0, 1, 4})
    [(-1, 1), (4, 4)]
    """
    ordered = sorted(frames)
    firsts = [frame for frame in ordered if frame - 1 not in frames]
    lasts = [frame for frame in ordered if frame + 1 not in frames]
    return list(zip(firsts, lasts, strict=True))


def dilations(pairs: Sequence[tuple[int, int]], seen: Sequence[AbstractSet[int]]) -> Figure:
    """Taps of every dilated block along frames, and below them each frame that all blocks up to one can see.

    Args:
        pairs: (dilation of the signal branch, dilation of the gate) of each block.
        seen: the set of frames, counted from the present one, that the stack up to and including each block sees.
    """
    figure, axes = new_figure(2, 1, height=2.6)
    taps, total = axes[:, 0]
    blocks = np.arange(len(pairs))
    for k, (signal, gate) in enumerate(pairs):
        for dilation, look, colour, shift in ((signal, "o-", COMPLEX, 0.15), (gate, "s--", "#d55e00", -0.15)):
            at = np.array([-dilation, 0, dilation])
            taps.plot(at, [k + shift] * 3, look, color=colour, markersize=4, linewidth=1)
    taps.plot([], [], "o-", color=COMPLEX, label="signal, $2^k$")
    taps.plot([], [], "s--", color="#d55e00", label="gate, $2^{7-k}$")
    taps.set(ylabel="block k", title="three taps in time each (logarithmic axis)", yticks=blocks)
    taps.set_xscale("symlog", base=2, linthresh=1)
    ticks = [-128, -16, -4, 0, 4, 16, 128]
    taps.set_xticks(ticks, [str(t) for t in ticks])
    taps.set_ylim(len(pairs) - 0.3, -1.7)
    taps.legend(loc="upper center", fontsize=9, ncols=2)
    far = max(seen[-1])
    for k, frames in enumerate(seen):
        # one thick line a block, broken at the frames that are not seen
        ends = np.array([(first - 0.5, last + 0.5, np.nan) for first, last in runs(frames)]).ravel()
        (line,) = total.plot(ends, np.full(len(ends), float(k)), color=FUSED, linewidth=9, solid_capstyle="butt")
        line.get_path().should_simplify = False  # a gap of one frame stays a gap
        words = f"±{max(frames)} ({max(frames) * FRAME_SECONDS:.2f} s): {len(frames)} of {2 * max(frames) + 1}"
        total.text(1.05 * far, k, words, va="center", fontsize=9)
    total.set(
        xlabel="frames from the present one",
        ylabel="up to block k",
        title="frames that are seen",
        xlim=(-1.03 * far, 1.85 * far),
        yticks=blocks,
    )
    total.set_ylim(len(pairs) - 0.4, -0.6)
    total.set_xticks([-far, -far // 2, 0, far // 2, far])
    total.grid(False)
    return figure


def stage_dots(updates: Mapping[str, Mapping[str, float]], label: str = "|stage(x) - x| / |x|") -> Figure:
    """A dot for each stage and stream: {"complex" | "magnitude": {stage: value}}.

    The axis is logarithmic, as one stage may move its stream a hundred times as far as another, and there a bar has no
    foot to stand on.
    """
    figure, axes = new_figure(1, 1, height=3.2)
    axis = axes[0, 0]
    names = list(next(iter(updates.values())))
    for marker, (stream, values) in zip("os", updates.items(), strict=True):
        axis.plot(
            list(values.values()), marker, color=STREAMS[stream], label=stream, markersize=6, markeredgecolor="black"
        )
    axis.set_xticks(range(len(names)), names, rotation=40, ha="right")
    axis.set(yscale="log", ylabel=label)
    axis.legend(title="stream", ncols=2)
    return figure
