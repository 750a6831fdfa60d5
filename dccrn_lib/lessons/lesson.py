"""What every notebook opens with: versions, seed, one thread, and players that do not touch the level.

A lesson also names what came out of it (:func:`outcome`); the report of a run opens with that.
"""

from __future__ import annotations

import platform
import random

import numpy as np
import torch
from IPython.display import HTML, Markdown, display

from dccrn_lib.lessons.panels import player_html, side_by_side
from dccrn_lib.lessons.plotting import use_style
from dccrn_lib.runtime.devices import set_up_cpu
from dccrn_lib.runtime.errors import AudioError, ConfigError, nearest_name

MAX_SECONDS = 4.0
#: What a report opens with, in this order; the names of ``outcome``.
OUTCOMES = ("trained", "sentence", "table", "figure", "player")


def start(seed: int = 0, threads: int = 1) -> None:
    """Seed everything, fix the number of threads, set the figures' style, and print the versions.

    Args:
        seed: of Python, numpy and torch.
        threads: of torch; one makes printed digits repeatable.
    """
    random.seed(seed)
    np.random.seed(seed)
    torch.manual_seed(seed)
    set_up_cpu(threads)
    use_style()
    print(
        f"Python {platform.python_version().rsplit('.', 1)[0]}, torch {torch.__version__.split('+')[0]}, "
        f"seed {seed}, {threads} thread{'s' if threads > 1 else ''}"
    )


def player(samples, sample_rate: int = 16000, title: str = "") -> HTML:
    """An audio player with at most 4 s of Ogg/Vorbis, at the level it has (never normalised).

    Args:
        samples: (sample,), tensor or array in [-1, 1].
        sample_rate: in Hz.
        title: shown above the player.

    Raises:
        AudioError: not one channel, or above full scale (scale all signals of a comparison by one factor).
    """
    x = torch.as_tensor(samples).detach().cpu().float().numpy()
    if x.ndim != 1 or not len(x):
        raise AudioError(f"a player takes one channel, shape (sample,), got {x.shape}")
    if np.abs(x).max() > 1.0:
        raise AudioError(f"peak {np.abs(x).max():.2f} is above full scale: scale all signals of a comparison alike")
    x = x[: int(MAX_SECONDS * sample_rate)]
    return HTML(player_html(x, sample_rate, title))


def players(signals: dict, sample_rate: int = 16000) -> HTML:
    """Players side by side: title -> (sample,)."""
    return HTML(side_by_side([str(player(x, sample_rate, title).data) for title, x in signals.items()]))


def outcome(kind: str, thing) -> None:
    """Display something and mark it as the outcome of the run: the run's report opens with what is marked.

    Args:
        kind: "trained" (what was trained, in words), "sentence" (what the numbers say), "table", "figure" or "player".
        thing: a text in Markdown, a figure, or whatever a notebook displays.

    Raises:
        ConfigError: the kind is unknown.
    """
    if kind not in OUTCOMES:
        raise ConfigError(f"unknown kind of outcome {kind!r}; {nearest_name(kind, list(OUTCOMES))}")
    display(Markdown(thing) if isinstance(thing, str) else thing, metadata={"outcome": kind})
