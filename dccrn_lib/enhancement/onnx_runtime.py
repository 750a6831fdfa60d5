"""Run an exported model with NumPy and ONNX Runtime alone: no torch.

    python -m dccrn_lib run-onnx model.onnx noisy.wav enhanced.wav

Everything the arithmetic needs stands in the file's metadata (METADATA of onnx_export.py). The STFT is that of
dccrn_lib.audio.stft in NumPy: frame k covers the samples [k hop - (window - hop), (k + 1) hop), the overlap-added output
is divided by the overlap-added squared window.
"""

from __future__ import annotations

import math
import os
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from dccrn_lib.enhancement.level import LOUDEST, LevelControl, LevelMeter, OffsetControl, limited
from dccrn_lib.runtime.errors import AudioError, WeightsError, lacks_memory
from dccrn_lib.runtime.files import atomic_path, require_place, require_writable
from dccrn_lib.runtime.paths import PathLike
from dccrn_lib.runtime.sinks import sink

if TYPE_CHECKING:
    from dccrn_lib.audio.recording import Recording

WINDOWS = ("hann", "sqrt_hann")
_BLOCK = 1 << 20  # samples; the length of some files is not known beforehand
_WRITTEN = 1 << 18  # samples at once; some encoders fail on very long writes


class _BoundStep:
    """A streaming session whose inputs and outputs lie in fixed arrays.

    Two sets of states take turns: what one step writes as new_state.* is state.* of the next, and nothing is copied.
    """

    def __init__(self, session: Any) -> None:
        from onnxruntime import OrtValue

        shapes = {i.name: i.shape for i in session.get_inputs()}
        states = [name for name in shapes if name.startswith("state.")]
        self.spectrum, self.enhanced = (np.zeros(shapes["spectrum"], np.float32) for _ in range(2))
        self.active = np.ones(1, np.float32)
        self._states = [{name: np.zeros(shapes[name], np.float32) for name in states} for _ in range(2)]
        fixed = {"spectrum": self.spectrum, "active": self.active}
        self._bindings = []
        for now, then in (self._states, self._states[::-1]):
            binding = session.io_binding()
            for name, array in (fixed | now).items():
                binding.bind_ortvalue_input(name, OrtValue.ortvalue_from_numpy(array))
            outputs = {"enhanced": self.enhanced} | {f"new_{name}": array for name, array in then.items()}
            for name, array in outputs.items():
                binding.bind_ortvalue_output(name, OrtValue.ortvalue_from_numpy(array))
            self._bindings.append(binding)
        self._session, self._turn = session, 0

    def reset(self) -> None:
        """States as at the start."""
        for array in self._states[self._turn].values():
            array.fill(0.0)

    def run(self) -> None:
        """From ``spectrum`` and ``active`` to ``enhanced``."""
        self._session.run_with_iobinding(self._bindings[self._turn])
        self._turn = 1 - self._turn


class OnnxEnhancer:
    """Enhance signals with an exported DCCRN.

    Args:
        path: file written by ``export_onnx``, of either kind.
        threads: of ONNX Runtime.
        level_control: as in :class:`~dccrn_lib.enhancement.stream.StreamingEnhancer`.

    Raises:
        WeightsError: the file is missing, not ONNX, or was not written by ``export_onnx``.

    A "streaming" file also takes a signal piece by piece: ``push`` gives as many samples as it takes,
    ``latency_samples`` late, and ``flush`` gives the rest and starts anew.
    """

    def __init__(self, path: PathLike, threads: int = 1, level_control: bool = False) -> None:
        import onnxruntime

        if not Path(path).is_file():
            raise WeightsError(f"{path}: no such file; write one with: python -m dccrn_lib export --out {path}")
        with open(path, "rb"):  # the system's own error: ONNX Runtime gives its number only
            pass
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = threads
        try:
            self.session = onnxruntime.InferenceSession(os.fspath(path), options, providers=["CPUExecutionProvider"])
        except Exception as error:  # ONNX Runtime has no common base class for a bad file
            reason = str(error).splitlines()[0]
            raise WeightsError(f"{path}: not a model that ONNX Runtime reads ({reason}); export it again") from error
        self.metadata = dict(self.session.get_modelmeta().custom_metadata_map)
        try:
            self.kind, _ = self.metadata["kind"], self.metadata["window"]
            self.sample_rate, self.latency_samples, self.window_length, self.hop_length, self.fft_size, self.delay = (
                int(self.metadata[key])
                for key in (
                    "sample_rate",
                    "latency_samples",
                    "window_length",
                    "hop_length",
                    "fft_size",
                    "lookahead_frames",
                )
            )
        except KeyError as error:
            raise WeightsError(f"{path}: metadata {error} is missing; use a file written by dccrn_lib export") from None
        except ValueError as error:
            raise WeightsError(
                f"{path}: metadata is damaged ({error}); use a file written by dccrn_lib export"
            ) from None
        if self.kind not in ("streaming", "offline") or self.metadata["window"] not in WINDOWS:
            raise WeightsError(
                f"{path}: its metadata name an unknown kind or window; use a file written by dccrn_lib export"
            )
        # periodic Hann: w[n] = (1 - cos(2 pi n / N)) / 2
        phase = 2 * np.pi * np.arange(self.window_length) / self.window_length
        window = 0.5 - 0.5 * np.cos(phase)
        self.window = (np.sqrt(window) if self.metadata["window"] == "sqrt_hann" else window).astype(np.float32)
        squares = np.pad(self.window**2, (0, -self.window_length % self.hop_length))
        self.weight = np.maximum(squares.reshape(-1, self.hop_length).sum(axis=0), 1e-8)  # (hop,)
        self.level_control = level_control
        self._step = _BoundStep(self.session) if self.kind == "streaming" else None
        self.reset()

    def reset(self) -> None:
        """Forget everything pushed."""
        overlap = self.window_length - self.hop_length
        if self._step is not None:
            self._step.reset()
        self._input = np.zeros(overlap, np.float32)
        self._tail = np.zeros(overlap, np.float32)
        self._ready = np.zeros(self.hop_length - 1, np.float32)
        self._received = 0
        self._reset_control()
        self._gains = [1.0] * self.delay  # of the frames that wait for their mask
        self._blank = overlap + self.delay * self.hop_length  # padding left of the signal, the decoder's warm-up

    def _reset_control(self) -> None:
        self._level = LevelControl(1, self.hop_length / self.sample_rate)
        self._offset = OffsetControl(1, self.hop_length / self.sample_rate)
        self._peak = 1.0  # what the output may reach: full scale, or the input's peak

    def enhance(self, samples: np.ndarray) -> np.ndarray:
        """Enhance a whole signal: float (sample,) at ``sample_rate`` -> float32 (sample,).

        Raises:
            AudioError: not one-dimensional, empty, not float, or a sample that is NaN, infinite or beyond LOUDEST.
        """
        x = self._checked(samples)
        if not x.size:
            raise AudioError("expected at least one sample, got none")
        if self.kind == "streaming":
            self.reset()
            return np.concatenate([self.push(x), self.flush()])[self.latency_samples :]
        frames = self._frame_count(x.size)
        overlap = self.window_length - self.hop_length
        self._reset_control()
        hops = np.concatenate([x, np.zeros(frames * self.hop_length - x.size, np.float32)])
        padded = np.concatenate([np.zeros(overlap, np.float32), self._without_offset(hops, x.size)])
        gains = self._gains_of(padded)  # (frame,)
        try:
            enhanced = np.asarray(self.session.run(None, {"spectrum": self._analyse(padded) * gains})[0]) / gains
        except Exception as error:  # ONNX Runtime has no common base class for a lack of memory
            if not lacks_memory(error):
                raise
            raise AudioError(
                f"not enough memory for {x.size / self.sample_rate:.0f} s at once, as a file of kind offline takes them "
                "(some 23 MB a second); export with --kind streaming"
            ) from error
        pieces = self._synthesise(enhanced)  # (frame, window)
        signal = np.zeros((frames - 1) * self.hop_length + self.window_length, np.float32)
        for k, piece in enumerate(pieces):
            signal[k * self.hop_length : k * self.hop_length + self.window_length] += piece
        weight = np.resize(self.weight, signal.size)
        return np.clip(signal / weight, -self._peak, self._peak)[overlap : overlap + x.size]

    def push(self, samples: np.ndarray) -> np.ndarray:
        """Take float samples (sample,), any number; give as many, ``latency_samples`` late. Streaming files only.

        Raises:
            AudioError: as in :meth:`enhance`, or the file is of kind "offline".
        """
        if self.kind != "streaming":
            raise AudioError("this file is of kind offline; export with kind streaming to push samples")
        x = self._checked(samples)
        self._received += x.size
        self._consume(x, 1.0)
        return self._emit(x.size)

    def flush(self) -> np.ndarray:
        """End the signal: the last samples, (latency_samples,); then as after :meth:`reset`."""
        if self.kind != "streaming":
            raise AudioError("this file is of kind offline; export with kind streaming to push samples")
        hop = self.hop_length
        padding = self._frame_count(self._received) * hop - self._received
        self._consume(np.full(padding, self._offset.latest[0], np.float32), 1.0)  # 0 once the offset is left out
        self._consume(np.zeros(self.delay * hop, np.float32), 0.0)
        last = self._emit(self.latency_samples)
        self.reset()
        return last

    @staticmethod
    def _checked(samples: np.ndarray) -> np.ndarray:
        try:
            x = np.asarray(samples)
        except (TypeError, ValueError, RuntimeError) as error:  # a tensor with a gradient, or of bfloat16; ragged lists
            raise AudioError(f"expected float samples of shape (sample,) as an array of NumPy ({error})") from None
        if x.ndim != 1 or not np.issubdtype(x.dtype, np.floating):
            raise AudioError(f"expected float samples of shape (sample,), got {x.dtype} {x.shape}")
        if x.size and not float(np.abs(x).max()) <= LOUDEST:  # NaN is not; a float16 would make LOUDEST infinite
            bad = f"values beyond {LOUDEST:g} (full scale is 1)" if np.isfinite(x).all() else "NaN or infinity"
            raise AudioError(f"samples hold {bad}; clean them first")
        return x.astype(np.float32)

    def _frame_count(self, samples: int) -> int:
        return (samples - 1 + self.window_length - self.hop_length) // self.hop_length + 1

    def _analyse(self, padded: np.ndarray) -> np.ndarray:
        """Samples that frames cover -> spectrum (1, 2, freq, frame)."""
        pieces = np.lib.stride_tricks.sliding_window_view(padded, self.window_length)[:: self.hop_length]
        spectrum = np.fft.rfft(pieces * self.window, n=self.fft_size).T  # (freq, frame)
        return np.stack([spectrum.real, spectrum.imag])[None].astype(np.float32)

    def _leave_out_offset(self, hops: np.ndarray) -> None:
        """Subtract from whole hops (hop, sample), in place, what is constant in them."""
        offsets = self._offset.follow(hops.mean(axis=1, dtype=np.float64)[None])[0]
        if offsets.any():
            hops -= offsets[:, None].astype(np.float32)
        peaks = np.maximum.accumulate(np.concatenate([np.ravel(self._peak)[-1:], np.abs(hops).max(axis=1)]))[1:]
        self._peak = np.repeat(peaks, self.hop_length)  # so far, for each sample

    def _without_offset(self, hops: np.ndarray, samples: int) -> np.ndarray:
        """A whole signal (hop * n,) of which ``samples`` are given and the rest is 0, without what is constant in it."""
        if not self.level_control:
            return hops
        out, whole = hops.copy(), samples // self.hop_length * self.hop_length
        if whole:
            self._leave_out_offset(out[:whole].reshape(-1, self.hop_length))
        out[whole:samples] -= np.float32(self._offset.latest[0])
        self._peak = max(float(np.max(self._peak)), float(np.abs(out).max()))
        return out

    def _gains_of(self, padded: np.ndarray) -> np.ndarray:
        """Gains of the frames in these samples, float32 (frame,); all 1 without ``level_control``."""
        pieces = np.lib.stride_tricks.sliding_window_view(padded, self.window_length)[:: self.hop_length]
        if not self.level_control:
            return np.ones(len(pieces), np.float32)
        power = np.square(pieces, dtype=np.float64).mean(axis=1)
        return self._level.gains(power[None])[0].astype(np.float32)

    def _synthesise(self, enhanced: Any) -> np.ndarray:
        """Spectrum (1, 2, freq, frame) -> windowed pieces (frame, window)."""
        pieces = np.fft.irfft((enhanced[0, 0] + 1j * enhanced[0, 1]).T, n=self.fft_size)
        return (pieces[:, : self.window_length] * self.window).astype(np.float32)

    def _consume(self, x: np.ndarray, active: float) -> None:
        hop, window = self.hop_length, self.window_length
        line = np.concatenate([self._input, x])
        overlap = window - hop
        frames = (line.size - overlap) // hop
        if self.level_control and frames:
            self._leave_out_offset(line[overlap : overlap + frames * hop].reshape(frames, hop))
        out = np.empty(frames * hop, np.float32)
        for k in range(frames):
            out[k * hop : (k + 1) * hop] = self._frame(line[k * hop : k * hop + window], active)
        np.clip(out, -self._peak, self._peak, out=out)
        self._peak = float(np.ravel(self._peak)[-1])
        out[: max(0, self._blank)] = 0.0
        self._blank = max(0, self._blank - out.size)
        self._ready, self._input = np.concatenate([self._ready, out]), line[frames * hop :]

    def _frame(self, samples: np.ndarray, active: float) -> np.ndarray:
        """One frame (window,) through network and overlap-add -> finished samples (hop,)."""
        step, hop = self._step, self.hop_length
        assert step is not None
        spectrum = np.fft.rfft(samples * self.window, n=self.fft_size)  # (freq,)
        after = 1.0
        if self.level_control:
            power = np.square(samples, dtype=np.float64).mean()
            waiting = [*self._gains, self._level.gains(power[None, None])[0, 0]]  # oldest first
            spectrum *= waiting[-1]
            after, self._gains = waiting[0], waiting[1:]
        step.spectrum[0, 0, :, 0], step.spectrum[0, 1, :, 0] = spectrum.real, spectrum.imag
        step.active[0] = active
        step.run()
        spectrum.real, spectrum.imag = step.enhanced[0, :, :, 0]
        piece = np.fft.irfft(spectrum, n=self.fft_size)[: self.window_length] * self.window
        piece = piece / after if self.level_control else piece
        piece[: self._tail.size] += self._tail
        self._tail = piece[hop:]
        return piece[:hop] / self.weight

    def _emit(self, count: int) -> np.ndarray:
        out, self._ready = self._ready[:count], self._ready[count:]
        return out


def _read(source: PathLike) -> tuple[np.ndarray, Recording]:
    """All samples, float32 (sample, channel), and what the header says."""
    from dccrn_lib.audio.recording import opened  # a live signal needs no soundfile

    with opened(source) as recording:
        pieces = [recording.read(_BLOCK)]
        while len(pieces[-1]):
            pieces.append(recording.read(_BLOCK))
        samples = np.concatenate(pieces)
        recording.refuse_short(len(samples), recording.samples)
    return samples, recording


def _scales(meter: LevelMeter, piece: slice) -> np.ndarray:
    """The divisors of a piece of the signal, (1 or sample, channel)."""
    return meter.scales(piece.start, piece.stop).T


def enhance_wav(model: PathLike, source: PathLike, destination: PathLike, overwrite: bool = False) -> float:
    """Enhance a file at the model's sample rate, each channel on its own; the sample format and the tags are kept.

    Each channel is brought to one level for the network and back after it, and loses a constant offset, as in
    enhance_file.

    Returns:
        Gain of the whole file in dB, below 0 where it had to be lowered to stay below full scale.

    Raises:
        AudioError: the file cannot be read, is empty, or has another sample rate, or the other exists and shall not be
            replaced, or cannot be written.
        WeightsError: bad model file.
        ConfigError: the destination is a new file among the devices, or in a read-only folder.
    """
    import soundfile

    from dccrn_lib.audio.recording import (
        kept_subtype,
        require_rate,
        require_size,
        write_tags,
    )  # a live signal needs no soundfile

    enhancer = OnnxEnhancer(model)
    samples, info = _read(source)
    rate = info.sample_rate
    if rate != enhancer.sample_rate:
        raise AudioError(f"{source}: {rate} Hz, the model wants {enhancer.sample_rate} Hz; resample it first")
    if Path(destination).exists() and Path(source).samefile(destination):
        raise AudioError(f"{destination} is the input itself; choose another output name")
    if Path(destination).is_file() and not overwrite:
        raise AudioError(f"{destination} exists; choose another output name, or replace it with --overwrite")
    require_place(destination)
    require_writable(destination)
    suffix = Path(destination).suffix.lower()
    form = info.format if suffix == Path(source).suffix.lower() else suffix[1:].upper()
    if form not in soundfile.available_formats() or form in ("RAW", "SD2") or Path(destination).is_dir():
        raise AudioError(f"cannot write {destination}: give a file name that ends in .wav, .flac, .ogg, .mp3 or .aiff")
    subtype = kept_subtype(form, info)
    require_rate(destination, rate, samples.shape[1], subtype, form)
    require_size(destination, len(samples), samples.shape[1], subtype, form)
    meter = LevelMeter(samples.shape[1], rate)
    pieces = [slice(start, min(start + _BLOCK, len(samples))) for start in range(0, len(samples), _BLOCK)]
    for piece in pieces:
        meter.add(samples[piece].T)
    for piece in pieces:
        samples[piece] = limited((samples[piece] - meter.offset()[:, 0]) / _scales(meter, piece))
    enhanced = np.stack([enhancer.enhance(channel) for channel in samples.T], axis=1)  # (sample, channel)
    for piece in pieces:
        enhanced[piece] *= _scales(meter, piece)
    peak, gain = float(np.abs(enhanced).max()), 1.0
    if peak > 1.0 and subtype not in ("FLOAT", "DOUBLE"):  # lowered, not clipped
        gain = 0.9999 / peak
        enhanced = enhanced * np.float32(gain)
    try:
        with atomic_path(destination) as temporary, sink(temporary) as file:
            with soundfile.SoundFile(file, "w", rate, enhanced.shape[1], subtype, format=form) as out:
                write_tags(out, info.tags)
                for start in range(0, len(enhanced), _WRITTEN):
                    out.write(enhanced[start : start + _WRITTEN])
    except soundfile.LibsndfileError as error:
        raise AudioError(f"cannot write {destination} ({error.error_string})") from None
    return 20 * math.log10(gain)
