"""Figures of the lessons: one look, fixed sizes, fixed dB limits, one colour per system everywhere.

Every function returns a matplotlib Figure and shows nothing by itself; a notebook ends the cell with it. Modules are
named after the notebooks' topics; this one holds what all of them share.
"""

from __future__ import annotations

import io
import re
from collections.abc import Sequence
from typing import Any

import matplotlib
import matplotlib.pyplot as plt
import numpy as np
from IPython import get_ipython
from matplotlib.axes import Axes
from matplotlib.collections import QuadMesh
from matplotlib.figure import Figure
from matplotlib.image import AxesImage
from PIL import Image

from dccrn_lib.lessons.panels import png

#: One colour per system, readable with red-green blindness.
COLOURS = {
    "noisy": "#8c8c8c",
    "student": "#e69f00",
    "student_at_kl": "#0072b2",
    "teacher": "#009e73",
    "clean": "#222222",
    "dccrn_e": "#cc79a7",
}
#: What a system is called in legends and tables.
LABELS = {
    "noisy": "noisy",
    "student": "student alone",
    "student_at_kl": "student with AT-KL",
    "teacher": "teacher",
    "clean": "clean",
    "dccrn_e": "DCCRN-E",
}
COLORMAP = "magma"
DB_LIMITS = (-80.0, 0.0)  # spectrograms, dB relative to the loudest bin of the reference
WIDTH = 8.0  # inches
DPI = 150
PICTURE_BYTES = 150_000  # of one PNG: 200 kB in a notebook, where it stands in base64
DRAWING_BYTES = 200_000  # of one SVG, which stands in a notebook as it is; a denser drawing is smaller as a picture

_PATH = re.compile(r' d="[^"]*"')
_FRACTION = re.compile(r"(\d\.\d\d)\d+")  # a hundredth of a point is finer than any screen


def label_trained(small: bool, method: str = "at_kl") -> None:
    """Name the networks of a run in :data:`LABELS`: "mini" before miniatures, the method where it is not AT-KL.

    A lesson that shows full-size networks as well calls it before its own come, so that no label stands for both.

    Args:
        small: whether they are miniatures.
        method: that the student was distilled by.
    """
    size = "mini " if small else ""
    LABELS["student"] = f"{size}student alone"
    LABELS["student_at_kl"] = f"{size}student with {'AT-KL' if method == 'at_kl' else method}"
    LABELS["teacher"] = f"{size}teacher"


def use_style() -> None:
    """Set matplotlib's defaults for all notebooks; called by ``start`` of each."""
    matplotlib.rcParams.update(
        {
            "figure.dpi": 90,
            "savefig.dpi": DPI,
            "svg.hashsalt": "dccrn",  # the same drawing, the same file
            "figure.figsize": (WIDTH, 3.2),
            "figure.constrained_layout.use": True,
            "font.size": 10,
            "axes.grid": True,
            "grid.alpha": 0.25,
            "axes.axisbelow": True,
            "axes.spines.top": False,
            "axes.spines.right": False,
            "legend.frameon": False,
            "image.cmap": COLORMAP,
            "lines.linewidth": 1.6,
        }
    )


def new_figure(rows: int = 1, columns: int = 1, height: float = 2.6, **kwargs) -> tuple[Figure, np.ndarray]:
    """A figure of fixed width; ``height`` is per row in inches. Returns (figure, array of axes (rows, columns))."""
    use_style()
    figure, axes = plt.subplots(rows, columns, figsize=(WIDTH, height * rows), squeeze=False, **kwargs)
    plt.close(figure)  # shown once, by the cell that returns it
    shell = get_ipython()
    if shell is not None:
        shell.display_formatter.formatters["image/svg+xml"].for_type(Figure, drawing)
        shell.display_formatter.formatters["image/png"].for_type(Figure, _picture_unless_drawn)
    return figure, axes


def drawing(figure: Figure) -> str | None:
    """The figure as SVG, sharp at any size; None where it holds a raster image or is larger than ``DRAWING_BYTES``.

    Notebooks show line plots, bars and diagrams this way, and everything else as :func:`picture`.
    """
    if figure.findobj(AxesImage) or figure.findobj(QuadMesh):
        return None
    buffer = io.StringIO()
    figure.savefig(buffer, format="svg", bbox_inches="tight", metadata={"Date": None, "Creator": None})
    text = buffer.getvalue()
    text = text[text.index("<svg") :]  # without the XML declaration: it stands inside a page
    text = _PATH.sub(lambda path: _FRACTION.sub(r"\1", path.group()), text)
    return text if len(text.encode()) <= DRAWING_BYTES else None


def _picture_unless_drawn(figure: Figure) -> bytes | None:
    return picture(figure) if drawing(figure) is None else None


def picture(figure: Figure) -> bytes:
    """The figure as a PNG that fits into ``PICTURE_BYTES``: all colours if they fit, then a palette, then fewer pixels.

    The palette covers the range of colours, so that a rare one (a label, the end of a colour bar) stays itself.
    """
    full = Image.open(io.BytesIO(png(figure, DPI, tight=True))).convert("RGB")
    whole = io.BytesIO()
    full.save(whole, format="PNG", optimize=True)
    if whole.tell() <= PICTURE_BYTES:
        return whole.getvalue()
    for scale in (1.0, 0.8, 0.6, 0.4):
        image = (
            full if scale == 1 else full.resize([round(side * scale) for side in full.size], Image.Resampling.LANCZOS)
        )
        for colours in (256, 128, 64):
            small = io.BytesIO()
            palette = image.quantize(colours, method=Image.Quantize.MAXCOVERAGE, dither=Image.Dither.NONE)
            palette.save(small, format="PNG", optimize=True)
            if small.tell() <= PICTURE_BYTES:
                return small.getvalue()
    return small.getvalue()


def to_db(magnitude: np.ndarray, reference: float | None = None) -> np.ndarray:
    """20 log10 of magnitude / reference (the maximum by default), floored at -120 dB."""
    magnitude = np.abs(np.asarray(magnitude))
    reference = float(magnitude.max()) if reference is None else reference
    return 20 * np.log10(np.maximum(magnitude / max(reference, 1e-12), 1e-6))


def draw_spectrogram(
    axes: Axes, spectrum, hop: int = 100, sample_rate: int = 16000, title: str = "", reference: float | None = None
):
    """Magnitude of a complex spectrum (freq, frame) in dB on seconds and kHz; returns the image for a colour bar."""
    spectrum = np.asarray(spectrum)
    seconds = spectrum.shape[-1] * hop / sample_rate
    image = axes.imshow(
        to_db(spectrum, reference),
        origin="lower",
        aspect="auto",
        cmap=COLORMAP,
        vmin=DB_LIMITS[0],
        vmax=DB_LIMITS[1],
        extent=(0, seconds, 0, sample_rate / 2000),
        interpolation="nearest",
    )
    axes.set(title=title, xlabel="time (s)", ylabel="frequency (kHz)")
    axes.grid(False)
    return image


def spectrograms(
    spectra: dict[str, np.ndarray], hop: int = 100, columns: int = 2, reference: float | None = None
) -> Figure:
    """Spectrograms side by side with one dB scale.

    Args:
        spectra: title -> complex (freq, frame).
        hop: samples between frames.
        columns: of the grid.
        reference: magnitude at 0 dB; the loudest bin of all by default.
    """
    arrays = {name: np.asarray(s) for name, s in spectra.items()}
    reference = max(float(np.abs(s).max()) for s in arrays.values()) if reference is None else reference
    rows = -(-len(arrays) // columns)
    figure, axes = new_figure(rows, columns, height=2.5, sharex=True, sharey=True)
    image: Any = None
    for axis, (name, spectrum) in zip(axes.flat, arrays.items(), strict=False):
        image = draw_spectrogram(axis, spectrum, hop, title=LABELS.get(name, name), reference=reference)
        axis.label_outer()
    for axis in list(axes.flat)[len(arrays) :]:
        axis.set_visible(False)
    figure.colorbar(image, ax=axes, label="dB", shrink=0.9)
    return figure


def waveforms(signals: dict[str, np.ndarray], sample_rate: int = 16000) -> Figure:
    """Waveforms below each other on one amplitude scale: name -> (sample,).

    Each stretch of 4 ms is drawn from its least to its largest sample, which looks the same and stays a small drawing.
    """
    figure, axes = new_figure(len(signals), 1, height=1.4, sharex=True, sharey=True)
    stretch = sample_rate // 250
    for axis, (name, x) in zip(axes[:, 0], signals.items(), strict=True):
        starts = np.arange(0, len(x), stretch)
        low, high = (extreme.reduceat(np.asarray(x), starts) for extreme in (np.minimum, np.maximum))
        colour = COLOURS.get(name, "#0072b2")
        axis.fill_between(starts / sample_rate, low, high, color=colour, linewidth=0.6)
        axis.set(ylabel="amplitude", title=LABELS.get(name, name))
    axes[-1, 0].set_xlabel("time (s)")
    return figure


def bars(values: dict[str, float], errors: Sequence[tuple[float, float]] | None = None, label: str = "") -> Figure:
    """One bar per system in its colour; ``errors`` are (low, high) confidence limits in the same order."""
    figure, axes = new_figure(1, 1, height=2.8)
    axis = axes[0, 0]
    names, heights = list(values), np.array(list(values.values()), dtype=float)
    spread = None
    if errors is not None:
        low, high = np.array(errors, dtype=float).T
        spread = np.stack([heights - low, high - heights])
    axis.bar(
        [LABELS.get(n, n) for n in names],
        heights,
        yerr=spread,
        capsize=4,
        color=[COLOURS.get(n, "#56b4e9") for n in names],
    )
    axis.set_ylabel(label)
    return figure
