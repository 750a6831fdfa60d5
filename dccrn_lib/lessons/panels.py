"""What a widget puts on the page: a figure as PNG, a sound as a player. Nothing of it needs a running plot backend."""

from __future__ import annotations

import base64
import html
import io

import numpy as np
import soundfile
from matplotlib.figure import Figure

from dccrn_lib.audio.recording import HIGHEST_VORBIS_RATE
from dccrn_lib.audio.resampling import resample

_WRITTEN = 1 << 18  # samples at once; libsndfile's Vorbis encoder crashes on very long writes
_PLAYED = 8  # channels that a browser plays


def png(figure: Figure, dpi: int = 90, tight: bool = False) -> bytes:
    """The figure as PNG.

    Args:
        figure: any.
        dpi: dots per inch.
        tight: cut away the margin.
    """
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", dpi=dpi, bbox_inches="tight" if tight else None)
    return buffer.getvalue()


def image_html(figure: Figure, alternative: str) -> str:
    """The figure as an HTML image; ``alternative`` says in words what it shows."""
    data = base64.b64encode(png(figure)).decode()
    return f'<img alt="{html.escape(alternative)}" style="max-width:100%" src="data:image/png;base64,{data}"/>'


def player_html(samples: np.ndarray, sample_rate: int, title: str) -> str:
    """An HTML player of Ogg/Vorbis, at the level the sound has (never normalised).

    Args:
        samples: (sample,) or (channel, sample), in [-1, 1]; of more than eight channels the first two are played.
        sample_rate: in Hz; above 200 kHz, which Vorbis cannot hold, 48 kHz are played.
        title: shown above the player.
    """
    if sample_rate > HIGHEST_VORBIS_RATE:  # no page plays more than 48 kHz anyway
        samples, sample_rate = resample(samples, sample_rate, 48000), 48000
    if samples.ndim == 2 and len(samples) > _PLAYED:
        samples = samples[:2]
    buffer = io.BytesIO()
    frames = samples.T  # (sample,) or (sample, channel)
    channels = 1 if frames.ndim == 1 else frames.shape[1]
    with soundfile.SoundFile(buffer, "w", sample_rate, channels, "VORBIS", format="OGG") as file:
        for start in range(0, len(frames), _WRITTEN):
            file.write(frames[start : start + _WRITTEN])
    data = base64.b64encode(buffer.getvalue()).decode()
    return (
        f'<figure style="margin:0.2em 0"><figcaption>{html.escape(title)}</figcaption>'
        f'<audio controls preload="none" src="data:audio/ogg;base64,{data}"></audio></figure>'
    )


def side_by_side(parts: list[str]) -> str:
    """HTML parts in a row that wraps."""
    return '<div style="display:flex;flex-wrap:wrap;gap:1em">' + "".join(parts) + "</div>"
