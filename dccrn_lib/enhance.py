"""Enhance audio files and folders: any format, rate, length and number of channels.

What comes out has the input's rate, length, channels, format and sample format. A file appears under its
name only when it is complete, and never in the place of an input.

Peaks: nothing is clipped. Where the enhanced signal exceeds full scale and the sample format cannot hold that
(all but FLOAT and DOUBLE), the whole file is lowered by one gain until its peak fits, and the report says
by how much.
"""

from __future__ import annotations

import math
import multiprocessing
import os
import signal
import threading
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ProcessPoolExecutor, as_completed
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager
from dataclasses import dataclass, field
from multiprocessing.synchronize import Event
from pathlib import Path

import numpy as np
import soundfile
import torch
from torch import nn
from tqdm import tqdm

from dccrn_lib.audio import AudioInfo, AudioWriter, audio_info, file_format, list_audio_files, read_blocks
from dccrn_lib.errors import AudioError, ConfigError, DccrnError
from dccrn_lib.signal_path import (
    BLOCK_SECONDS,
    enhance_waveform,
    enhanced_blocks,
    evaluating,
    resolve_model,
    signal_path,
)

__all__ = ["EnhanceReport", "EnhancedFile", "enhance_file", "enhance_files", "enhance_waveform"]

PathLike = str | os.PathLike
Model = nn.Module | str | os.PathLike


@dataclass(frozen=True)
class EnhancedFile:
    """One file that was enhanced: ``gain_db`` is 0, or below 0 where the output had to be lowered to fit."""

    source: Path
    destination: Path
    seconds: float
    gain_db: float = 0.0


@dataclass
class EnhanceReport:
    """Outcome of many files.

    done: destinations written; failed: (input, reason); lowered: (destination, dB) of files lowered to fit.
    """

    done: list[Path] = field(default_factory=list)
    failed: list[tuple[Path, str]] = field(default_factory=list)
    lowered: list[tuple[Path, float]] = field(default_factory=list)
    seconds: float = 0.0

    def __str__(self) -> str:
        text = f"{len(self.done)} enhanced ({self.seconds:.1f} s of audio), {len(self.failed)} failed"
        return f"{text}, {len(self.lowered)} lowered to stay below full scale" if self.lowered else text


class _Overload(Exception):
    """The enhanced signal does not fit its sample format; carries the peak."""

    def __init__(self, peak: float) -> None:
        super().__init__(peak)
        self.peak = peak


def _real(path: Path) -> Path:
    """The path without symbolic links; unlike ``Path.resolve`` also of links that lead in a circle."""
    return Path(os.path.realpath(path))


def _same_file(a: Path, b: Path) -> bool:
    return _real(a) == _real(b) or (a.exists() and b.exists() and os.path.samefile(a, b))


def _output_format(info: AudioInfo, destination: Path, subtype: str | None) -> tuple[str, str]:
    """libsndfile's (format, subtype): the input's where the suffix is the same, else the nearest."""
    name = info.format if destination.suffix.lower() == info.path.suffix.lower() else None
    if subtype is not None:
        return file_format(destination, subtype, name)
    name, default = file_format(destination, None, name)
    for kept in (info.subtype, "PCM_24" if info.subtype in ("FLOAT", "DOUBLE", "PCM_32") else None):
        if kept is not None and soundfile.check_format(name, kept):
            return name, kept
    return name, default


def _scan(path: Path, block: int) -> tuple[int, float]:
    """(samples, peak) of a file; reads all of it, so that damage is found before any output is begun."""
    samples, peak = 0, 0.0
    for piece in read_blocks(path, block):
        samples += piece.shape[1]
        peak = max(peak, float(np.abs(piece).max()))
    return samples, peak


def enhance_file(
    source: PathLike,
    destination: PathLike,
    model: Model = "distil_dccrn",
    device: str = "cpu",
    overwrite: bool = False,
    subtype: str | None = None,
    on_progress: Callable[[float], None] | None = None,
) -> EnhancedFile:
    """Enhance one audio file.

    Args:
        source: any format that soundfile reads, any rate, length and number of channels (each on its own).
        destination: file to write; its suffix decides the format.
        model: shipped name, path of weights, or a network.
        device: cpu, cuda, cuda:1 ...
        overwrite: replace an existing destination (never the source).
        subtype: sample format (PCM_16, FLOAT ...); None keeps the input's where the output format has it.
        on_progress: called with the seconds of audio written since the last call.

    Returns:
        EnhancedFile: where, how long, and by how many dB it had to be lowered.

    Raises:
        AudioError: the source cannot be read, the destination exists or is the source, or it cannot be
        written. WeightsError, ConfigError: unknown model or device.
    """
    source, destination = Path(source), Path(destination)
    info = audio_info(source)
    if _same_file(source, destination):
        raise AudioError(f"{destination} is the input itself; choose another output name or folder")
    if destination.exists() and not overwrite:
        raise AudioError(f"{destination} exists; remove it, choose another output, or ask to overwrite it")
    form, kept = _output_format(info, destination, subtype)
    block = max(1, int(BLOCK_SECONDS * info.sample_rate))
    samples, peak = _scan(source, block)
    network = resolve_model(model, device)
    report = on_progress or (lambda seconds: None)

    def attempt(gain: float) -> None:
        path = signal_path(network, info.channels, samples / info.sample_rate, str(source))
        blocks = enhanced_blocks(read_blocks(source, block), path, info.sample_rate, samples, peak)
        with AudioWriter(destination, info.sample_rate, info.channels, kept, form) as writer:
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


def _planned(inputs: Iterable[Path], out: Path) -> Iterator[tuple[Path, Path | None, str]]:
    """(input, destination, "") for every file, (input, None, reason) for what cannot be done."""
    for given in inputs:
        if given.is_dir():
            files = list_audio_files(given)
            inside = _real(given) in _real(out).parents
            if inside:  # outputs of an earlier run inside the folder are not inputs
                files = [file for file in files if _real(out) not in _real(file).parents]
            if not files:
                where = f"{given} outside the output folder {out}" if inside else str(given)
                yield given, None, f"no audio file in {where}"
            for file in files:
                yield file, out / file.relative_to(given), ""
        elif given.exists():
            yield given, out / given.name, ""
        else:
            yield given, None, f"no such file or folder: {given}"


def _plan(inputs: list[Path], out: Path, report: EnhanceReport) -> list[tuple[Path, Path]]:
    """Pairs (source, destination); what cannot be done goes into ``report.failed``."""
    rows = list(_planned(inputs, out))
    sources = {_real(source) for source, destination, _ in rows if destination is not None}
    taken: dict[Path, Path] = {}
    for source, destination, reason in rows:
        if destination is None:
            report.failed.append((source, reason))
        elif _real(destination) in sources:
            report.failed.append((source, f"{destination} is an input; choose another output folder"))
        elif destination not in taken:
            taken[destination] = source
        elif _real(taken[destination]) != _real(source):
            reason = (
                f"{destination} is the output of {taken[destination]} too; name their common folder instead"
            )
            report.failed.append((source, reason))
    return [(source, destination) for destination, source in taken.items()]


_worker_model: nn.Module | None = None
_worker_stop: Event | None = None


def _start_worker(model: Model, device: str, threads: int, stop: Event) -> None:
    global _worker_model, _worker_stop
    torch.set_num_threads(threads)
    _worker_model, _worker_stop = resolve_model(model, device), stop


def _work(source: Path, destination: Path, device: str, overwrite: bool) -> EnhancedFile | str:
    def go_on(_seconds: float = 0.0) -> None:
        if _worker_stop.is_set():
            raise KeyboardInterrupt  # as in one process: what is half written goes

    go_on()
    return _attempt(source, destination, _worker_model, device, overwrite, on_progress=go_on)


@contextmanager
def _without_interrupts() -> Iterator[None]:
    """Processes started inside do not see Ctrl-C; their parent does, and tells them to stop."""
    if threading.current_thread() is not threading.main_thread():
        yield  # only the main thread may change signals, and only it is interrupted
        return
    before = signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before)


def _attempt(
    source: Path,
    destination: Path,
    network: nn.Module,
    device: str,
    overwrite: bool,
    on_progress: Callable[[float], None] | None = None,
) -> EnhancedFile | str:
    """Enhance one file, or say in one line why not."""
    try:
        return enhance_file(source, destination, network, device, overwrite, on_progress=on_progress)
    except DccrnError as error:
        return str(error)
    except OSError as error:
        return f"{error.filename or destination}: {error.strerror or error}"


def enhance_files(
    inputs: Iterable[PathLike] | PathLike,
    out_dir: PathLike,
    model: Model = "distil_dccrn",
    device: str = "cpu",
    workers: int = 1,
    progress: bool = True,
    overwrite: bool = False,
) -> EnhanceReport:
    """Enhance files and folders into ``out_dir``; what fails is named and the rest goes on.

    A file keeps its name; the files of a folder keep their place below it. Files without an audio suffix
    inside a folder are passed over. An output that exists is a failure unless ``overwrite``; an input is
    never replaced.

    Args:
        inputs: files and folders.
        out_dir: folder to write to; made if need be.
        model: shipped name, path of weights, or a network.
        device: cpu, cuda, cuda:1 ...
        workers: files at a time, each in a process of its own with its share of the cores. More than one
        needs an
            `if __name__ == "__main__":` in a script that calls this.
        progress: show a progress bar in seconds of audio on stderr.
        overwrite: replace existing outputs.

    Returns:
        EnhanceReport: done, failed [(input, reason)], lowered [(output, dB)].

    Raises:
        WeightsError, ConfigError: unknown model or device, workers below 1.
        AudioError: out_dir is a file.
    """
    paths = [Path(inputs)] if isinstance(inputs, str | os.PathLike) else [Path(p) for p in inputs]
    out = Path(out_dir)
    if workers < 1:
        raise ConfigError(f"workers must be at least 1, got {workers}")
    if out.exists() and not out.is_dir():
        raise AudioError(f"{out} is a file; the output must be a folder")
    network = resolve_model(model, device)
    report = EnhanceReport()
    jobs = _plan(paths, out, report)
    lengths = dict(zip((source for source, _ in jobs), map(_seconds, (s for s, _ in jobs)), strict=True))
    bar = tqdm(total=sum(lengths.values()), unit="s", desc="enhance", disable=not progress)
    bar.bar_format = "{l_bar}{bar}| {n:.0f}/{total:.0f} s of audio [{elapsed}<{remaining}]"

    def advance(seconds: float) -> None:
        bar.update(min(seconds, bar.total - bar.n))  # a compressed file may be longer than its header says

    with bar:
        if workers == 1 or len(jobs) < 2:
            for source, destination in jobs:
                outcome = _attempt(source, destination, network, device, overwrite, on_progress=advance)
                _record(report, source, outcome)
        else:
            shared = network.cpu() if isinstance(model, nn.Module) else model
            for source, outcome in _in_processes(jobs, shared, device, workers, overwrite):
                advance(lengths[source])
                _record(report, source, outcome)
    report.done.sort()
    report.failed.sort()
    return report


def _seconds(path: Path) -> float:
    """Length by the header; 0 for a file that cannot be read, which is reported when its turn comes."""
    try:
        return audio_info(path).seconds
    except AudioError:
        return 0.0


def _record(report: EnhanceReport, source: Path, outcome: EnhancedFile | str) -> None:
    if isinstance(outcome, str):
        report.failed.append((source, outcome))
        return
    report.done.append(outcome.destination)
    report.seconds += outcome.seconds
    if outcome.gain_db < 0:
        report.lowered.append((outcome.destination, outcome.gain_db))


def _in_processes(
    jobs: list[tuple[Path, Path]], model: Model, device: str, workers: int, overwrite: bool
) -> Iterator[tuple[Path, EnhancedFile | str]]:
    """Run jobs in spawned processes (safe beside torch's threads and CUDA); yields in order of completion."""
    workers = min(workers, len(jobs))
    threads = max(1, torch.get_num_threads() // workers)
    context = multiprocessing.get_context("spawn")
    stop = context.Event()
    pool = ProcessPoolExecutor(
        workers,
        context,
        initializer=_start_worker,
        initargs=(model, device, threads, stop),
    )
    try:
        with _without_interrupts():
            futures = {pool.submit(_work, *job, device, overwrite): job[0] for job in jobs}
        for future in as_completed(futures):
            yield futures[future], future.result()
    except BrokenProcessPool as error:
        raise AudioError(
            'a worker process ended early; use workers=1, or call this under `if __name__ == "__main__":`'
        ) from error
    finally:
        stop.set()
        pool.shutdown(wait=True, cancel_futures=True)
