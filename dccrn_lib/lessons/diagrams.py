"""Boxes and arrows: the primitives of the drawn concept figures, on a canvas of 100 units in width."""

from __future__ import annotations

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import FancyArrowPatch, FancyBboxPatch

from dccrn_lib.lessons.plotting import new_figure


def canvas(height: float, top: float, bottom: float = 0.0) -> tuple[Figure, Axes]:
    """An empty figure of ``height`` inches whose axes go from 0 to 100 and from ``bottom`` to ``top``."""
    figure, axes = new_figure(1, 1, height=height)
    axes[0, 0].set(xlim=(0, 100), ylim=(bottom, top))
    axes[0, 0].axis("off")
    return figure, axes[0, 0]


def box(axis: Axes, x: float, y: float, width: float, height: float, colour: str, text: str) -> None:
    """A rounded box around a centre, tinted in its colour, with text in its middle."""
    patch = FancyBboxPatch(
        (x - width / 2, y - height / 2),
        width,
        height,
        boxstyle="round,pad=0,rounding_size=0.8",
        linewidth=1.4,
        edgecolor=colour,
        facecolor=(*_rgb(colour), 0.18),
    )
    axis.add_patch(patch)
    axis.text(x, y, text, ha="center", va="center", fontsize=8)


def _rgb(colour: str) -> tuple[float, ...]:
    return tuple(int(colour[i : i + 2], 16) / 255 for i in (1, 3, 5))


def arrow(axis: Axes, start: tuple, stop: tuple, colour: str, both: bool = False) -> None:
    """An arrow from start to stop, with a head at either end if ``both``."""
    style = "<|-|>" if both else "-|>"
    axis.add_patch(FancyArrowPatch(start, stop, arrowstyle=style, mutation_scale=10, color=colour, linewidth=1.4))


def label(axis: Axes, x: float, y: float, text: str, colour: str, **style) -> None:
    """Text on a white ground, so that lines behind it do not disturb."""
    ground = {"facecolor": "white", "edgecolor": "none", "pad": 2}
    axis.text(x, y, text, ha="center", va="center", fontsize=9, color=colour, bbox=ground, **style)
