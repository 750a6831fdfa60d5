"""Enhance files and folders, several at a time: what goes where, and what became of each."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import as_completed
from dataclasses import dataclass, field
from multiprocessing.synchronize import Event
from pathlib import Path

import torch
from torch import nn
from tqdm import tqdm

from dccrn_lib.audio.files import audio_info, list_audio_files
from dccrn_lib.enhancement.files import EnhancedFile, Model, enhance_file, real_path
from dccrn_lib.enhancement.optimised import optimised
from dccrn_lib.enhancement.waveform import device_of, resolve_model
from dccrn_lib.runtime.devices import autocast
from dccrn_lib.runtime.errors import AudioError, ConfigError, DccrnError, lacks_memory
from dccrn_lib.runtime.interpreters import without_current_folder
from dccrn_lib.runtime.paths import PathLike
from dccrn_lib.runtime.workers import SpawnPool, spawn_pool


@dataclass
class EnhanceReport:
    """Outcome of many files.

    done: destinations written; failed: (input, reason); lowered: (destination, dB) of files lowered to fit; skipped:
    destinations that were there already.
    """

    done: list[Path] = field(default_factory=list)
    failed: list[tuple[Path, str]] = field(default_factory=list)
    lowered: list[tuple[Path, float]] = field(default_factory=list)
    skipped: list[Path] = field(default_factory=list)
    seconds: float = 0.0

    def __str__(self) -> str:
        text = f"{len(self.done)} enhanced ({self.seconds:.1f} s of audio), {len(self.failed)} failed"
        text += f", {len(self.skipped)} there already" if self.skipped else ""
        return f"{text}, {len(self.lowered)} lowered to stay below full scale" if self.lowered else text


def _planned(inputs: Iterable[Path], out: Path) -> Iterator[tuple[Path, Path | None, str]]:
    """(input, destination, "") for every file, (input, None, reason) for what cannot be done."""
    for given in inputs:
        if os.path.isdir(given):
            refused: list[AudioError] = []
            files = list_audio_files(given, refused=refused)
            for error in refused:
                yield given, None, str(error)
            inside = real_path(given) in real_path(out).parents
            if real_path(out) not in (real_path(given), *real_path(given).parents):
                # outputs of an earlier run, inside the folder or linked into it, are not inputs
                files = [file for file in files if real_path(out) not in real_path(file).parents]
            if not files and not refused:
                where = f"{given} outside the output folder {out}" if inside else str(given)
                yield given, None, f"no audio file in {where}"
            for file in files:
                yield file, out / file.relative_to(given), ""
        else:
            reason = _absent(given)
            yield given, None if reason else out / given.name, reason


def _absent(path: Path) -> str:
    """Why the system does not show what has this name; "" if it does."""
    try:
        os.stat(path)
    except (FileNotFoundError, NotADirectoryError, ValueError):
        return f"no such file or folder: {path}"
    except OSError as error:
        return f"cannot read {path} ({error.strerror or error})"
    return ""


def _plan(inputs: list[Path], out: Path, report: EnhanceReport) -> list[tuple[Path, Path]]:
    """Pairs (source, destination); what cannot be done goes into ``report.failed``."""
    rows = list(_planned(inputs, out))
    sources = {real_path(source) for source, destination, _ in rows if destination is not None}
    taken: dict[Path, Path] = {}
    for source, destination, reason in rows:
        if destination is None:
            report.failed.append((source, reason))
        elif real_path(destination) in sources:
            report.failed.append((source, f"{destination} is an input; choose another output folder"))
        elif destination not in taken:
            taken[destination] = source
        elif real_path(taken[destination]) != real_path(source):
            reason = f"{destination} is the output of {taken[destination]} too; name their common folder instead"
            report.failed.append((source, reason))
    return [(source, destination) for destination, source in taken.items()]


_worker_model: nn.Module | None = None
_worker_stop: Event | None = None


def _start_worker(model: Model, device: str, threads: int, stop: Event) -> None:
    global _worker_model, _worker_stop
    torch.set_num_threads(threads)
    _worker_model, _worker_stop = optimised(resolve_model(model, device)), stop


def _work(source: Path, destination: Path, device: str, overwrite: bool, precision: str) -> EnhancedFile | str:
    def go_on(_seconds: float = 0.0) -> None:
        assert _worker_stop is not None
        if _worker_stop.is_set():
            raise KeyboardInterrupt  # as in one process: what is half written goes

    go_on()
    assert _worker_model is not None
    return _attempt(source, destination, _worker_model, device, overwrite, precision, go_on)


def _attempt(
    source: Path,
    destination: Path,
    network: nn.Module,
    device: str,
    overwrite: bool,
    precision: str,
    on_progress: Callable[[float], None],
) -> EnhancedFile | str:
    """Enhance one file, or say in one line why not."""
    try:
        return enhance_file(source, destination, network, device, overwrite, None, on_progress, precision)
    except DccrnError as error:
        return str(error)
    except OSError as error:
        return f"{error.filename or destination}: {error.strerror or error}"
    except Exception as error:
        if not lacks_memory(error):
            raise
        return f"{source}: not enough memory; use fewer workers, or cut the file or its channels apart"


def enhance_files(
    inputs: Iterable[PathLike] | PathLike,
    out_dir: PathLike,
    model: Model = "distil_dccrn",
    device: str | None = None,
    workers: int = 1,
    progress: bool = True,
    overwrite: bool = False,
    precision: str = "fp32",
    skip_existing: bool = False,
) -> EnhanceReport:
    """Enhance files and folders into ``out_dir``; what fails is named and the rest continues.

    A file keeps its name; the files of a folder keep their place below it. Files without an audio suffix
    inside a folder are passed over. An output that exists is a failure unless ``overwrite`` or ``skip_existing``; an
    input is never replaced.

    Args:
        inputs: files and folders.
        out_dir: folder to write to; made if need be.
        model: shipped name, path of weights, or a network.
        device: cpu, cuda, cuda:1 ...; None leaves a network where it is, and loads weights on the CPU.
        workers: files processed in parallel, each in its own process with its part of the cores. A script that asks
            for more than one must guard its entry point with ``if __name__ == "__main__":``.
        progress: show a progress bar in seconds of audio on stderr.
        overwrite: replace existing outputs.
        precision: "fp32" or "bf16", as in ``enhance_waveform``.
        skip_existing: leave outputs that exist as they are, and their inputs alone: continues a run that was stopped.

    Returns:
        EnhanceReport: done, failed [(input, reason)], lowered [(output, dB)], skipped.

    Raises:
        WeightsError, ConfigError: unknown model, device or precision, workers below 1, both ways with what exists.
        AudioError: out_dir is a file.
    """
    paths = [Path(inputs)] if isinstance(inputs, str | os.PathLike) else [Path(p) for p in inputs]
    out = Path(out_dir)
    if workers < 1:
        raise ConfigError(f"workers must be at least 1, got {workers}")
    if overwrite and skip_existing:
        raise ConfigError("overwrite replaces what skip_existing would leave: choose one of the two")
    if out.exists() and not out.is_dir():
        raise AudioError(f"{out} is a file; the output must be a folder")
    resolved = resolve_model(model, device)
    network, device = optimised(resolved), str(device_of(resolved))
    autocast(precision, device)  # refused before the first file
    report = EnhanceReport()
    jobs = _plan(paths, out, report)
    if skip_existing:
        report.skipped = sorted(destination for _, destination in jobs if os.path.exists(destination))
        jobs = [(source, destination) for source, destination in jobs if not os.path.exists(destination)]
    lengths = dict(zip((source for source, _ in jobs), map(_seconds, (s for s, _ in jobs)), strict=True))
    bar = tqdm(total=sum(lengths.values()), unit="s", desc="enhance", disable=not progress or not jobs)
    bar.bar_format = "{l_bar}{bar}| {n:.0f}/{total:.0f} s of audio [{elapsed}<{remaining}]"

    def advance(seconds: float) -> None:
        bar.update(min(seconds, bar.total - bar.n))  # a compressed file may be longer than its header says

    with bar:
        if workers == 1 or len(jobs) < 2:
            for source, destination in jobs:
                outcome = _attempt(source, destination, network, device, overwrite, precision, advance)
                _record(report, source, outcome)
        else:
            shared = network.cpu() if isinstance(model, nn.Module) else model
            for source, outcome in _in_processes(jobs, shared, device, workers, overwrite, precision):
                advance(lengths[source])
                _record(report, source, outcome)
            network.to(device)  # back to where it was
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
    jobs: list[tuple[Path, Path]], model: Model, device: str, workers: int, overwrite: bool, precision: str
) -> Iterator[tuple[Path, EnhancedFile | str]]:
    """Run jobs in spawned processes (safe beside torch's threads and CUDA); yields in order of completion."""
    workers = min(workers, len(jobs))
    threads = max(1, torch.get_num_threads() // workers)
    with without_current_folder():  # a helper process of multiprocessing starts here
        stop = SpawnPool.context.Event()
    with spawn_pool(workers, _start_worker, (model, device, threads, stop)) as pool:
        try:
            futures = {pool.submit(_work, *job, device, overwrite, precision): job[0] for job in jobs}
            for future in as_completed(futures):
                yield futures[future], future.result()
        finally:
            stop.set()
