"""Figures of lesson 04: attention maps, distributions over frequency, their divergence, and gradients by layer.

A layer with n frequency bins covers 0 to 8 kHz in n equal steps, whatever n is: the axes are in kHz everywhere.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import FancyArrowPatch, Rectangle

from dccrn_lib.lessons.plotting import COLOURS, LABELS, new_figure

MAP_LIMITS = (-30.0, 0.0)  # attention maps, dB relative to the loudest bin of the map
NYQUIST_KHZ = 8.0
#: Colours of things that are not systems, none of them a system's.
EXTRA = ("#56b4e9", "#d55e00", "#785ef0", "#a6a300", "#882255")
#: Lines of the students, so that no line is told apart by its colour alone; the teacher's is drawn through.
DASHES = {"student": "--", "student_at_kl": "-."}


def colour_of(name: str, index: int = 0) -> str:
    """The system's colour, or one of the others in order of appearance."""
    return COLOURS.get(name, EXTRA[index % len(EXTRA)])


def map_db(attention) -> np.ndarray:
    """10 log10 of an attention map (freq, frame) relative to its maximum, floored at -120 dB."""
    attention = np.asarray(attention, dtype=float)
    return 10 * np.log10(np.maximum(attention / max(float(attention.max()), 1e-20), 1e-12))


def thinned(attention, columns: int = 200) -> np.ndarray:
    """A map (freq, frame) with neighbouring frames averaged until at most ``columns`` are left, for drawing.

    >>> thinned(np.array([[1.0, 3.0, 5.0, 7.0, 100.0]]), columns=2)
    array([[2., 6.]])
    """
    attention = np.asarray(attention, dtype=float)
    block = max(1, attention.shape[1] // columns)
    whole = attention.shape[1] // block * block
    return attention[:, :whole].reshape(len(attention), -1, block).mean(-1)


def _edges(bins: int) -> np.ndarray:
    return np.linspace(0, NYQUIST_KHZ, bins + 1)


def attention_maps(maps: dict[str, dict[str, np.ndarray]], hops: dict[str, int], sample_rate: int = 16000) -> Figure:
    """Attention maps Q(f, t): one row a layer, one column a system, each in dB below its own maximum.

    Neighbouring frames are averaged for drawing, see :func:`thinned`.

    Args:
        maps: layer -> system -> (freq, frame).
        hops: system -> samples between frames.
        sample_rate: in Hz.
    """
    columns = list(next(iter(maps.values())))
    height = 1.75 if len(maps) > 1 else 2.4
    figure, axes = new_figure(len(maps), len(columns), height=height, sharex=True, sharey=True)
    image: Any = None
    for row, (layer, by_system) in zip(axes, maps.items(), strict=True):
        for axis, name in zip(row, columns, strict=True):
            m = np.asarray(by_system[name])
            seconds = m.shape[1] * hops[name] / sample_rate
            image = axis.imshow(
                map_db(thinned(m)),
                origin="lower",
                aspect="auto",
                extent=(0, seconds, 0, NYQUIST_KHZ),
                vmin=MAP_LIMITS[0],
                vmax=MAP_LIMITS[1],
                interpolation="nearest",
            )
            axis.grid(False)
            axis.set_title(f"{LABELS.get(name, name)}\n{layer}: {m.shape[0]} x {m.shape[1]}", fontsize=9)
            axis.set_yticks([0, 4, 8])
        row[0].set_ylabel("freq (kHz)")
    for axis in axes[-1]:
        axis.set_xlabel("time (s)")
    figure.colorbar(image, ax=axes, label="Q (dB below maximum)", shrink=0.8)
    return figure


def pooling(m: np.ndarray, q: np.ndarray, hop: int, layer: str = "", sample_rate: int = 16000) -> Figure:
    """A map Q(f, t) and, turned to its side with the same frequency axis, its mean over frames q(f).

    Args:
        m: (freq, frame).
        q: (freq,).
        hop: samples between frames.
        layer: named in the title.
        sample_rate: in Hz.
    """
    figure, axes = new_figure(1, 2, height=2.8, width_ratios=(3, 1), sharey=True)
    left, right = axes[0]
    seconds = m.shape[1] * hop / sample_rate
    image = left.imshow(
        map_db(thinned(m)),
        origin="lower",
        aspect="auto",
        extent=(0, seconds, 0, NYQUIST_KHZ),
        vmin=MAP_LIMITS[0],
        vmax=MAP_LIMITS[1],
        interpolation="nearest",
    )
    left.grid(False)
    left.set(title=f"Q(f, t), {layer}", xlabel="time (s)", ylabel="freq (kHz)")
    right.stairs(q, _edges(len(q)), orientation="horizontal", fill=True, color=COLOURS["teacher"], alpha=0.6)
    right.set(title="q(f): mean over frames", xlabel="q (linear)")
    figure.colorbar(image, ax=axes[0], label="Q (dB below maximum)", shrink=0.9)
    return figure


def distributions(probabilities: dict[str, dict[str, np.ndarray]], columns: int = 3) -> Figure:
    """Distributions over frequency, one panel per layer, one line per system.

    More than 64 bins are drawn as the means of two neighbours, because single teeth would fill the panel.

    Args:
        probabilities: layer -> system -> (freq,), each summing to 1.
        columns: panels in a row.
    """
    rows = -(-len(probabilities) // columns)
    figure, axes = new_figure(rows, columns, height=1.75, sharex=True)
    for axis, (layer, by_system) in zip(axes.flat, probabilities.items(), strict=False):
        for i, (name, p) in enumerate(by_system.items()):
            p = np.asarray(p)
            if paired := len(p) > 64 and len(p) % 2 == 0:
                p = p.reshape(-1, 2).mean(axis=1)
            look = {"color": colour_of(name, i), "linestyle": DASHES.get(name, "-"), "linewidth": 1.4}
            axis.stairs(p, _edges(len(p)), label=LABELS.get(name, name), **look)
        bins = len(next(iter(by_system.values())))
        axis.axhline(1 / bins, color="#999999", linestyle=":", linewidth=1)
        axis.set_title(f"{layer} ({bins} bins{', drawn in pairs' if paired else ''})", fontsize=9)
        axis.set_ylim(bottom=0)
    for axis in axes[-1]:
        axis.set_xlabel("freq (kHz)")
    for row in axes:
        row[0].set_ylabel("P(f)")
    for axis in list(axes.flat)[len(probabilities) :]:
        axis.set_visible(False)
    axes[0, 0].legend(fontsize=8)
    return figure


def divergence(teacher: np.ndarray, student: np.ndarray, layer: str = "") -> Figure:
    """Above: the two distributions. Below: what every bin adds to KL(teacher || student), in nats.

    Args:
        teacher, student: (freq,), each summing to 1.
        layer: named in the title.
    """
    teacher, student = np.asarray(teacher), np.asarray(student)
    figure, axes = new_figure(2, 1, height=1.9, sharex=True)
    edges = _edges(len(teacher))
    for name, p in (("teacher", teacher), ("student", student)):
        axes[0, 0].stairs(p, edges, color=COLOURS[name], linestyle=DASHES.get(name, "-"), label=LABELS[name])
    parts = teacher * np.log(teacher / student)
    centres, width = (edges[:-1] + edges[1:]) / 2, np.diff(edges)
    colours = np.where(parts >= 0, "#d55e00", "#56b4e9")
    axes[1, 0].bar(centres, parts, width, color=colours)
    axes[0, 0].set(ylabel="P(f)", title=f"{layer}: KL = {parts.sum():.3f} nat")
    axes[0, 0].legend()
    axes[1, 0].set(ylabel=r"$P_T \log (P_T / P_S)$ (nat)", xlabel="freq (kHz)")
    return figure


def direction(teacher: np.ndarray, forward: np.ndarray, reverse: np.ndarray) -> Figure:
    """A distribution with two peaks, and the best single peak under either direction of KL; all (freq,)."""
    figure, axes = new_figure(1, 1, height=2.8)
    axis = axes[0, 0]
    edges = np.arange(len(teacher) + 1)
    axis.stairs(teacher, edges, fill=True, color=COLOURS["teacher"], alpha=0.35, label="teacher: two peaks")
    axis.stairs(forward, edges, color=EXTRA[0], linewidth=2, label="least KL(teacher || student)")
    axis.stairs(reverse, edges, color=EXTRA[1], linewidth=2, linestyle="--", label="least KL(student || teacher)")
    axis.set(xlabel="bin", ylabel="P")
    axis.legend()
    return figure


def layer_bars(values: dict[str, Sequence[float]], layers: Sequence[str], label: str, log: bool = False) -> Figure:
    """Grouped bars over the layers; with a logarithmic axis, where a bar has no foot, points on a line.

    Args:
        values: series -> one number a layer; a system's name takes its colour.
        layers: names along the axis; "encoder.3" is shown as "E3".
        label: of the vertical axis, with its unit.
        log: logarithmic vertical axis.
    """
    figure, axes = new_figure(1, 1, height=3.0)
    axis = axes[0, 0]
    width = 0.8 / len(values)
    positions = np.arange(len(layers))
    for i, (name, heights) in enumerate(values.items()):
        if log:
            look = {"marker": "os^D"[i % 4], "color": colour_of(name, i), "markersize": 5, "linewidth": 1.0}
            axis.plot(positions, heights, label=LABELS.get(name, name), **look)
            continue
        axis.bar(
            positions + (i - (len(values) - 1) / 2) * width,
            heights,
            width,
            color=colour_of(name, i),
            label=LABELS.get(name, name),
        )
    axis.set_xticks(positions, [short_name(layer) for layer in layers])
    axis.set(xlabel="layer (E: encoder, D: decoder)", ylabel=label, yscale="log" if log else "linear")
    axis.grid(False, axis="x")
    axis.legend(fontsize=8, ncols=min(len(values), 4), loc="lower center", bbox_to_anchor=(0.5, 1.0))
    return figure


def short_name(layer: str) -> str:
    """A layer's name as axes show it.

    >>> short_name("encoder.3")
    'E3'
    """
    part, _, number = layer.partition(".")
    return f"{part[:1].upper()}{number}"


def frame_centres(student_stft, teacher_stft, frames: int = 9) -> Figure:
    """Where the frames of two hops are centred on the time axis, in ms.

    Args:
        student_stft, teacher_stft: STFTConfig of the two.
        frames: of the student.
    """
    figure, axes = new_figure(1, 1, height=1.9)
    axis = axes[0, 0]
    end = (frames * student_stft.hop_length - student_stft.window_length / 2) / 16
    for height, name, stft in ((1, "student", student_stft), (0, "teacher", teacher_stft)):
        k = np.arange(frames)
        centre = ((k + 1) * stft.hop_length - stft.window_length / 2) / 16  # ms at 16 kHz
        k, centre = k[centre <= end + 1], centre[centre <= end + 1]
        axis.plot(centre, np.full(len(k), height), "o", color=COLOURS[name])
        for i, x in zip(k, centre, strict=True):
            axis.annotate(str(i), (x, height), textcoords="offset points", xytext=(0, 7), ha="center", fontsize=8)
    axis.set_yticks([0, 1], [f"teacher, hop {teacher_stft.hop_length}", f"student, hop {student_stft.hop_length}"])
    axis.set(xlabel="centre of the frame (ms)", ylim=(-0.5, 1.6))
    return figure


def frame_attention(curves: dict[str, tuple[np.ndarray, np.ndarray]], title: str = "") -> Figure:
    """Attention over time r(t): name -> (seconds, values), each divided by its own mean."""
    figure, axes = new_figure(1, 1, height=2.8)
    axis = axes[0, 0]
    for i, (name, (seconds, r)) in enumerate(curves.items()):
        r = np.asarray(r)
        look = {"color": colour_of(name, i), "linestyle": DASHES.get(name, "-"), "linewidth": 1.2}
        axis.plot(seconds, r / r.mean(), label=LABELS.get(name, name), **look)
    axis.set(xlabel="time (s)", ylabel="r(t) / mean", title=title)
    axis.legend(fontsize=8)
    return figure


def descent(curve: Sequence[float], before: Sequence[float], after: Sequence[float], layers: Sequence[str]) -> Figure:
    """AT-KL over the steps (left) and by layer before and after (right), in nats.

    Args:
        curve: AT-KL at every step.
        before, after: one number a layer.
        layers: their names.
    """
    figure, axes = new_figure(1, 2, height=2.8, width_ratios=(1, 1.6))
    left, right = axes[0]
    left.plot(np.arange(len(curve)), curve, color=COLOURS["student_at_kl"], marker="o", markersize=3)
    left.set(xlabel="step", ylabel="AT-KL (nat)", yscale="log")
    positions = np.arange(len(layers))
    right.plot(positions, before, "o-", markersize=5, linewidth=1, color=COLOURS["student"], label="before")
    right.plot(positions, after, "s-", markersize=5, linewidth=1, color=COLOURS["student_at_kl"], label="after")
    right.set_xticks(positions, [short_name(layer) for layer in layers])
    right.set(ylabel="KL (nat)", yscale="log", xlabel="layer")
    right.legend(fontsize=8, ncols=2, loc="lower center", bbox_to_anchor=(0.5, 1.0))
    return figure


def _number(value: float) -> str:
    """A number as one writes it by hand: 3, -1, 0.75."""
    return f"{value:.3g}".replace("-", "\u2212")


def _sheet(
    axis: Axes, values: np.ndarray, left: float, bottom: float, cell: tuple[float, float], colour: str, largest: float
) -> None:
    """A grid of numbers (freq, frame), the lowest frequency at the bottom; a magnitude of ``largest`` is darkest."""
    width, height = cell
    for f, row in enumerate(values):
        for t, value in enumerate(row):
            corner = (left + t * width, bottom + f * height)
            axis.add_patch(Rectangle(corner, width, height, facecolor="white", edgecolor=colour, linewidth=0.8))
            shade = 0.1 + 0.5 * abs(float(value)) / max(largest, 1e-12)
            axis.add_patch(Rectangle(corner, width, height, facecolor=colour, alpha=shade, linewidth=0))
            centre = (corner[0] + width / 2, corner[1] + height / 2)
            axis.text(*centre, _number(float(value)), ha="center", va="center", fontsize=8)


def _arrow(axis: Axes, start: tuple[float, float], end: tuple[float, float], label: str = "") -> None:
    axis.add_patch(FancyArrowPatch(start, end, arrowstyle="-|>", mutation_scale=11, color="#444444", linewidth=1.1))
    if label:
        middle = ((start[0] + end[0]) / 2, (start[1] + end[1]) / 2)
        axis.annotate(label, middle, (0, 4), textcoords="offset points", ha="center", va="bottom", fontsize=8)


def at_kl_stages(feature: np.ndarray, normalisation: str = "sum") -> dict[str, np.ndarray]:
    """What AT-KL makes of one feature (chan, freq, frame): "map", "profile" and "distribution".

    Args:
        feature: (chan, freq, frame).
        normalisation: "sum", or "softmax" of the profile divided by its length.
    """
    attention = np.square(np.asarray(feature, dtype=float)).mean(0)  # (freq, frame)
    profile = attention.mean(1)  # (freq,)
    weights = profile if normalisation == "sum" else np.exp(profile / np.linalg.norm(profile))
    return {"map": attention, "profile": profile, "distribution": weights / weights.sum()}


def at_kl_picture(teacher: np.ndarray, student: np.ndarray, normalisation: str = "sum") -> Figure:
    """AT-KL drawn for two small features: feature, attention map, profile, distribution, and the KL of both.

    Args:
        teacher, student: (chan, freq, frame) with the same freq; a few cells, since every number is written out.
        normalisation: "sum" or "softmax".

    Raises:
        ValueError: the numbers of frequencies differ, or an unknown normalisation.
    """
    features = {"teacher": np.asarray(teacher, dtype=float), "student": np.asarray(student, dtype=float)}
    if features["teacher"].shape[1] != features["student"].shape[1]:
        shapes = " and ".join(str(feature.shape) for feature in features.values())
        raise ValueError(f"both features need the same freq in (chan, freq, frame), got {shapes}")
    steps = {"sum": "divide\nby the sum", "softmax": "softmax\nof $q / |q|$"}
    if normalisation not in steps:
        raise ValueError(f"normalisation is one of {', '.join(steps)}, not {normalisation!r}")
    figure, axes = new_figure(1, 1, height=3.9)
    axis = axes[0, 0]
    axis.set(xlim=(-1.1, 17.6), ylim=(-0.4, 7.9))
    axis.axis("off")
    for x, words in (
        (2.5, "feature A\n(chan, freq, frame)"),
        (7.6, "attention map Q\n(freq, frame)"),
        (10.8, "profile q\n(freq)"),
        (13.9, "distribution P\n(freq)"),
    ):
        axis.text(x, 7.9, words, ha="center", va="top", fontsize=9, linespacing=1.4)
    stages = {name: at_kl_stages(feature, normalisation) for name, feature in features.items()}
    columns = [{"feature": features[name], **stages[name]} for name in features]
    largest = {key: max(float(np.abs(column[key]).max()) for column in columns) for key in columns[0]}
    for name, bottom in (("teacher", 4.2), ("student", 0.5)):
        _one_side(axis, name, features[name], stages[name], bottom, steps[normalisation], largest)
    p_t, p_s = (stages[name]["distribution"] for name in ("teacher", "student"))
    kl = float(sum(t * np.log(t / s) for t, s in zip(p_t, p_s, strict=True) if t > 0))
    axis.text(
        16.6,
        3.4,
        f"KL\n{kl:.3f} nat",
        ha="center",
        va="center",
        fontsize=10,
        bbox={"boxstyle": "round,pad=0.5", "facecolor": "#f3f3f3", "edgecolor": "#444444"},
    )
    _arrow(axis, (14.7, 5.1), (16.3, 4.2))
    _arrow(axis, (14.7, 1.6), (16.3, 2.6))
    return figure


def _one_side(
    axis: Axes,
    name: str,
    feature: np.ndarray,
    stage: dict[str, np.ndarray],
    bottom: float,
    step: str,
    largest: dict[str, float],
) -> None:
    """One network's row of the picture, from its feature to its distribution; ``step`` names the normalisation.

    ``largest`` holds the darkest value of each column, the same for both networks.
    """
    colour = COLOURS[name]
    chan, freq, frame = feature.shape
    width = min(0.6, (4.8 / chan - 0.15) / frame)
    cell, height = (width, 1.8 / freq), 1.8
    middle = bottom + height / 2
    for row, word in ((0, "low $f$"), (freq - 1, "high $f$")):
        axis.text(-0.05, bottom + (row + 0.5) * height / freq, word, ha="right", va="center", fontsize=8)
    for c in range(chan):
        _sheet(axis, feature[c], 0.1 + c * (frame * width + 0.15), bottom, cell, colour, largest["feature"])
    words = f"{LABELS.get(name, name).replace(' alone', '')}: {chan} channels, {frame} frames"
    axis.text(0.1, bottom - 0.15, words, ha="left", va="top", fontsize=9, color=colour)
    _arrow(axis, (5.05, middle), (6.6, middle), "mean of $A^2$\nover chan")
    left = 7.65 - frame * width / 2
    _sheet(axis, stage["map"], left, bottom, cell, colour, largest["map"])
    _arrow(axis, (left + frame * width + 0.1, middle), (10.1, middle), "mean\nover frame")
    _sheet(axis, stage["profile"][:, None], 10.3, bottom, (1.0, cell[1]), colour, largest["profile"])
    _arrow(axis, (11.45, middle), (13.1, middle), step)
    _sheet(axis, stage["distribution"][:, None], 13.3, bottom, (1.2, cell[1]), colour, largest["distribution"])
