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
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from importlib.util import find_spec
from pathlib import Path
from typing import Any, cast

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from dccrn_lib.enhancement.onnx_export import export_onnx
from dccrn_lib.enhancement.onnx_runtime import OnnxEnhancer
from dccrn_lib.enhancement.stream import SAMPLE_RATE, StreamingEnhancer
from dccrn_lib.networks.complex_layers import ComplexConv2d, ComplexLSTM
from dccrn_lib.networks.dccrn import DCCRN
from dccrn_lib.networks.presets import build_model
from dccrn_lib.results.records import save_result
from dccrn_lib.runtime.errors import ConfigError

Rows = list[dict[str, Any]]


@contextmanager
def one_thread() -> Iterator[None]:
    """torch on a single thread, as before afterwards."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(threads)


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


def four_call_convolution(layer: ComplexConv2d, x: Tensor) -> Tensor:
    """The textbook's complex convolution: four real ones; equal to ``layer(x)``.

    >>> layer, x = ComplexConv2d(4, 6, (5, 2), (2, 1), (2, 0), causal_frames=1), torch.randn(1, 4, 8, 5)
    >>> torch.allclose(four_call_convolution(layer, x), layer(x), atol=1e-5)
    True
    """
    real, imag = F.pad(x, (layer.causal_frames, 0)).chunk(2, dim=1)

    def convolve(part: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
        return F.conv2d(part, weight, bias, layer.stride, layer.padding, layer.dilation)

    real_by_real = convolve(real, layer.weight_real, layer.bias_real)
    imag_by_imag = convolve(imag, layer.weight_imag, layer.bias_imag)
    imag_by_real = convolve(imag, layer.weight_real, layer.bias_real)
    real_by_imag = convolve(real, layer.weight_imag, layer.bias_imag)
    return torch.cat([real_by_real - imag_by_imag, imag_by_real + real_by_imag], dim=1)


def four_pass_lstm(layer: ComplexLSTM, real: Tensor, imag: Tensor) -> tuple[Tensor, Tensor]:
    """The textbook's complex LSTM: four real passes; equal to ``layer(real, imag)``."""
    rr, ri = layer.lstm_real(real)[0], layer.lstm_real(imag)[0]
    ir, ii = layer.lstm_imag(real)[0], layer.lstm_imag(imag)[0]
    return rr - ii, ri + ir


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


def bench_streaming(name: str, quick: bool = False) -> Rows:
    """One hop at a time on one thread, PyTorch and ONNX, against the time a hop lasts (6.25 ms)."""
    hops = 40 if quick else 1600
    model = build_model(name).eval()
    hop = model.config.stft.hop_length
    budget = 1e3 * hop / SAMPLE_RATE  # ms
    samples = 0.1 * np.random.default_rng(0).standard_normal((hops + 20, hop)).astype(np.float32)
    pushers: dict[str, Callable[[Any], Any]] = {"PyTorch": StreamingEnhancer(cast(DCCRN, model)).push}
    if find_spec("onnxruntime") and find_spec("onnx"):
        with tempfile.TemporaryDirectory() as folder:
            pushers["ONNX"] = OnnxEnhancer(export_onnx(model, Path(folder) / "model.onnx"), threads=1).push
    rows = []
    for kind, push in pushers.items():
        times = []
        for piece in samples:
            start = time.perf_counter()
            push(piece)
            times.append(1e3 * (time.perf_counter() - start))
        for percent in (50, 99):
            value = float(np.percentile(times[20:], percent))
            what = f"streaming {name}, {kind}, 1 thread, p{percent} per hop"
            rows.append(_row(what, value, "ms", budget, value / budget))
    return rows


def bench_offline(name: str, quick: bool = False) -> Rows:
    """The whole-signal model on one thread against the signal's duration (real-time factor)."""
    seconds, repeats = (1, 2) if quick else (10, 7)
    model = build_model(name).eval()
    x = 0.1 * torch.randn(1, seconds * SAMPLE_RATE, generator=torch.Generator().manual_seed(0))
    times = []
    with torch.inference_mode():
        for _ in range(repeats + 1):
            start = time.perf_counter()
            model(x)
            times.append(time.perf_counter() - start)
    value = statistics.median(times[1:])
    return [_row(f"offline {name}, 1 thread, {seconds} s of audio", value, "s", float(seconds), value / seconds)]


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
    """Peak memory of enhancing a short and a long file, each in its own process."""
    import soundfile

    if find_spec("resource") is None:
        raise ConfigError("peak memory needs the module resource, which Windows lacks")
    minutes = (0.1, 0.3) if quick else (1, 60)
    peaks = []
    with tempfile.TemporaryDirectory() as folder:
        source, destination = Path(folder) / "noisy.wav", Path(folder) / "enhanced.wav"
        for length in minutes:
            generator = np.random.default_rng(0)
            with soundfile.SoundFile(source, "w", SAMPLE_RATE, 1) as file:
                for _ in range(round(length * 60)):
                    file.write(0.1 * generator.standard_normal(SAMPLE_RATE))
            command = [sys.executable, "-c", _CHILD, str(source), str(destination), name]
            done = subprocess.run(command, capture_output=True, text=True, env=os.environ | {"OMP_NUM_THREADS": "1"})
            if done.returncode:
                raise ConfigError(f"enhancing {length} min failed: {done.stderr.strip().splitlines()[-1]}")
            peaks.append(float(done.stdout))
            destination.unlink()
    short, long = minutes
    what = f"peak memory of enhancing {long} min, reference {short} min, {name}"
    return [_row(what, peaks[1], "MiB", peaks[0], peaks[1] / peaks[0])]


def _row(what: str, value: float, unit: str, reference: float, ratio: float) -> dict[str, Any]:
    return {"measurement": what, "value": value, "unit": unit, "reference": reference, "ratio": ratio}


def run_benchmarks(
    json_path: str | os.PathLike | None = None, quick: bool = False, progress: bool = False
) -> dict[str, Any]:
    """Measure everything, in about ten minutes (most of it the hour-long file).

    Args:
        json_path: result file to write, ending in .json; None writes nothing.
        quick: tiny sizes, seconds in all: shows that it runs, its numbers mean nothing.
        progress: show a progress bar on stderr.

    Returns:
        The record: ``rows`` of {measurement, value, unit, reference, ratio = value / reference}, ``skipped`` with
        reasons, ``load_average`` before and after.

    Raises:
        ConfigError: ``json_path`` does not end in .json.
    """
    path = None if json_path is None else Path(json_path)
    if path is not None and path.suffix != ".json":
        raise ConfigError(f"{path}: the result file must end in .json")
    names = ["distil_dccrn_mini"] if quick else ["distil_dccrn", "dccrn_e"]
    steps: list[tuple[str, Callable[[], Rows]]] = [("layers", lambda: bench_layers(quick))]
    for name in names:
        steps.append((f"streaming {name}", lambda name=name: bench_streaming(name, quick)))
        steps.append((f"offline {name}", lambda name=name: bench_offline(name, quick)))
    steps.append((f"memory {names[0]}", lambda: bench_memory(names[0], quick)))
    rows, skipped, load = [], [], [_load()]
    with one_thread():
        for what, step in _with_progress(steps, progress):
            try:
                rows += step()
            except ConfigError as error:
                skipped.append({"measurement": what, "reason": str(error)})
    record = {
        "config": {"quick": quick, "threads": 1, "models": names, "weights": "random"},
        "seed": 0,
        "data_hash": "",
        "rows": rows,
        "skipped": skipped,
        "load_average": [*load, _load()],
    }
    if path is not None:
        save_result(path.stem, record, path.parent)
    return record


def _load() -> float | None:
    """Mean number of processes that wanted a core over the last minute; None where the system does not say."""
    return round(os.getloadavg()[0], 2) if hasattr(os, "getloadavg") else None


def _with_progress(steps: list, progress: bool) -> Iterator[tuple[str, Callable[[], Rows]]]:
    from tqdm import tqdm

    with tqdm(steps, disable=not progress, unit="step") as bar:
        for what, step in bar:
            bar.set_description(what)
            yield what, step
