"""Enhance one audio file: any format, rate, length and number of channels.

What comes out has the input's rate, length, channels, format and sample format. A file appears under its
name only when it is complete, and never in the place of an input.

Peaks: nothing is clipped. Where the enhanced signal exceeds full scale and the sample format cannot hold that
(all but FLOAT and DOUBLE), the whole file is lowered by one gain until its peak fits, and the report says
by how much.
"""

from __future__ import annotations

import math
import os
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from torch import nn

from dccrn_lib.audio.files import AudioInfo, AudioWriter, audio_info, file_format, read_blocks
from dccrn_lib.audio.recording import kept_subtype, require_size
from dccrn_lib.enhancement.waveform import BLOCK_SECONDS, LevelMeter, enhanced_blocks, resolve_model, signal_path
from dccrn_lib.networks.modes import evaluating
from dccrn_lib.runtime.errors import AudioError
from dccrn_lib.runtime.files import require_place, require_writable
from dccrn_lib.runtime.paths import PathLike

Model = nn.Module | PathLike


@dataclass(frozen=True)
class EnhancedFile:
    """One file that was enhanced: ``gain_db`` is 0, or below 0 where the output had to be lowered to fit."""

    source: Path
    destination: Path
    seconds: float
    gain_db: float = 0.0


class _Overload(Exception):
    """The enhanced signal does not fit its sample format; carries the peak."""

    def __init__(self, peak: float) -> None:
        super().__init__(peak)
        self.peak = peak


def real_path(path: Path) -> Path:
    """The path without symbolic links; unlike ``Path.resolve`` also of links that lead in a circle."""
    return Path(os.path.realpath(path))


def _same_file(a: Path, b: Path) -> bool:
    return real_path(a) == real_path(b) or (a.exists() and b.exists() and os.path.samefile(a, b))


def _output_format(info: AudioInfo, destination: Path, subtype: str | None) -> tuple[str, str]:
    """libsndfile's (format, subtype): the input's where the suffix is the same, else the nearest."""
    name = info.format if destination.suffix.lower() == info.path.suffix.lower() else None
    if subtype is not None:
        return file_format(destination, subtype, name)
    name, default = file_format(destination, None, name)
    return name, kept_subtype(name, info) or default


def _scan(path: Path, block: int, info: AudioInfo) -> tuple[int, LevelMeter]:
    """(samples, level and offset) of a file; reads all of it, so that damage is found before any output is begun."""
    samples, meter = 0, LevelMeter(info.channels, info.sample_rate)
    for piece in read_blocks(path, block):
        samples += piece.shape[1]
        meter.add(piece)
    return samples, meter


def enhance_file(
    source: PathLike,
    destination: PathLike,
    model: Model = "distil_dccrn",
    device: str | None = None,
    overwrite: bool = False,
    subtype: str | None = None,
    on_progress: Callable[[float], None] | None = None,
    precision: str = "fp32",
) -> EnhancedFile:
    """Enhance one audio file.

    Args:
        source: any format that soundfile reads, any rate, length and number of channels (each on its own).
        destination: file to write; its suffix decides the format.
        model: shipped name, path of weights, or a network.
        device: cpu, cuda, cuda:1 ...; None leaves a network where it is, and loads weights on the CPU.
        overwrite: replace an existing destination (never the source).
        subtype: sample format (PCM_16, FLOAT ...); None keeps the input's where the output format has it.
        on_progress: called with the seconds of audio written since the last call.
        precision: "fp32" or "bf16", as in ``enhance_waveform``.

    Returns:
        EnhancedFile: where, how long, and by how many dB it had to be lowered.

    Raises:
        AudioError: the source cannot be read, the destination exists or is the source, or it cannot be
        written, or would be larger than its format can say. WeightsError, ConfigError: unknown model or device, or a
        destination among the devices or in a read-only folder.
    """
    source, destination = Path(source), Path(destination)
    info = audio_info(source)
    if _same_file(source, destination):
        raise AudioError(f"{destination} is the input itself; choose another output name or folder")
    if destination.exists() and not overwrite:
        raise AudioError(
            f"{destination} exists; choose another output, or replace it with --overwrite (overwrite=True); behind --out, "
            "--skip-existing (skip_existing=True) leaves it and goes on"
        )
    require_place(destination)
    require_writable(destination)
    form, kept = _output_format(info, destination, subtype)
    require_size(destination, info.samples, info.channels, kept, form)
    block = max(1, int(BLOCK_SECONDS * info.sample_rate))
    samples, meter = _scan(source, block, info)
    network = resolve_model(model, device)
    report = on_progress or (lambda seconds: None)

    def attempt(gain: float) -> None:
        path = signal_path(network, info.channels, samples / info.sample_rate, str(source), precision)
        blocks = enhanced_blocks(read_blocks(source, block), path, info.sample_rate, samples, meter)
        with AudioWriter(destination, info.sample_rate, info.channels, kept, form, info.tags) as writer:
            for piece in blocks:
                writer.write(piece * np.float32(gain))
                report(piece.shape[1] / info.sample_rate)
            if writer.clipped:
                report(-samples / info.sample_rate)
                raise _Overload(writer.peak)  # leaves the destination untouched

    gain = 1.0
    with evaluating(network):
        try:
            attempt(gain)
        except _Overload as overload:
            gain = 0.9999 / overload.peak
            attempt(gain)
    gain_db = 0.0 if gain == 1.0 else 20 * math.log10(gain)
    return EnhancedFile(source, destination, samples / info.sample_rate, gain_db)
