"""How long one hop of a stream takes, and how long it must take at least on this machine.

Everything is pushed in turns of some hundred hops each, so that a busy machine disturbs all alike; p50 and p99 over all
hops. In shorter turns no system would find its weights in the caches, as a stream that runs alone does.

    python -m dccrn_lib bench stream --json results/streaming_speed.json
"""

from __future__ import annotations

import os
import tempfile
import time
from collections.abc import Callable
from importlib.util import find_spec
from pathlib import Path
from typing import Any, cast

import numpy as np
import torch
from torch import Tensor

from dccrn_lib.audio.rate import SAMPLE_RATE
from dccrn_lib.enhancement.frame_step import FrameStep, GatedStep, RowProduct
from dccrn_lib.enhancement.onnx_export import export_onnx
from dccrn_lib.enhancement.onnx_runtime import OnnxEnhancer
from dccrn_lib.enhancement.optimised import core_of, optimised
from dccrn_lib.enhancement.stream import StreamingEnhancer
from dccrn_lib.experiments.machine_limits import arithmetic_limits, best_seconds
from dccrn_lib.networks.cost import count_macs
from dccrn_lib.networks.dccrn import DCCRN
from dccrn_lib.networks.presets import build_model
from dccrn_lib.results.records import save_result
from dccrn_lib.runtime.devices import with_threads
from dccrn_lib.runtime.errors import ConfigError
from dccrn_lib.runtime.paths import PathLike

Rows = list[dict[str, Any]]
TURN = 400  # hops in a row of each system: in shorter turns each would find the caches full of the others' weights
COLUMNS = ["measurement", "value", "unit", "reference", "ratio"]


def hop_matrices(step: FrameStep) -> list[tuple[int, Tensor]]:
    """The matrix products of one hop of one stream: how many rows meet which matrix (inputs, outputs)."""
    products: list[tuple[int, Tensor]] = []
    for layer in cast("list[RowProduct]", [*step.encoder, *step.decoder]):
        products.append((layer.index.numel() * layer.chan // layer.weight.shape[0], layer.weight))
    rows = 2 if step.config.lstm == "complex" else 1
    products += [(rows, gate.weight) for gate in step.modules() if isinstance(gate, GatedStep)]
    products += [(1, b) for name, b in step.bottleneck.named_buffers(recurse=False) if name.startswith("weight")]
    return products


def hop_floors(model: DCCRN, quick: bool = False) -> dict[str, float]:
    """Times in ms below which one hop cannot come on one thread, each measured here.

    ``products``: the matrix products of the step, of exactly these sizes, back to back and with nothing between them.
    ``arithmetic``: the network's multiply-adds at the rate of a large matrix product, which needs no zeros in the place
    of a tap and has every number in the nearest cache.
    ``weights``: reading all matrices once, as fast as an array of their size can be summed.
    """
    products = hop_matrices(FrameStep(core_of(model)))
    calls = [
        (torch.randn(rows, weight.shape[0]), weight, torch.empty(rows, weight.shape[1])) for rows, weight in products
    ]
    weights = torch.randn(sum(weight.numel() for _, weight in products))

    @torch.inference_mode()
    def multiply() -> None:
        for x, weight, out in calls:
            torch.mm(x, weight, out=out)

    repeats = 5 if quick else 300
    hop = model.config.stft.hop_length / SAMPLE_RATE
    macs = cast(int, count_macs(model, hop))
    return {
        "products": 1e3 * best_seconds(multiply, repeats),
        "arithmetic": 1e3 * macs / arithmetic_limits(quick)["fp32"],
        "weights": 1e3 * best_seconds(weights.sum, repeats),
    }


def _pushers(model: DCCRN, folder: Path) -> dict[str, Callable[[Any], Any]]:
    """What takes a hop, by name; the graphs are read from ``folder`` when they are made."""
    fast = optimised(model)
    streams: dict[str, Any] = {"PyTorch": StreamingEnhancer(cast(Any, fast))}
    streams["PyTorch, level control"] = StreamingEnhancer(cast(Any, fast), level_control=True)
    if find_spec("onnxruntime") and find_spec("onnx"):
        path = export_onnx(fast, folder / "float32.onnx")
        streams["ONNX"] = OnnxEnhancer(path, threads=1)
        streams["ONNX, level control"] = OnnxEnhancer(path, threads=1, level_control=True)
        streams["ONNX int8"] = OnnxEnhancer(export_onnx(fast, folder / "int8.onnx", precision="int8"), threads=1)
    return {name: stream.push for name, stream in streams.items()}


def hop_times(pushers: dict[str, Callable[[Any], Any]], hop: int, turns: int, length: int) -> dict[str, np.ndarray]:
    """Milliseconds of every hop of noise, in turns of ``length`` hops; the first turn only warms up."""
    noise = 0.1 * np.random.default_rng(0).standard_normal((turns + 1, length, hop)).astype(np.float32)
    times: dict[str, list[float]] = {name: [] for name in pushers}
    for turn in noise:
        for name, push in pushers.items():
            for samples in turn:
                start = time.perf_counter()
                push(samples)
                times[name].append(1e3 * (time.perf_counter() - start))
    return {name: np.array(values[length:]) for name, values in times.items()}


def bench_streaming(name: str, quick: bool = False) -> Rows:
    """One hop at a time on one thread against the time that a hop lasts (6.25 ms), and against what it takes at least."""
    model = cast(DCCRN, build_model(name).eval())
    hop = model.config.stft.hop_length
    budget = 1e3 * hop / SAMPLE_RATE  # ms
    with tempfile.TemporaryDirectory() as folder:
        times = hop_times(_pushers(model, Path(folder)), hop, 2 if quick else 4, 20 if quick else TURN)
    floors = hop_floors(model, quick)
    rows = []
    for kind, values in times.items():
        for percent in (50, 99):
            what = f"streaming {name}, {kind}, 1 thread, p{percent} per hop"
            rows.append(_row(what, float(np.percentile(values, percent)), budget))
    for kind, what in (
        ("products", "its matrix products alone, back to back"),
        ("arithmetic", "its multiply-adds at the rate of a large product"),
        ("weights", "its matrices read once"),
    ):
        rows.append(_row(f"floor of a hop of {name}, 1 thread: {what}", floors[kind], budget))
    for kind in ("PyTorch", "ONNX"):
        if kind in times:
            what = f"a hop of {name}, {kind}, 1 thread, p50 against its matrix products alone in PyTorch"
            rows.append(_row(what, float(np.median(times[kind])), floors["products"]))
    return rows


def _row(what: str, value: float, reference: float) -> dict[str, Any]:
    return {"measurement": what, "value": value, "unit": "ms", "reference": reference, "ratio": value / reference}


def measure_streaming(json_path: PathLike | None = None, quick: bool = False) -> dict[str, Any]:
    """The student and DCCRN-E, hop by hop, in half a minute on an idle machine.

    Args:
        json_path: result file to write, ending in .json; None writes nothing.
        quick: tiny sizes, seconds in all: shows that it runs, its numbers mean nothing.

    Returns:
        The record: ``rows`` of {measurement, value in ms, unit, reference in ms, ratio = value / reference} and
        ``load_average`` before and after.

    Raises:
        ConfigError: ``json_path`` does not end in .json.
    """
    path = None if json_path is None else Path(json_path)
    if path is not None and path.suffix != ".json":
        raise ConfigError(f"{path}: the result file must end in .json")
    names = ["distil_dccrn_mini"] if quick else ["distil_dccrn", "dccrn_e"]
    load = [_load()]
    with with_threads(1):
        rows = [row for name in names for row in bench_streaming(name, quick)]
    record = {
        "config": {"quick": quick, "threads": 1, "models": names, "weights": "random"},
        "seed": 0,
        "data_hash": "",
        "columns": COLUMNS,
        "rows": rows,
        "load_average": [*load, _load()],
    }
    if path is not None:
        save_result(path.stem, record, path.parent)
    return record


def _load() -> float | None:
    """Mean number of processes that wanted a core over the last minute; None where the system does not say."""
    return round(os.getloadavg()[0], 2) if hasattr(os, "getloadavg") else None
