"""Figures of notebook 07: seams, the frames that wait, the delay line of the U-Net, states, and the latency budget."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import FancyBboxPatch, Rectangle

from dccrn_lib.lessons.plotting import COLOURS, new_figure

#: One colour per part of the latency, and per place that holds a state.
PARTS = {"window": "#0072b2", "hop": "#56b4e9", "look-ahead": "#e69f00", "compute": "#8c8c8c"}
PLACES = {
    "STFT": "#0072b2",
    "encoder": "#56b4e9",
    "LSTM": "#009e73",
    "decoder": "#e69f00",
    "skip": "#d55e00",
    "spectrum": "#cc79a7",
    "overlap-add": "#222222",
}
INK = "#222222"
_DARK = {"#0072b2", "#222222", "#d55e00"}  # grounds on which white is easier to read than black


def _ink(ground: str) -> str:
    """Colour of a text on this ground."""
    return "white" if ground in _DARK else INK


def seams(offline, chunked, chunk: int, start: float = 1.0, seconds: float = 0.25, sample_rate: int = 16000) -> Figure:
    """A signal enhanced whole and in separate chunks, and the level of their difference.

    Args:
        offline, chunked: (sample,).
        chunk: samples of a chunk; its borders are drawn.
        start, seconds: piece to show.
        sample_rate: in Hz.
    """
    offline, chunked = np.asarray(offline), np.asarray(chunked)
    first, last = int(start * sample_rate), min(int((start + seconds) * sample_rate), len(offline))
    time = np.arange(first, last) / sample_rate
    figure, axes = new_figure(2, 1, height=1.9, sharex=True)
    top, bottom = axes[:, 0]
    top.plot(time, offline[first:last], color=COLOURS["clean"], linewidth=0.9, label="whole signal")
    top.plot(time, chunked[first:last], color=COLOURS["student"], linewidth=0.9, label="chunk by chunk")
    top.set_title(f"Chunks of {1000 * chunk / sample_rate:.0f} ms, each enhanced on its own", loc="left", fontsize=11)
    top.set_ylabel("amplitude")
    top.legend(loc="lower right", bbox_to_anchor=(1.0, 0.98), ncols=2, fontsize=9)
    block = sample_rate // 400  # 2.5 ms
    error = (chunked - offline)[first:last]
    error = error[: len(error) // block * block].reshape(-1, block)  # (block, sample)
    level = 10 * np.log10(np.mean(error**2, axis=1) + 1e-12)
    bottom.step(time[: level.size * block : block], level, where="post", color=COLOURS["student_at_kl"])
    bottom.set(xlabel="time (s)", ylabel="difference\n(dB full scale)")
    for axis in (top, bottom):
        for border in range(-(-first // chunk) * chunk, last, chunk):
            axis.axvline(border / sample_rate, color="#8c8c8c", linewidth=0.8, linestyle=":")
    return figure


def latency_staircase(window: int = 400, hop: int = 100, lookahead: int = 6, sample_rate: int = 16000) -> Figure:
    """Which frames must be complete before output sample n = 0 can leave: those that cover it, then L more."""
    figure, axes = new_figure(1, 1, height=3.6)
    axis = axes[0, 0]
    covering = window // hop
    overlap = window - hop
    latency = (window - 1) + lookahead * hop
    for k in range(covering + lookahead):
        colour = PARTS["window"] if k < covering else PARTS["look-ahead"]
        start = k * hop - overlap
        axis.add_patch(Rectangle((start, k - 0.35), window, 0.7, facecolor=colour, alpha=0.85, edgecolor="white"))
        name = f"k + {k}" if k else "k"
        axis.text(start + window / 2, k, name, color=_ink(colour), ha="center", va="center", fontsize=8)
    axis.axvline(0, color=COLOURS["clean"], linewidth=1.4)
    axis.axvline(latency, color="#d55e00", linewidth=1.4)
    rows = covering + lookahead
    axis.annotate(
        "",
        (latency, rows + 0.1),
        (0, rows + 0.1),
        arrowprops={"arrowstyle": "<->", "color": "#d55e00"},
        annotation_clip=False,
    )
    label = f"{latency} samples = {1000 * latency / sample_rate:.1f} ms"
    axis.text(latency / 2, rows + 0.35, label, ha="center", va="top", color="#d55e00")
    axis.set(
        xlim=(-overlap - 20, max(latency, window) + 80),
        ylim=(rows + 1.5, -0.8),
        yticks=[],
        xlabel="input sample, counted from output sample n",
        ylabel="frames, older on top",
    )
    axis.plot([], [], color=PARTS["window"], linewidth=6, label=f"{covering} frames that cover n")
    if lookahead:
        axis.plot([], [], color=PARTS["look-ahead"], linewidth=6, label=f"{lookahead} frames of look-ahead")
    axis.legend(loc="upper right", bbox_to_anchor=(0.92, 1.0), fontsize=9)
    axis.spines["left"].set_visible(False)
    return figure


def _box(axis: Axes, x: float, y: float, text: str, colour: str, width: float = 1.9) -> None:
    patch = FancyBboxPatch(
        (x - width / 2, y - 0.32),
        width,
        0.64,
        boxstyle="round,pad=0.02,rounding_size=0.1",
        facecolor=colour,
        edgecolor="none",
        alpha=0.9,
    )
    axis.add_patch(patch)
    axis.text(x, y, text, ha="center", va="center", color=_ink(colour), fontsize=9)


def delay_line(layers: int = 6, lookahead: int = 1) -> Figure:
    """The U-Net at the moment frame t arrives: which frame each layer gives, and how long each skip waits."""
    figure, axes = new_figure(1, 1, height=4.6)
    axis = axes[0, 0]
    left, right_, bottom = 1.0, 9.0, layers + 0.1
    arrow = {"arrowstyle": "->", "color": "#8c8c8c", "shrinkA": 0, "shrinkB": 0}

    def frame(late: int) -> str:
        return f"t - {late}" if late else "t"

    for i in range(layers):
        _box(axis, left, i, f"encoder.{i}:  t", PLACES["encoder"])
        late = (i + 1) * lookahead
        row = layers - 1 - i
        _box(axis, right_, row, f"decoder.{i}:  {frame(late)}", PLACES["decoder"], 2.3)
        waits = i * lookahead
        axis.annotate("", (right_ - 1.18, row), (left + 0.98, row), arrowprops=arrow, zorder=0.5)
        for j in range(waits):  # the queue, newest on the left
            x = 5.0 + (j - (waits - 1) / 2) * 0.62
            axis.add_patch(Rectangle((x - 0.29, row - 0.24), 0.58, 0.48, facecolor=PLACES["skip"], edgecolor="white"))
            axis.text(x, row, f"t-{j + 1}", color="white", ha="center", va="center", fontsize=7)
        note = f"waits {waits}" if waits else "at once"
        axis.text(right_ - 1.25, row - 0.14, note, ha="right", va="bottom", fontsize=8, color="#555555")
        if i:
            axis.annotate("", (left, i - 0.34), (left, i - 0.66), arrowprops=arrow)
            axis.annotate("", (right_, row + 0.34), (right_, row + 0.66), arrowprops=arrow)
    _box(axis, 5.0, bottom + 0.5, "LSTM:  t   (h and c remembered)", PLACES["LSTM"], 3.9)
    for start, end in (((left, layers - 0.66), (3.0, bottom + 0.4)), ((7.0, bottom + 0.4), (right_, layers - 0.62))):
        axis.annotate("", end, start, arrowprops=arrow)
    total = layers * lookahead
    title = f"When spectrum frame t arrives, the mask of frame {frame(total)} is ready"
    axis.set(xlim=(-0.3, 10.5), ylim=(bottom + 1.1, -0.9), xticks=[], yticks=[], title=title)
    axis.grid(False)
    for spine in axis.spines.values():
        spine.set_visible(False)
    return figure


def state_bars(sizes: Mapping[str, Mapping[str, int]]) -> Figure:
    """What streams remember: system -> {place of :data:`PLACES`: float32 numbers}, as stacked bars in kB."""
    figure, axes = new_figure(1, 1, height=0.9 + 0.55 * len(sizes))
    axis = axes[0, 0]
    for row, parts in enumerate(sizes.values()):
        left = 0.0
        for place, count in parts.items():
            width = 4 * count / 1000
            axis.barh(row, width, left=left, color=PLACES[place], height=0.6, label=place if row == 0 else None)
            if width > 14:
                middle, ink = left + width / 2, _ink(PLACES[place])
                axis.text(middle, row, f"{width:.0f}", ha="center", va="center", color=ink, fontsize=8)
            left += width
        axis.text(left + 2, row, f"{left:.0f} kB", va="center", fontsize=9)
    longest = max(4 * sum(parts.values()) / 1000 for parts in sizes.values())
    axis.set(yticks=range(len(sizes)), yticklabels=list(sizes), xlabel="remembered per stream (kB)")
    axis.set_xlim(0, 1.13 * longest)
    axis.set_ylim(len(sizes) - 0.5, -0.5)
    axis.grid(False, axis="y")
    axis.legend(loc="lower center", bbox_to_anchor=(0.4, 1.0), ncols=7, fontsize=8, columnspacing=1.0)
    return figure


def reach_by_alignment(measured: Mapping[str, Mapping[int, int]], window: int = 400, hop: int = 100) -> Figure:
    """Samples that a NaN reaches back, against where in the hop it stands: name -> {position: samples}."""
    figure, axes = new_figure(1, 1, height=3.0)
    axis = axes[0, 0]
    colours = [COLOURS["student_at_kl"], COLOURS["student"], COLOURS["dccrn_e"]]
    for (name, points), colour in zip(measured.items(), colours, strict=False):
        positions, reach = np.array(sorted(points.items())).T
        axis.plot(positions, reach, "o-", color=colour, markersize=4, label=name)
        axis.annotate(
            f"{reach.max()} samples",
            (positions[reach.argmax()], reach.max()),
            (-4, 6),
            textcoords="offset points",
            ha="right",
            fontsize=9,
            color=colour,
        )
    axis.set(
        xlabel="position of the input sample in its hop (samples)", ylabel="samples of future used", xlim=(-2, hop)
    )
    axis.set_ylim(0, 1.25 * max(max(points.values()) for points in measured.values()))
    axis.axhline(window - 1, color="#8c8c8c", linestyle=":", linewidth=1.0)
    axis.legend(loc="center right")
    return figure


def latency_budget(systems: Mapping[str, tuple[int, int, int]], sample_rate: int = 16000) -> Figure:
    """Where the delay of a live call comes from: system -> (window, hop, frames of look-ahead), in samples.

    The algorithmic parts are exact. The last part is the upper limit that real time sets for computing: a hop.
    """
    figure, axes = new_figure(1, 1, height=1.0 + 0.62 * len(systems))
    axis = axes[0, 0]
    for row, (window, hop, lookahead) in enumerate(systems.values()):
        parts = {"window": [window - hop], "hop": [hop - 1], "look-ahead": [hop] * lookahead, "compute": [hop]}
        left = 0.0
        for kind, pieces in parts.items():
            for i, samples in enumerate(pieces):
                width = 1000 * samples / sample_rate
                if kind == "compute":
                    style = {"fill": False, "hatch": "///", "edgecolor": PARTS[kind]}
                else:
                    style = {"color": PARTS[kind], "edgecolor": "white"}
                axis.barh(row, width, left=left, height=0.55, **style)
                inside = str(i + 1) if kind == "look-ahead" else f"{width:.1f}" if width > 8 else ""
                if inside:
                    ink = _ink(PARTS[kind])
                    axis.text(left + width / 2, row, inside, ha="center", va="center", color=ink, fontsize=8)
                left += width
        algorithmic = 1000 * ((window - 1) + lookahead * hop) / sample_rate
        axis.text(left + 0.8, row, f"{algorithmic:.1f} ms + computing", va="center", fontsize=9)
    for kind, label in (
        ("window", "rest of the window"),
        ("hop", "the hop being filled"),
        ("look-ahead", "frames of look-ahead"),
    ):
        axis.barh(0, 0, color=PARTS[kind], label=label)
    axis.barh(0, 0, fill=False, hatch="///", edgecolor="#8c8c8c", label="computing (limit)")
    longest = max(1000 * (w + (n + 1) * h) / sample_rate for w, h, n in systems.values())
    axis.set(yticks=range(len(systems)), yticklabels=list(systems), xlabel="latency (ms)", xlim=(0, 1.32 * longest))
    axis.set_ylim(len(systems) - 0.5, -0.6)
    axis.grid(False, axis="y")
    axis.legend(loc="lower center", bbox_to_anchor=(0.4, 1.0), ncols=4, fontsize=8, columnspacing=1.0)
    return figure


def seam_levels(chunks: Sequence[int], levels: Sequence[float], sample_rate: int = 16000) -> Figure:
    """Distance to the whole-signal result against the length of separately enhanced chunks."""
    figure, axes = new_figure(1, 1, height=2.6)
    axis = axes[0, 0]
    names = [f"{1000 * chunk / sample_rate:g}" for chunk in chunks]
    axis.bar(names, levels, width=0.5, color=COLOURS["student"])
    for x, level in enumerate(levels):
        axis.text(x, level + 0.5, f"{level:.0f}", ha="center", va="bottom", fontsize=9)
    axis.set(xlabel="length of a chunk (ms)", ylabel="SNR to the offline\noutput (dB)", ylim=(0, 1.2 * max(levels)))
    axis.grid(False, axis="x")
    return figure
