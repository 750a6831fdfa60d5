"""Odd signals and odd ways of computing: everything stays finite, and what should be equal is equal within a bound."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from unittest import mock

import numpy as np

from tests.soak.place import RATE, Place, sound
from tests.soak.rows import Row

#: Name -> a signal of so many samples.
SIGNALS = {
    "silence": lambda n, random: np.zeros(n),
    "constant 1": lambda n, random: np.ones(n),
    "constant -0.1": lambda n, random: np.full(n, -0.1),
    "constant 1e-30": lambda n, random: np.full(n, 1e-30),
    "denormals": lambda n, random: random.uniform(-1e-39, 1e-39, n),
    "one denormal": lambda n, random: np.eye(1, n, n // 2)[0] * 1e-45,
    "first sample": lambda n, random: np.eye(1, n, 0)[0],
    "last sample": lambda n, random: np.eye(1, n, n - 1)[0],
    "impulses": lambda n, random: (random.random(n) < 0.001) * random.choice([-1.0, 1.0], n),
    "alternating": lambda n, random: np.resize([1.0, -1.0], n),
    "square at full scale": lambda n, random: np.sign(np.sin(2 * np.pi * 100 * np.arange(n) / RATE + 0.1)),
    "white noise": lambda n, random: random.uniform(-1, 1, n),
    "noise of 120 dB over full scale": lambda n, random: random.uniform(-1e6, 1e6, n),
    "silence, then full scale": lambda n, random: np.concatenate([np.zeros(n - n // 2), random.uniform(-1, 1, n // 2)]),
    "a ramp over 200 dB": lambda n, random: random.uniform(-1, 1, n) * np.geomspace(1e-10, 1, n),
}
LENGTHS = (1, 2, 99, 100, 101, 400, 1999, RATE)


def odd_signals(place: Place) -> Row:
    """Signals of SIGNALS, short and long: finite, of the same length; silence stays silence."""
    import torch

    from dccrn_lib.enhancement.waveform import enhance_waveform

    model, row = _model(), Row("numerics", "odd signals")
    lengths = LENGTHS if place.share > 0.5 else LENGTHS[::7]
    for name, make in SIGNALS.items():
        for n in lengths:
            x = make(n, place.random(name, n)).astype(np.float32)
            results = {"enhance_waveform": enhance_waveform(model, x)}
            with torch.inference_mode():
                results["the network"] = model(torch.from_numpy(x)[None])[0].numpy()
            problems = []
            for where, y in results.items():
                if y.shape != x.shape or not np.isfinite(y).all():
                    problems.append(f"{where} gives {y.shape}, finite: {np.isfinite(y).all()}")
                elif name == "silence" and np.abs(y).max() > 1e-6:
                    problems.append(f"{where} makes a sound of {np.abs(y).max():.2g} out of silence")
            row.trial(problems, f"{name}, {n} samples")
    row.note = f"{len(SIGNALS)} signals of {lengths[0]} to {lengths[-1]:,} samples, finite and of the same length"
    return row


def levels(place: Place) -> Row:
    """A recording at any level gives what it gives at -23 dBFS, only quieter or louder."""
    from dccrn_lib import load_model
    from dccrn_lib.enhancement.waveform import enhance_waveform

    model, row, worst = load_model("distil_dccrn"), Row("numerics", "levels"), 0.0
    x = sound(1.0, place.random("levels"), speech=True).astype(np.float64)
    x /= np.sqrt(np.mean(x**2))
    usual = enhance_waveform(model, (x * 10 ** (-23 / 20)).astype(np.float32)) / 10 ** (-23 / 20)
    for db in np.linspace(-70, 0, place.count(36, 3)):
        y = enhance_waveform(model, (x * 10 ** (db / 20)).astype(np.float32)) / 10 ** (db / 20)
        error = _relative(y, usual)
        worst = max(worst, error)
        row.trial([] if error < 1e-4 else [f"differs by {error:.2g}"], f"{db:.0f} dBFS")
    row.note = f"-70 to 0 dBFS against -23 dBFS, largest difference {worst:.1e} of the signal's RMS (bound 1e-4)"
    return row


def batches(place: Place) -> Row:
    """A signal's result does not depend on what else is in the batch."""
    import torch

    model, row, worst, random = _model(), Row("numerics", "batches"), 0.0, place.random("batches")
    for _ in place.trials(40, 2):
        size, n = int(random.integers(2, 7)), int(random.integers(1, 8000))
        x = torch.from_numpy((random.standard_normal((size, n)) * 10 ** random.uniform(-4, 0, (size, 1))).astype("f4"))
        with torch.inference_mode():
            together, alone = model(x), torch.cat([model(each[None]) for each in x])
        error = max(_relative(a.numpy(), b.numpy()) for a, b in zip(together, alone, strict=True))
        worst = max(worst, error)
        row.trial([] if error < 1e-4 else [f"differs by {error:.2g}"], f"{size} x {n} samples")
    row.note = f"2 to 6 signals together against each alone, largest difference {worst:.1e} of the RMS (bound 1e-4)"
    return row


def chunks(place: Place) -> Row:
    """Streaming in random pieces, empty ones too, equals the whole signal."""
    import torch

    from dccrn_lib import StreamingEnhancer

    model, row, worst, random = _model(), Row("numerics", "streaming"), 0.0, place.random("chunks")
    for _ in place.trials(60, 2):
        n = int(random.integers(1, 12000))
        x = torch.from_numpy((random.standard_normal(n) * 0.1).astype("f4"))
        stream = StreamingEnhancer(model, block_frames=int(random.integers(1, 64)))
        with torch.inference_mode():
            whole = model(x[None])[0]
        y = torch.cat([*(stream.push(piece) for piece in _pieces(x, random)), stream.flush()])[stream.latency_samples :]
        error = float((y - whole.clamp(-1, 1)).abs().max())
        worst = max(worst, error)
        row.trial([] if error < 1e-5 else [f"differs by {error:.2g}"], f"{n} samples")
    row.note = f"random pieces of 0 to 4,000 samples, largest difference {worst:.1e} of full scale (bound 1e-5)"
    return row


def onnx(place: Place) -> Row:
    """Exported models, streaming in random pieces and offline, equal the network."""
    import torch

    from dccrn_lib.enhancement.onnx_export import export_onnx
    from dccrn_lib.enhancement.onnx_runtime import OnnxEnhancer

    model, row, worst, random = _model(), Row("numerics", "ONNX"), 0.0, place.random("onnx")
    folder = place.new("onnx")
    runners = {
        kind: OnnxEnhancer(export_onnx(model, folder / f"{kind}.onnx", kind=kind), level_control=False)
        for kind in ("streaming", "offline")
    }
    for k in place.trials(40, 2):
        n = int(random.integers(1, 6000))
        x = (random.standard_normal(n) * 0.1).astype("f4")
        with torch.inference_mode():
            whole = model(torch.from_numpy(x)[None])[0].clamp(-1, 1).numpy()
        kind = ("streaming", "offline")[k % 2]
        runner = runners[kind]
        if kind == "offline":
            y = runner.enhance(x)
        else:
            y = np.concatenate([*(runner.push(piece) for piece in _pieces(x, random)), runner.flush()])
            y = y[runner.latency_samples :]
        error = float(np.abs(y - whole).max())
        worst = max(worst, error)
        row.trial([] if error < 1e-4 else [f"differs by {error:.2g}"], f"{kind}, {n} samples")
    row.note = f"both kinds of export, largest difference {worst:.1e} of full scale (bound 1e-4)"
    return row


def precision(place: Place) -> Row:
    """float32 against float64 and bfloat16 against float32: how far apart the network's results are."""
    import copy

    import torch

    from dccrn_lib import load_model

    row, random = Row("numerics", "precision"), place.random("precision")
    model, lowest = load_model("distil_dccrn"), {"float32": np.inf, "bfloat16": np.inf}
    double = copy.deepcopy(model).double()
    for k in place.trials(30, 2):
        x = torch.from_numpy(sound(0.5, random, speech=k % 2 == 0))[None]
        with torch.inference_mode():
            single = model(x)
            with _doubles():
                exact = double(x.double())
            with torch.autocast("cpu", torch.bfloat16):
                coarse = model(x)
        found = {"float32": _snr_db(single.double(), exact), "bfloat16": _snr_db(coarse.double(), single.double())}
        problems = [] if exact.dtype == torch.float64 else [f"what should be float64 is {exact.dtype}"]
        for name, bound in (("float32", 90.0), ("bfloat16", 15.0)):
            lowest[name] = min(lowest[name], found[name])
            if not found[name] > bound:
                problems.append(f"{name} has {found[name]:.1f} dB, below {bound:.0f}")
        row.trial(problems, f"signal {k}")
    row.note = (
        f"lowest SNR of float32 to float64 {lowest['float32']:.0f} dB (bound 90), "
        f"of bfloat16 to float32 {lowest['bfloat16']:.0f} dB (bound 15)"
    )
    return row


def _model():
    import torch

    from dccrn_lib import build_model

    torch.manual_seed(0)
    return build_model("distil_dccrn_mini").eval()


def _pieces(x, random: np.random.Generator) -> Iterator:
    start = 0
    while start < len(x):
        size = int(random.choice([0, 1, int(random.integers(1, 120)), int(random.integers(1, 4000))]))
        yield x[start : start + size]
        start += size


@contextlib.contextmanager
def _doubles() -> Iterator[None]:
    """The places where the network asks for float32 give float64: then the whole of it is computed so."""
    import torch

    with mock.patch.object(torch.Tensor, "float", torch.Tensor.double):
        yield


def _relative(y: np.ndarray, reference: np.ndarray) -> float:
    """Largest difference as a fraction of the reference's RMS; of what is all but silent, the difference itself."""
    rms = float(np.sqrt(np.mean(np.square(reference, dtype=np.float64))))
    return float(np.abs(y - reference).max()) / max(rms, 1e-6)


def _snr_db(y, exact) -> float:
    return float(10 * np.log10(exact.square().sum() / (y - exact).square().sum().clamp_min(1e-300)))


CASES = {
    "odd signals": odd_signals, "levels": levels, "batches": batches, "streaming": chunks, "ONNX": onnx,
    "precision": precision,
}  # fmt: skip
