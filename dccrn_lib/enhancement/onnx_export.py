"""ONNX: the network without torch, for one frame at a time or for whole spectra.

The STFT stays outside, in a few lines of any language (NumPy in onnx_runtime.py): spectrum in, spectrum out.

    kind "streaming"   spectrum (1, 2, freq, 1), active (1,), state.* -> enhanced (1, 2, freq, 1), new_state.*
    kind "offline"     spectrum (1, 2, freq, frame), any number of frames -> enhanced, same shape

Axis 1 is (real, imaginary). States start at zero and are fed back; ``active`` is 1 for a frame of the signal and
0 for the L frames after it that drain the decoder's look-ahead. The streaming file is frame_step.py, the offline one
stream_step.py: one arithmetic, from the same folded weights. The file's metadata hold what a caller needs:
:data:`METADATA`.
"""

from __future__ import annotations

import copy
import json
import math
import statistics
import tempfile
import time
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from dccrn_lib.audio.rate import SAMPLE_RATE
from dccrn_lib.enhancement.frame_step import FrameStep
from dccrn_lib.enhancement.onnx_runtime import OnnxEnhancer
from dccrn_lib.enhancement.optimised import core_of
from dccrn_lib.enhancement.stream import latency_samples
from dccrn_lib.enhancement.stream_step import StreamingCore, can_stream
from dccrn_lib.networks.dccrn import DCCRN
from dccrn_lib.networks.presets import config_to_dict
from dccrn_lib.runtime.errors import ConfigError
from dccrn_lib.runtime.files import atomic_path
from dccrn_lib.runtime.paths import PathLike
from dccrn_lib.runtime.version import __version__

OPSET = 17
PRECISIONS = ("float32", "float16", "int8")  # of the weights

#: Metadata keys of an exported file; all values are strings.
METADATA = {
    "sample_rate": "Hz",
    "kind": "streaming or offline",
    "window_length": "samples",
    "hop_length": "samples",
    "fft_size": "samples; frames are zero-padded on the right to it",
    "window": "hann or sqrt_hann, periodic, for analysis and synthesis",
    "lookahead_frames": "inactive frames that drain a streaming model",
    "latency_samples": "delay of a streamed output",
    "config": "JSON of the model's configuration",
    "precision": "float32, float16 or int8",
    "dccrn_lib": "version that wrote the file",
}


class _StreamingStep(nn.Module):
    """FrameStep with the spectrum as (1, 2, freq, 1) and its states as positional tensors."""

    def __init__(self, step: FrameStep) -> None:
        super().__init__()
        self.step, self.names = step, list(step.initial_states())

    def forward(self, spectrum: Tensor, active: Tensor, *states: Tensor) -> tuple[Tensor, ...]:
        rows = spectrum.squeeze(3).transpose(1, 2)  # (1, freq, 2)
        enhanced, new = self.step(rows, dict(zip(self.names, states, strict=True)), active)
        return enhanced.transpose(1, 2).unsqueeze(3), *new.values()


class _OfflineDCCRN(nn.Module):
    """StreamingCore over a whole spectrum: L inactive frames appended, the first L answers dropped."""

    def __init__(self, core: StreamingCore) -> None:
        super().__init__()
        self.core = core

    def forward(self, spectrum: Tensor) -> Tensor:
        delay = self.core.delay
        active = F.pad(torch.ones_like(spectrum[0, 0, 0]), (0, delay))  # (frame + L,)
        enhanced, _ = self.core.stream_step(F.pad(spectrum, (0, delay)), self.core.initial_states(), active)
        return enhanced[..., delay:]


def export_onnx(model: nn.Module, path: PathLike, kind: str = "streaming", precision: str = "float32") -> Path:
    """Write a model as an ONNX file, atomically.

    Args:
        model: DCCRN; exported in eval mode, itself unchanged.
        path: file to write, ``.onnx``.
        kind: "streaming" (one frame, explicit states) or "offline" (any number of frames).
        precision: of the weights. "float32"; "float16", half the file and the same arithmetic, as they are widened when
            the file is loaded; "int8", dynamic quantisation of matrix products (all layers of a streaming file, LSTM and
            linear layers of an offline one), a quarter of the streaming file. :func:`precision_loss` says what it costs.

    Returns:
        Path of the file.

    Raises:
        ConfigError: unknown kind or precision, not a DCCRN, ``path`` does not end in .onnx, or the package onnx
            is missing.
    """
    if kind not in ("streaming", "offline"):
        raise ConfigError(f"unknown kind {kind!r}; known: streaming, offline")
    if precision not in PRECISIONS:
        raise ConfigError(f"unknown precision {precision!r}; known: {', '.join(PRECISIONS)}")
    if reason := getattr(model, "offline_reason", ""):
        raise ConfigError(
            f"{type(model).__name__} is not exported: its {reason}, and it has no streaming step; export a DCCRN or the "
            "distilled student"
        )
    if not can_stream(model):
        raise ConfigError(f"expected a DCCRN from build_model or load_model, got {type(model).__name__}")
    path = Path(path)
    if path.suffix != ".onnx":
        raise ConfigError(f"{path}: the file to write must end in .onnx")
    try:
        import onnx
    except ImportError:
        raise ConfigError("exporting needs the package onnx; install dccrn-lib[export]") from None

    network, arguments, inputs, outputs = _prepare(model, kind)
    dynamic = {"spectrum": {3: "frame"}, "enhanced": {3: "frame"}} if kind == "offline" else None
    with atomic_path(path) as temporary:
        with _quiet_exporter(), torch.no_grad():
            torch.onnx.export(
                network,
                arguments,
                str(temporary),
                input_names=inputs,
                output_names=outputs,
                dynamic_axes=dynamic,
                opset_version=OPSET,
                dynamo=False,  # the newer exporter freezes the frame axis of LSTM models
            )
        if precision == "int8":
            _quantise(temporary)
        elif precision == "float16":
            _halve(temporary)
        graph = onnx.load(str(temporary))
        onnx.helper.set_model_props(graph, _metadata(model, kind, precision))
        onnx.checker.check_model(graph)
        onnx.save(graph, str(temporary))
    return path


def _prepare(model: DCCRN, kind: str) -> tuple[nn.Module, tuple[Tensor, ...], list[str], list[str]]:
    """Module to trace, example arguments, names of inputs and outputs."""
    core = copy.deepcopy(core_of(model)).cpu()
    spectrum = torch.randn(1, 2, model.stft.frequencies, 1 if kind == "streaming" else 20).float()
    if kind == "offline":
        return _OfflineDCCRN(core), (spectrum,), ["spectrum"], ["enhanced"]
    step = FrameStep(core)
    states = step.initial_states()
    inputs = ["spectrum", "active", *(f"state.{name}" for name in states)]
    outputs = ["enhanced", *(f"new_state.{name}" for name in states)]
    return _StreamingStep(step), (spectrum, torch.ones(1).float(), *states.values()), inputs, outputs


def _metadata(model: DCCRN, kind: str, precision: str) -> dict[str, str]:
    stft = model.config.stft
    values = {
        "sample_rate": SAMPLE_RATE,
        "kind": kind,
        "window_length": stft.window_length,
        "hop_length": stft.hop_length,
        "fft_size": stft.fft_size,
        "window": stft.window,
        "lookahead_frames": model.config.lookahead_frames,
        "latency_samples": latency_samples(model.config),
        "config": json.dumps(config_to_dict(model.config)),
        "precision": precision,
        "dccrn_lib": __version__,
    }
    return {key: str(values[key]) for key in METADATA}


@contextmanager
def _quiet_exporter() -> Iterator[None]:
    """Silence what torch's tracing exporter says about itself; every other warning passes."""
    with warnings.catch_warnings():
        # public in its documentation, not in its annotations
        warnings.filterwarnings("ignore", category=torch.jit.TracerWarning)  # frame == 1 is decided when traced  # pyright: ignore[reportPrivateImportUsage]
        warnings.filterwarnings("ignore", message="Constant folding - Only steps=1")
        warnings.filterwarnings("ignore", message="Exporting a model to ONNX with a batch_size other than 1")
        warnings.filterwarnings("ignore", category=DeprecationWarning, module=r"torch\.onnx")
        warnings.filterwarnings("ignore", message="The feature will be removed", category=DeprecationWarning)
        warnings.filterwarnings("ignore", message="You are using the legacy TorchScript-based ONNX export")
        yield


def _quantise(path: Path) -> None:
    """Replace the weights of LSTM and linear layers by 8-bit integers with one scale a tensor, in place."""
    from onnxruntime.quantization import QuantType, quantize_dynamic
    from onnxruntime.quantization.shape_inference import quant_pre_process

    quant_pre_process(str(path), str(path), skip_symbolic_shape=True)
    quantize_dynamic(str(path), str(path), weight_type=QuantType.QInt8, op_types_to_quantize=["MatMul", "Gemm", "LSTM"])


def _halve(path: Path) -> None:
    """Store matrices in 16 bits, each behind a cast that the runtime carries out when it loads the file, in place."""
    import onnx

    model = onnx.load(str(path))
    casts = []
    for weight in model.graph.initializer:
        if weight.data_type == onnx.TensorProto.FLOAT and len(weight.dims) > 1:
            name, values = weight.name, onnx.numpy_helper.to_array(weight)
            weight.CopyFrom(onnx.numpy_helper.from_array(values.astype(np.float16), f"{name}_half"))
            casts.append(onnx.helper.make_node("Cast", [f"{name}_half"], [name], to=onnx.TensorProto.FLOAT))
    nodes = [*casts, *model.graph.node]
    del model.graph.node[:]
    model.graph.node.extend(nodes)
    onnx.save(model, str(path))


def precision_loss(
    model: DCCRN, samples: np.ndarray, precision: str = "int8", kind: str = "streaming"
) -> dict[str, float]:
    """What a smaller precision costs: both files are exported, run and compared.

    Args:
        model: DCCRN.
        samples: signal to compare on, float (sample,) at 16 kHz; use real noisy speech.
        precision, kind: as in :func:`export_onnx`.

    Returns:
        ``snr_db`` of the reduced output against the float32 one, ``size_ratio`` and ``time_ratio`` to float32.
    """
    runners, sizes, ratios = [], [], []
    with tempfile.TemporaryDirectory() as folder:
        for name in ("float32", precision):
            path = export_onnx(model, Path(folder) / f"{name}.onnx", kind, name)
            runners.append(OnnxEnhancer(path))
            sizes.append(path.stat().st_size)
    exact, reduced = (runner.enhance(samples) for runner in runners)  # the warm-up, too
    for _ in range(3):  # in turns, so that a busy machine disturbs both
        times = []
        for runner in runners:
            start = time.perf_counter()
            runner.enhance(samples)
            times.append(time.perf_counter() - start)
        ratios.append(times[1] / times[0])
    noise = float(np.mean((reduced - exact) ** 2))
    snr_db = 10.0 * math.log10(float(np.mean(exact**2)) / noise) if noise else math.inf
    return {"snr_db": snr_db, "size_ratio": sizes[1] / sizes[0], "time_ratio": statistics.median(ratios)}
