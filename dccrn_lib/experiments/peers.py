"""Other projects' enhancers, timed on the same clip in the same turns as ours: those that the user has installed.

    pip install asteroid denoiser            # then: python -m dccrn_lib bench --peers
    python -m dccrn_lib bench --peers --onnx gtcrn=gtcrn_stream.onnx@16

Nothing is downloaded: networks come with random weights where the package has none on disk, which changes no time.
A package that is not there, or does not import beside this torch, is listed with the reason. An ONNX file of a streaming
network (GTCRN, DTLN ...) is called with inputs of the shapes that it declares; the number after the @ is how many
milliseconds of audio one call covers.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from importlib import import_module
from importlib.metadata import PackageNotFoundError, version
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn

from dccrn_lib.audio.rate import SAMPLE_RATE
from dccrn_lib.runtime.errors import ConfigError
from dccrn_lib.runtime.paths import install_command
from dccrn_lib.runtime.settings import shown

Timed = Callable[[], Any]


def _whole(model: nn.Module, samples: torch.Tensor) -> Timed:
    """A call of a network on a whole clip."""
    model.eval()

    def call() -> torch.Tensor:
        with torch.inference_mode():
            return model(samples)

    return call


def _asteroid(architecture: str, clip: np.ndarray) -> Timed:
    return _whole(import_module("asteroid.models").DCCRNet(architecture), torch.from_numpy(clip)[None])


def _denoiser(hidden: int, clip: np.ndarray) -> Timed:
    model = import_module("denoiser.demucs").Demucs(hidden=hidden, sample_rate=SAMPLE_RATE)
    return _whole(model, torch.from_numpy(clip)[None, None])


def _deepfilternet(clip: np.ndarray) -> Timed:
    folder = Path(import_module("df.utils").get_cache_dir()) / "DeepFilterNet3"
    if not folder.is_dir():
        raise ConfigError(
            f"its weights are not at {folder}, and nothing is downloaded here; run its own command deepFilter once"
        )
    enhance = import_module("df.enhance")
    model, state, _ = enhance.init_df(str(folder), log_level="none")
    # it works at 48 kHz
    samples = torch.from_numpy(np.interp(np.arange(3 * clip.size) / 3, np.arange(clip.size), clip).astype(np.float32))
    return lambda: enhance.enhance(model, state, samples[None])


#: Name in the table -> (package of the registry, what builds a call from a clip of float32 (sample,)).
PEERS: dict[str, tuple[str, Callable[[np.ndarray], Timed]]] = {
    "asteroid DCCRNet DCCRN-CL": ("asteroid", lambda clip: _asteroid("DCCRN-CL", clip)),
    "asteroid DCCRNet mini": ("asteroid", lambda clip: _asteroid("mini", clip)),
    "denoiser dns48": ("denoiser", lambda clip: _denoiser(48, clip)),
    "denoiser dns64": ("denoiser", lambda clip: _denoiser(64, clip)),
    "DeepFilterNet3 (48 kHz)": ("deepfilternet", _deepfilternet),
}


def parse_onnx(text: str) -> tuple[str, Path, float]:
    """From ``name=file@milliseconds``: what one call of a streaming graph covers.

    >>> parse_onnx("gtcrn=models/gtcrn_stream.onnx@16")
    ('gtcrn', PosixPath('models/gtcrn_stream.onnx'), 16.0)

    Raises:
        ConfigError: another form, no such file is found out later.
    """
    match = re.fullmatch(r"([^=]+)=(.+)@([0-9.]+)", text.strip())
    try:
        milliseconds = float(match[3]) if match else 0.0
    except ValueError:
        milliseconds = 0.0
    if match is None or not 0 < milliseconds <= 60000:
        raise ConfigError(f"--onnx takes NAME=FILE@MILLISECONDS, such as gtcrn=gtcrn_stream.onnx@16, not {shown(text)}")
    return match[1], Path(match[2]), milliseconds


def onnx_session(file: Path) -> Any:
    """A session of ONNX Runtime on one thread of the CPU.

    Raises:
        ConfigError: onnxruntime is missing, or it does not read the file.
    """
    if find_spec("onnxruntime") is None:
        raise ConfigError(f"an ONNX file needs onnxruntime; install the extra: {install_command('export')}")
    import onnxruntime

    if not file.is_file():
        raise ConfigError(f"{file}: no such file")
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    try:
        return onnxruntime.InferenceSession(str(file), options, providers=["CPUExecutionProvider"])
    except Exception as error:  # ONNX Runtime has no common base class for a bad file
        raise ConfigError(f"{file}: not a model that ONNX Runtime reads ({str(error).splitlines()[0]})") from error


def onnx_call(file: Path) -> Timed:
    """One call of an ONNX graph on one thread; open sizes count 1, floats are small noise, whole numbers 0.

    Raises:
        ConfigError: onnxruntime is missing, or it does not read the file or run it.
    """
    session = onnx_session(file)
    generator = np.random.default_rng(0)
    feeds: dict[str, np.ndarray] = {}
    for value in session.get_inputs():
        shape = [size if isinstance(size, int) and size > 0 else 1 for size in value.shape]
        if value.type not in ("tensor(float)", "tensor(int64)"):
            raise ConfigError(
                f"{file}: input {value.name} is a {value.type}; only float and int64 inputs are filled in"
            )
        noise = 0.01 * generator.standard_normal(shape)
        feeds[value.name] = noise.astype(np.float32) if "float" in value.type else np.zeros(shape, np.int64)

    def call() -> Any:
        return session.run(None, feeds)

    try:
        call()
    except Exception as error:
        reason = str(error).splitlines()[0]
        raise ConfigError(f"{file}: does not run with the shapes it declares, open ones as 1 ({reason})") from error
    return call


def peer_calls(clip: np.ndarray) -> tuple[dict[str, Timed], list[dict[str, str]]]:
    """What of :data:`PEERS` can run here: name -> call; and what cannot, with its reason."""
    calls: dict[str, Timed] = {}
    skipped: list[dict[str, str]] = []
    for name, (package, build) in PEERS.items():
        try:
            found = version(package)
            call = build(clip)
            call()
        except PackageNotFoundError:
            skipped.append({"measurement": name, "reason": f"not installed (pip install {package})"})
        # foreign code: what it raises beside another torch is its own, and the table says so
        except Exception as error:
            reason = f"{package} {found} does not run here: {type(error).__name__}: {str(error).splitlines()[0]}"
            skipped.append({"measurement": name, "reason": reason})
        else:
            calls[f"{name}, {package} {found}"] = call
    return calls, skipped
