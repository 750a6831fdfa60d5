"""Speed and memory, measured in one run on one machine so that ratios can be compared.

Alternatives are timed in turns (a, b, a, b ...) and compared pair by pair, so that a busy machine disturbs both; the
load average before and after is part of the record. Absolute times are those of the machine the record names.

    python -m dccrn_lib bench --json results/bench.json
"""

from __future__ import annotations

import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from functools import partial
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import soundfile
import torch
from tqdm import tqdm

from dccrn_lib.audio.rate import SAMPLE_RATE
from dccrn_lib.enhancement.optimised import optimised
from dccrn_lib.enhancement.stream_step import can_stream
from dccrn_lib.enhancement.waveform import LIMIT_SECONDS, enhance_waveform
from dccrn_lib.experiments.data_speed import measure_data
from dccrn_lib.experiments.machine_limits import (
    SIDE,
    arithmetic_floor,
    arithmetic_kinds,
    arithmetic_limits,
    copied_bytes_per_second,
    product,
)
from dccrn_lib.experiments.peers import Timed, onnx_call, parse_onnx, peer_calls
from dccrn_lib.experiments.recipe import recipe
from dccrn_lib.experiments.streaming_speed import bench_streaming
from dccrn_lib.experiments.textbook import four_call_convolution, four_pass_lstm, textbook_layers
from dccrn_lib.experiments.training_speed import measure_training
from dccrn_lib.networks.complex_layers import ComplexConv2d, ComplexLSTM
from dccrn_lib.networks.presets import build_model
from dccrn_lib.results.records import save_result
from dccrn_lib.runtime.devices import with_threads
from dccrn_lib.runtime.errors import ConfigError
from dccrn_lib.runtime.interpreters import child_command, child_environment
from dccrn_lib.runtime.paths import PathLike, install_command
from dccrn_lib.runtime.workers import usable_cores

Rows = list[dict[str, Any]]
PRODUCTS = 8  # in a round, one after the other


def time_in_turns(first: Callable[[], Any], second: Callable[[], Any], repeats: int) -> tuple[float, float, float]:
    """Median seconds of each and the median over the pairs of second / first; one warm-up each."""
    times: list[tuple[float, float]] = []
    for _ in range(repeats + 1):
        start = time.perf_counter()
        first()
        middle = time.perf_counter()
        second()
        times.append((middle - start, time.perf_counter() - middle))
    times = times[1:]
    first_median, second_median = (statistics.median(pair[i] for pair in times) for i in (0, 1))
    return first_median, second_median, statistics.median(b / a for a, b in times)


def seconds_in_turns(calls: Mapping[str, Timed], repeats: int) -> dict[str, list[float]]:
    """Seconds of every call, all in turns (a, b, c, a, b, c ...), after one warm-up each."""
    times: dict[str, list[float]] = {name: [] for name in calls}
    for _ in range(repeats + 1):
        for name, call in calls.items():
            start = time.perf_counter()
            call()
            times[name].append(time.perf_counter() - start)
    return {name: values[1:] for name, values in times.items()}


def quartiles(values: list[float]) -> tuple[float, float, float]:
    """Median, lower and upper quartile."""
    low, middle, high = statistics.quantiles(values, n=4) if len(values) > 1 else 3 * values
    return middle, low, high


def bench_layers(quick: bool = False) -> Rows:
    """Forward and backward of the complex layers against their textbook forms: 1 s of audio, batch 4."""
    batch, frames, repeats = (1, 20, 3) if quick else (4, 160, 30)
    generator = torch.Generator().manual_seed(0)
    conv = ComplexConv2d(64, 128, (5, 2), (2, 1), (2, 0), causal_frames=1)
    x = torch.randn(batch, 64, 64, frames, generator=generator, requires_grad=True)
    lstm = ComplexLSTM(512, 128)
    parts = [torch.randn(frames, batch, 512, generator=generator, requires_grad=True) for _ in range(2)]
    pairs = {
        "complex convolution 64-128": (
            lambda: conv(x).square().mean().backward(),
            lambda: four_call_convolution(conv, x).square().mean().backward(),
        ),
        "complex LSTM 512-128": (
            lambda: torch.cat(lstm(*parts)).square().mean().backward(),
            lambda: torch.cat(four_pass_lstm(lstm, *parts)).square().mean().backward(),
        ),
    }
    rows = []
    for name, (ours, textbook) in pairs.items():
        a, b, ratio = time_in_turns(ours, textbook, repeats)
        rows.append(_row(f"{name}, four calls / ours, forward + backward", 1e3 * b, "ms", 1e3 * a, ratio))
    return rows


def _clip(seconds: float) -> np.ndarray:
    """Noise at a usual level, float32 (sample,)."""
    return (0.1 * np.random.default_rng(0).standard_normal(round(seconds * SAMPLE_RATE))).astype(np.float32)


def bench_machine(quick: bool = False) -> Rows:
    """What the machine can do on one thread: matrix products (multiply-adds per second) and copies in memory."""
    rows = []
    for precision, rate in arithmetic_limits(quick).items():
        rows.append(_row(f"limit: {precision} matrix product, 1 thread", rate / 1e9, "G multiply-adds/s"))
    rows.append(_row("limit: copy in memory, read and write, 1 thread", copied_bytes_per_second(quick) / 1e9, "GB/s"))
    return rows


def bench_offline(name: str, quick: bool = False) -> Rows:
    """``enhance_waveform`` in every precision that the CPU has, on one thread and on two, all in turns.

    The reference is the floor: the multiply-adds of the layers at the rate of a matrix product of the same precision on
    one thread; on two, half of that. The product takes its turn in every round, since clocks move, and the ratio, the
    median over the rounds of time / floor, says how far from it the enhancement is, STFT included.
    """
    seconds, repeats = (1, 2) if quick else (10, 9)
    model, clip = build_model(name).eval(), _clip(seconds)
    fast, side = optimised(model), 128 if quick else SIDE

    def call(threads: int, precision: str) -> None:
        with with_threads(threads):
            enhance_waveform(fast, clip, precision=precision)

    def products(one: Callable[[], object]) -> None:
        with with_threads(1):
            for _ in range(PRODUCTS):
                one()

    calls: dict[str, Timed] = {}
    cases: dict[str, tuple[int, str]] = {}
    for precision, kind in arithmetic_kinds().items():
        calls[precision] = partial(products, product(kind, side))
        for threads in (1, 2) if usable_cores() > 1 else (1,):
            what = f"enhance {name}, {precision}, {threads} thread{'s' * (threads > 1)}, {seconds} s of audio"
            cases[what], calls[what] = (threads, precision), partial(call, threads, precision)
    times = seconds_in_turns(calls, repeats)
    share, rows = arithmetic_floor(model, seconds, PRODUCTS * side**3), []  # of the layers in the products of a round
    for what, (threads, precision) in cases.items():
        floors = [share * t / threads for t in times[precision]]
        rows.append(_over_floor(what, times[what], floors, seconds))
    return rows


def _over_floor(what: str, times: list[float], floors: list[float], audio: float) -> dict[str, Any]:
    """A row of ``times`` beside the floor of each round; the ratio is the median over the rounds."""
    ratio = statistics.median(t / floor for t, floor in zip(times, floors, strict=True))
    return _timed(what, times, statistics.median(floors), audio, ratio)


def bench_textbook(name: str, quick: bool = False) -> Rows:
    """The whole network with the textbook's complex layers against ours in fp32 and bf16, in turns; value / reference."""
    seconds, repeats = (1, 2) if quick else (10, 7)
    model, clip = build_model(name).eval(), _clip(seconds)
    waveform = torch.from_numpy(clip)[None]

    def textbook() -> None:
        with textbook_layers(model), torch.inference_mode():
            model(waveform)

    calls: dict[str, Timed] = {"textbook": textbook}
    for precision in arithmetic_kinds():
        calls[precision] = partial(enhance_waveform, optimised(model), clip, precision=precision)
    times = seconds_in_turns(calls, repeats)
    return [
        _timed(
            f"{name}, four calls a layer / ours in {precision}, 1 thread, {seconds} s of audio",
            times["textbook"],
            statistics.median(times[precision]),
            seconds,
            statistics.median(a / b for a, b in zip(times["textbook"], times[precision], strict=True)),
        )
        for precision in calls
        if precision != "textbook"
    ]


def bench_peers(onnx: Sequence[str], quick: bool = False) -> tuple[Rows, list[dict[str, str]]]:
    """Other projects' networks against distil_dccrn on the same clip, in turns; and those that cannot run here.

    Args:
        onnx: ``name=file@milliseconds`` of streaming graphs; the reference is the audio that a call covers.
    """
    seconds, repeats = (1, 2) if quick else (10, 5)
    ours, clip = optimised(build_model("distil_dccrn_mini" if quick else "distil_dccrn").eval()), _clip(seconds)
    peers, skipped = peer_calls(clip)
    calls: dict[str, Timed] = {"ours": partial(enhance_waveform, ours, clip)} | peers
    times = seconds_in_turns(calls, repeats)
    rows = [
        _timed(f"{name}, 1 thread, {seconds} s of audio, reference distil_dccrn", times[name], middle, seconds)
        for middle in [statistics.median(times["ours"])]
        for name in peers
    ]
    for name, file, milliseconds in map(parse_onnx, onnx):
        try:
            call = onnx_call(file)
        except ConfigError as error:
            skipped.append({"measurement": name, "reason": str(error)})
            continue
        values = [1e3 * t for t in seconds_in_turns({name: call}, 40 if quick else 400)[name]]
        middle, low, high = quartiles(values)
        row = _row(f"{name}, ONNX, 1 thread, one call of {milliseconds:g} ms", middle, "ms", milliseconds)
        rows.append(row | {"spread": f"{low:.3g} to {high:.3g}"})
    return rows, skipped


def peak_memory() -> float:
    """Most memory in MiB that this process has held since it began.

    On Linux ``ru_maxrss`` would not do: a new process starts it with the peak of the one that called it.
    """
    status = Path("/proc/self/status")
    if status.is_file():
        return int(status.read_text().partition("VmHWM:")[2].split()[0]) / 2**10
    import resource

    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak / (2**20 if sys.platform == "darwin" else 2**10)


_CHILD = """
import sys, torch
from dccrn_lib.experiments.speed import peak_memory
from dccrn_lib.enhancement.files import enhance_file
from dccrn_lib.networks.presets import build_model
torch.set_num_threads(1)
enhance_file(sys.argv[1], sys.argv[2], model=build_model(sys.argv[3]).eval())
print(peak_memory())
"""


def bench_memory(name: str, quick: bool = False) -> Rows:
    """Peak memory of enhancing files of several lengths, each in its own process, against the shortest that streams."""
    if find_spec("resource") is None:
        raise ConfigError("peak memory needs the module resource, which Windows lacks")
    lengths = (1, 6, 60) if quick else (10, 60, 300)  # s
    if not can_stream(build_model(name)):
        lengths = tuple(n for n in lengths if n <= LIMIT_SECONDS)
    peaks = {}
    with tempfile.TemporaryDirectory() as folder:
        source, destination = Path(folder) / "noisy.wav", Path(folder) / "enhanced.wav"
        for length in lengths:
            generator = np.random.default_rng(0)
            with soundfile.SoundFile(source, "w", SAMPLE_RATE, 1) as file:
                for _ in range(length):
                    file.write(0.1 * generator.standard_normal(SAMPLE_RATE))
            command = child_command(_CHILD, str(source), str(destination), name)
            done = subprocess.run(command, capture_output=True, text=True, env=child_environment(OMP_NUM_THREADS="1"))
            if done.returncode:
                said = done.stderr.strip().splitlines() or [f"exit code {done.returncode}; a lack of memory?"]
                raise ConfigError(f"enhancing {length} s failed: {said[-1]}")
            peaks[length] = float(done.stdout)
            destination.unlink()
    reference = peaks[lengths[1]]
    return [
        _row(f"peak memory of enhancing {length} s, reference {lengths[1]} s, {name}", peak, "MiB", reference)
        for length, peak in peaks.items()
    ]


def bench_training(quick: bool = False) -> Rows:
    """Audio that a training step takes in a second, each system in every precision; the ratio is that to its floor."""
    size, batch = ("smoke", 2) if quick else ("full", 4)
    shared = recipe({"speech": "", "noise": "", "rir": ""}, "", size, device="cpu")
    shared = replace(shared, mix=replace(shared.mix, segment_seconds=0.5 if quick else 1.0))
    precisions = list(arithmetic_kinds())
    sized = " (miniature)" if quick else ""
    record = measure_training(shared, size, [batch], precisions, progress=False)
    return [
        _row(
            f"training {row['system']}{sized}, {row['precision']}, 1 thread, batch {row['batch']}, floor = 1",
            row["audio_seconds_per_second"],
            "s of audio/s",
            row["audio_seconds_per_second"] * row["over_floor"],
            row["over_floor"],
        )
        for row in record["rows"]
    ]


def bench_data(quick: bool = False) -> Rows:
    """Mixtures per second of a generated corpus, planned and rendered; the reference is what the student's step takes."""
    if find_spec("espeakng_loader") is None:
        raise ConfigError(f"a generated corpus needs the extra speech: {install_command('speech')}")
    record = measure_data(dict.fromkeys(("speech", "noise", "rir"), ""), "smoke" if quick else "cpu", (0,), "cpu", 1, 4)
    [student, _teacher] = [key for key in record["rows"][0] if key.startswith("a step of")]
    return [
        _row(f"data: mixtures {row['mixtures']}", rate, "1/s", rate / row[student], row[student])
        for row in record["rows"]
        for rate in [row["per second"]]
    ]


def _row(
    what: str, value: float, unit: str, reference: float | None = None, ratio: float | None = None
) -> dict[str, Any]:
    if ratio is None and reference is not None:
        ratio = value / reference
    return {"measurement": what, "value": value, "unit": unit, "spread": None, "reference": reference, "ratio": ratio}


def _timed(what: str, times: list[float], reference: float, audio: float, ratio: float | None = None) -> dict[str, Any]:
    """A row in s of computing, with its quartiles, and as a share of the ``audio`` seconds (real-time factor)."""
    middle, low, high = quartiles(times)
    row = _row(what, middle, "s", reference, ratio)
    return row | {"spread": f"{low:.3g} to {high:.3g}", "real_time_factor": middle / audio}


def run_benchmarks(
    json_path: PathLike | None = None,
    quick: bool = False,
    progress: bool = False,
    peers: bool = False,
    onnx: Sequence[str] = (),
) -> dict[str, Any]:
    """Measure everything, in about ten minutes.

    Args:
        json_path: result file to write, ending in .json; None writes nothing.
        quick: tiny sizes, seconds in all: shows that it runs, its numbers mean nothing.
        progress: show a progress bar on stderr.
        peers: also other projects' networks, where they are installed (:mod:`~dccrn_lib.experiments.peers`).
        onnx: streaming graphs of others, ``name=file@milliseconds of audio per call``.

    Returns:
        The record: ``rows`` of {measurement, value, unit, spread (quartiles), reference, ratio, real_time_factor},
        ``skipped`` with reasons, ``load_average`` before and after.

    Raises:
        ConfigError: ``json_path`` does not end in .json, or an entry of ``onnx`` in another form or without its file.
    """
    path = None if json_path is None else Path(json_path)
    if path is not None and path.suffix != ".json":
        raise ConfigError(f"{path}: the result file must end in .json")
    for text in onnx:
        _, file, _ = parse_onnx(text)
        if not file.is_file():
            raise ConfigError(f"{file}: no such file")
    rows, skipped, load = [], [], [_load()]
    steps = _steps(quick)
    if peers or onnx:

        def others() -> Rows:
            found, missing = bench_peers(onnx, quick)
            skipped.extend(missing)
            return found

        steps.append(("peers", others))
    with with_threads():
        for what, step in _with_progress(steps, progress):
            try:
                rows += step()
            except ConfigError as error:
                skipped.append({"measurement": what, "reason": str(error)})
    record = {
        "config": {"quick": quick, "threads": 1, "models": _names(quick), "weights": "random"},
        "seed": 0,
        "data_hash": "",
        "columns": ["measurement", "value", "unit", "spread", "reference", "ratio", "real_time_factor"],
        "rows": rows,
        "skipped": skipped,
        "load_average": [*load, _load()],
    }
    if path is not None:
        save_result(path.stem, record, path.parent)
    return record


def _names(quick: bool) -> list[str]:
    return ["distil_dccrn_mini"] if quick else ["distil_dccrn", "dccrn_e", "dccrn_cl", "uformer"]


def _steps(quick: bool) -> list[tuple[str, Callable[[], Rows]]]:
    """What is measured, in this order: a name for the progress bar, and a function that gives the rows."""
    steps: list[tuple[str, Callable[[], Rows]]] = [
        ("machine", partial(bench_machine, quick)),
        ("layers", partial(bench_layers, quick)),
    ]
    for name in _names(quick):
        steps.append((f"offline {name}", partial(bench_offline, name, quick)))
    whole = "distil_dccrn_mini" if quick else "dccrn_cl"
    steps.append((f"textbook {whole}", partial(bench_textbook, whole, quick)))
    for name in _names(quick)[:2]:
        steps.append((f"streaming {name}", partial(bench_streaming, name, quick)))
    steps += [("training", partial(bench_training, quick)), ("data", partial(bench_data, quick))]
    for name in _names(quick)[:1] + _names(quick)[3:]:
        steps.append((f"memory {name}", partial(bench_memory, name, quick)))
    return steps


def _load() -> float | None:
    """Mean number of processes that wanted a core over the last minute; None where the system does not say."""
    return round(os.getloadavg()[0], 2) if hasattr(os, "getloadavg") else None


def _with_progress(steps: list, progress: bool) -> Iterator[tuple[str, Callable[[], Rows]]]:
    with tqdm(steps, disable=not progress, unit="step") as bar:
        for what, step in bar:
            bar.set_description(what)
            yield what, step
