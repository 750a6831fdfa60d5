"""Widgets of notebook 07: the latency of any window, hop and look-ahead, and the reader's own sound enhanced."""

from __future__ import annotations

import html
import io
from dataclasses import dataclass
from pathlib import Path

import ipywidgets as widgets
import numpy as np
import soundfile
from torch import nn

from dccrn_lib.enhancement.waveform import enhance_waveform
from dccrn_lib.lessons.panels import player_html, png, side_by_side
from dccrn_lib.lessons.recorder import decode_recording, recorder
from dccrn_lib.lessons.streaming.figures import latency_staircase
from dccrn_lib.runtime.errors import AudioError, DccrnError

MAX_SECONDS = 60.0


@dataclass(frozen=True)
class BeforeAfter:
    """A sound and its enhanced form, (channel, sample) each at ``sample_rate``, both multiplied by ``gain``."""

    before: np.ndarray
    after: np.ndarray
    sample_rate: int
    gain: float

    @property
    def summary(self) -> str:
        """Length, rate, channels and the common gain in words."""
        channels, samples = self.before.shape
        text = f"{samples / self.sample_rate:.1f} s, {self.sample_rate} Hz, {channels} channel{'s' * (channels > 1)}"
        return text if self.gain == 1.0 else f"{text}; both lowered by {-20 * np.log10(self.gain):.1f} dB to fit"


def enhance_bytes(data: bytes, model: nn.Module, name: str = "the upload") -> BeforeAfter:
    """Enhance the content of an audio file.

    Args:
        data: bytes of a file in any format that libsndfile reads; at most a minute is taken.
        model: network.
        name: of the file, for messages.

    Raises:
        AudioError: empty, not audio, without samples, or with NaN in it.
    """
    if not data:
        raise AudioError(f"{name} is empty (0 bytes); choose another file")
    try:
        with soundfile.SoundFile(io.BytesIO(data)) as file:
            rate = file.samplerate
            samples = file.read(int(MAX_SECONDS * rate), dtype="float32", always_2d=True).T  # (channel, sample)
    except (soundfile.SoundFileError, TypeError):
        raise AudioError(f"{name} is not audio that can be read here; use wav, flac, ogg, opus or mp3") from None
    if not samples.size:
        raise AudioError(f"{name} has no samples; choose another file")
    after = enhance_waveform(model, samples, rate)
    peak = max(float(np.abs(samples).max()), float(np.abs(after).max()))
    gain = 1.0 if peak <= 1.0 else 0.99 / peak  # one gain for both: the comparison stays fair
    return BeforeAfter(samples * np.float32(gain), after * np.float32(gain), rate, gain)


def before_after_html(result: BeforeAfter) -> str:
    """Two players side by side, with what they hold."""
    parts = [
        player_html(result.before, result.sample_rate, "before"),
        player_html(result.after, result.sample_rate, "after"),
    ]
    return f"<div>{html.escape(result.summary)}</div>{side_by_side(parts)}"


def answer_to(data: bytes | str, model: nn.Module, name: str = "the recording") -> str:
    """HTML for uploaded bytes or a recording in base64: players, or one line that says what was wrong."""
    try:
        content = decode_recording(data) if isinstance(data, str) else bytes(data)
        return before_after_html(enhance_bytes(content, model, name))
    except DccrnError as error:
        return f'<div style="color:#b00020">{html.escape(str(error))}</div>'


def own_sound(model: nn.Module) -> widgets.Widget:
    """Upload a file or record in the browser, and hear it before and after.

    Args:
        model: network in eval mode; the sound goes nowhere but to this kernel.
    """
    upload = widgets.FileUpload(accept="audio/*", multiple=False, description="Upload")
    answer = widgets.HTML("Nothing yet: upload a sound file, or record a few seconds with a noisy background.")

    def show(data: bytes | str, name: str) -> None:
        answer.value = "Enhancing ..."
        answer.value = answer_to(data, model, name)

    def uploaded(change: dict) -> None:
        for item in change["new"]:
            show(bytes(item["content"]), Path(item["name"]).name)

    upload.observe(uploaded, names="value")
    record = recorder(lambda text: show(text, "the recording"))
    return widgets.VBox([widgets.HBox([upload, record]), answer])


def latency_of(window: int, hop: int, lookahead: int, sample_rate: int = 16000) -> tuple[int, str]:
    """Latency in samples by the formula, and the sentence that says it."""
    samples = (window - 1) + lookahead * hop
    limit = 1000 * hop / sample_rate
    return samples, (
        f"({window} - 1) + {lookahead} x {hop} = {samples} samples = {1000 * samples / sample_rate:.1f} ms; "
        f"{sample_rate / hop:.0f} network steps per second, each in less than {limit:.2f} ms"
    )


def latency_explorer() -> widgets.Widget:
    """Window, hop and look-ahead by slider: the frames that wait, and the latency they cost."""
    window = widgets.SelectionSlider(options=[256, 320, 400, 480, 512], value=400, description="window")
    parts = widgets.SelectionSlider(options=[1, 2, 4], value=4, description="win / hop")
    lookahead = widgets.IntSlider(6, 0, 6, description="look-ahead", continuous_update=False)
    sentence, picture = widgets.HTML(), widgets.Image(format="png")

    def draw(_: dict | None = None) -> None:
        hop = window.value // parts.value
        sentence.value = latency_of(window.value, hop, lookahead.value)[1]
        picture.value = png(latency_staircase(window.value, hop, lookahead.value))

    for control in (window, parts, lookahead):
        control.observe(draw, names="value")
    draw()
    return widgets.VBox([window, parts, lookahead, sentence, picture])
