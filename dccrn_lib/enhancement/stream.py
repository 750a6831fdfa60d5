"""Streaming: a DCCRN applied to a signal that arrives piece by piece, equal to the offline model.

Latency, from the arithmetic alone: frame k is complete with sample (k + 1) hop - 1, and output sample n lies
in frames up to floor((n + window - hop) / hop), each of which waits for L more frames. In the worst alignment
that is

    latency = (window - hop) + L hop + (hop - 1) = (window - 1) + L hop

999 samples (62.4 ms) for the paper's L = 6 and 399 samples (24.9 ms) for L = 0, at 16 kHz with a hop of 100.
The network's own step and its states are in stream_step.py; here are samples, frames and overlap-add.
"""

from __future__ import annotations

from functools import cached_property
from typing import overload

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from dccrn_lib.audio.rate import SAMPLE_RATE
from dccrn_lib.enhancement.level import LOUDEST, LevelControl, OffsetControl
from dccrn_lib.enhancement.optimised import BLOCK_FRAMES, OptimisedDCCRN
from dccrn_lib.enhancement.ring_step import RingStep
from dccrn_lib.enhancement.stream_step import zeros
from dccrn_lib.networks.dccrn import DCCRN, DCCRNConfig
from dccrn_lib.runtime.errors import AudioError, ConfigError

Gains = tuple[np.ndarray, np.ndarray]
FEW, MANY = 4, 8  # frames at once: up to FEW go one by one, more than MANY as a block, and between them as those before


def latency_samples(config: DCCRNConfig) -> int:
    """Samples by which a streamed output lags: (window - 1) + L hop.

    >>> latency_samples(DCCRNConfig()), latency_samples(DCCRNConfig(decoder_lookahead=0))
    (999, 399)
    """
    return config.stft.window_length - 1 + config.lookahead_frames * config.stft.hop_length


class StreamingEnhancer:
    """Enhance a signal while it arrives: push samples, get as many back, ``latency_samples`` late.

    ``concat(push(...), ..., flush())[latency_samples:]`` equals ``model(x)`` on the whole signal.

    Args:
        model: a DCCRN, whose weights are copied, on its device, in eval mode; or its optimised form, whose weights are
            shared.
        batch: number of parallel streams, all pushed together.
        block_frames: most frames processed at once; bounds memory on long pushes.
        level_control: bring quiet and very loud signals to the levels that the network has learnt, frame by frame
            and without latency (:class:`~dccrn_lib.enhancement.level.LevelControl`), and leave out a constant offset
            (:class:`~dccrn_lib.enhancement.level.OffsetControl`). At usual levels without offset little changes;
            elsewhere the result is no longer ``model(x)``, but what it would be there.
        live: prepare on a CPU for pushes of a few hops. False goes without, for a file: there the last frames are the
            only few, and the preparation costs more than they do.

    Raises:
        ConfigError: the model cannot stream, or batch or block_frames is below 1.

    >>> model = DCCRN(DCCRNConfig(channels=(4, 4, 4, 4, 4, 4), rnn_units=4)).eval()
    >>> stream = StreamingEnhancer(model)
    >>> x = torch.randn(3000) * 0.1
    >>> y = torch.cat([stream.push(x[:7]), stream.push(x[7:2000]), stream.push(x[2000:]), stream.flush()])
    >>> torch.allclose(y[stream.latency_samples:], model(x[None])[0], atol=1e-5)
    True
    """

    def __init__(
        self,
        model: DCCRN | OptimisedDCCRN,
        batch: int = 1,
        block_frames: int = BLOCK_FRAMES,
        level_control: bool = False,
        live: bool = True,
    ) -> None:
        if batch < 1 or block_frames < 1:
            raise ConfigError(f"batch and block_frames must be at least 1, got {batch} and {block_frames}")
        self._model = model if isinstance(model, OptimisedDCCRN) else OptimisedDCCRN(model)
        self.core = self._model.core
        self.config = model.config
        self.batch, self.block_frames, self.level_control = batch, block_frames, level_control
        self.window = self._model.stft.window.detach().clone()  # (window,), float32 whatever the caller's network is
        self.frame_count = model.stft.frame_count
        # sum_k w[n - k hop]^2 is periodic in n with period hop, and every sample lies in all frames that can hold it
        hop = self.config.stft.hop_length
        squares = F.pad(self.window**2, (0, -self.window.numel() % hop))
        self.weight = squares.reshape(-1, hop).sum(0).clamp_min(1e-8)  # (hop,)
        self._with_ring = live
        self.reset()
        if live and self.window.device.type == "cpu":
            self._ring  # noqa: B018

    @cached_property
    def _ring(self) -> RingStep:
        """The network for a few frames at once; files go without it."""
        return RingStep(self._model.frame_step, self.batch)

    @property
    def latency_samples(self) -> int:
        """Delay of the output in samples: (window - 1) + L hop."""
        return latency_samples(self.config)

    @property
    def algorithmic_latency_ms(self) -> float:
        """The same in milliseconds at 16 kHz; the time the arithmetic takes comes on top."""
        return 1000.0 * self.latency_samples / SAMPLE_RATE

    def reset(self) -> None:
        """Forget everything pushed: states as at the start."""
        hop, device = self.config.stft.hop_length, self.window.device
        overlap = self.config.stft.window_length - hop
        self.states, self._live = self.core.initial_states(self.batch), False  # or they are in the ring
        self.received = 0  # samples pushed
        self._input = zeros(self.batch, overlap, device=device)  # samples that the next frame needs
        self._tail = zeros(self.batch, overlap, device=device)  # overlap-add of frames already out
        self._ready = zeros(self.batch, hop - 1, device=device)  # finished output
        # the first finished samples belong to the padding left of the signal and to the decoder's warm-up
        self._blank = overlap + self.core.delay * hop
        self._as_numpy, self._as_single = False, False
        self._level = LevelControl(self.batch, hop / SAMPLE_RATE)
        self._offset = OffsetControl(self.batch, hop / SAMPLE_RATE)
        self._peak = zeros(self.batch, 1, device=device) + 1.0  # what the output may reach: full scale, or the input's
        self._gains = np.ones((self.batch, self.core.delay))  # of the frames that wait for their mask

    @overload
    def push(self, samples: np.ndarray) -> np.ndarray: ...
    @overload
    def push(self, samples: Tensor) -> Tensor: ...
    @torch.no_grad()
    def push(self, samples: Tensor | np.ndarray) -> Tensor | np.ndarray:
        """Take samples, give as many.

        Args:
            samples: float at 16 kHz, (sample,) or (batch, sample), any length >= 0, tensor or NumPy array.

        Returns:
            float32 of the same kind and shape: the enhanced signal ``latency_samples`` late,
            zeros before it starts.

        Raises:
            AudioError: wrong shape, not float, or a sample that is NaN, infinite or beyond LOUDEST (what it does
                to the states would never leave them).
        """
        as_numpy = not isinstance(samples, Tensor)
        x = np.asarray(samples) if as_numpy else samples.detach()
        # ``as_numpy`` says which of the two x is
        if not (x.dtype.kind == "f" if as_numpy else x.is_floating_point()):  # pyright: ignore[reportAttributeAccessIssue]
            raise AudioError(f"expected float samples in [-1, 1], got {x.dtype}; divide integers by their full scale")
        # and here, too
        if not as_numpy and x.layout != torch.strided:  # pyright: ignore[reportAttributeAccessIssue]
            raise AudioError("expected a dense tensor of samples; convert it with to_dense() first")
        if as_numpy:  # a copy: torch wants native byte order and writable memory
            with np.errstate(over="ignore"):
                x = torch.from_numpy(np.array(x, dtype=np.float32))
        # a tensor by now
        x = x.to(self.window.device, torch.float32)  # pyright: ignore[reportAttributeAccessIssue]
        single = x.dim() == 1
        if x.dim() > 2 or x.dim() == 0 or (1 if single else x.shape[0]) != self.batch:
            raise AudioError(
                f"expected samples of shape (sample,) or (batch = {self.batch}, sample), got {tuple(x.shape)}"
            )
        x = x[None] if single else x
        if x.numel() and not x.abs().max() <= LOUDEST:  # NaN is not
            bad = "NaN or infinity" if not torch.isfinite(x).all() else f"values beyond {LOUDEST:g} (full scale is 1)"
            raise AudioError(f"samples hold {bad}; clean them before pushing")
        self._as_numpy, self._as_single = as_numpy, single
        self.received += x.shape[1]
        self._consume(x)
        return self._emit(x.shape[1])

    @torch.no_grad()
    def flush(self) -> Tensor | np.ndarray:
        """End the signal and reset.

        Returns:
            The last ``latency_samples`` samples, of the kind last pushed: (sample,) or (batch, sample).
        """
        hop = self.config.stft.hop_length
        frames = self.frame_count(self.received)  # as many as the offline STFT makes
        padding = torch.from_numpy(self._offset.latest).to(self.window)[:, None]  # 0 once the offset is left out
        self._consume(padding.expand(-1, frames * hop - self.received))
        self._consume(zeros(self.batch, self.core.delay * hop, device=self.window.device), active=0.0)
        last = self._emit(self.latency_samples)
        self.reset()
        return last

    def _emit(self, count: int) -> Tensor | np.ndarray:
        out, self._ready = self._ready[:, :count], self._ready[:, count:].clone()
        out = out[0] if self._as_single else out
        return out.cpu().numpy() if self._as_numpy else out

    def _consume(self, x: Tensor, active: float = 1.0) -> None:
        """Append samples to the input and turn every complete frame into hop finished samples."""
        c = self.config.stft
        overlap = c.window_length - c.hop_length
        self._input = torch.cat([self._input, x], dim=1)
        frames = (self._input.shape[1] - overlap) // c.hop_length
        if frames == 0:
            return
        if self.level_control:
            self._leave_out_offset(self._input[:, overlap : overlap + frames * c.hop_length])
        pieces = self._input.unfold(1, c.window_length, c.hop_length)  # (batch, frame, window)
        blocks = [pieces] if frames <= self.block_frames else pieces.split(self.block_frames, dim=1)
        done = torch.cat([self._process(block, active) for block in blocks], dim=1)
        self._ready = torch.cat([self._ready, done.clamp(-self._peak, self._peak)], dim=1)
        self._peak = self._peak[:, -1:]
        self._input = self._input[:, frames * c.hop_length :].clone()

    def _leave_out_offset(self, samples: Tensor) -> None:
        """Subtract from new samples (batch, hop * n), in place, what is constant in them; note the peak so far at each."""
        hops = samples.unflatten(1, (-1, self.config.stft.hop_length))  # (batch, hop, sample)
        offsets = self._offset.follow(hops.mean(dim=2).double().cpu().numpy())
        if offsets.any():
            hops -= torch.from_numpy(offsets).to(hops)[..., None]
        peaks = (
            torch.cat([self._peak, hops.abs().amax(dim=2)], dim=1).cummax(dim=1).values[:, 1:]
        )  # so far: (batch, hop)
        self._peak = peaks.repeat_interleave(hops.shape[2], dim=1)

    def _process(self, pieces: Tensor, active: float) -> Tensor:
        """Frames of samples (batch, frame, window) -> finished samples (batch, frame * hop)."""
        frames, device = pieces.shape[1], pieces.device.type
        few = frames <= (MANY if self._live else FEW)
        live = few and self._with_ring and device == "cpu" and not torch.is_autocast_enabled(device)
        if live != self._live:
            if live:
                self._ring.load(self.states)
            else:
                self.states = self._ring.states()
            self._live = live
        gains = self._gains_of(pieces) if self.level_control else None
        out = self._one_by_one(pieces, active, gains) if live else self._at_once(pieces, active, gains)
        if self._blank:
            out[:, : self._blank] = 0.0
            self._blank = max(0, self._blank - out.shape[1])
        return out

    def _one_by_one(self, pieces: Tensor, active: float, gains: Gains | None) -> Tensor:
        """A few frames, the samples in NumPy: its calls cost less than torch's."""
        c = self.config.stft
        hop, overlap = c.hop_length, c.window_length - c.hop_length
        window, weight, tail = (t.numpy() for t in (self.window, self.weight, self._tail))
        out = np.empty((self.batch, pieces.shape[1] * hop), np.float32)
        for k, piece in enumerate(pieces.numpy().swapaxes(0, 1)):  # (batch, window)
            spectrum = np.fft.rfft(piece * window, n=c.fft_size)  # (batch, freq)
            if gains is not None:
                spectrum *= gains[0][:, k : k + 1]
            spectrum = torch.from_numpy(spectrum.astype(np.complex64, copy=False))
            enhanced = self._ring(spectrum, active > 0).numpy()
            if gains is not None:
                enhanced = enhanced / gains[1][:, k : k + 1]
            sound = np.fft.irfft(enhanced, n=c.fft_size)[:, : c.window_length] * window
            sound[:, :overlap] += tail
            tail[:] = sound[:, hop:]
            np.divide(sound[:, :hop], weight, out=out[:, k * hop : (k + 1) * hop], casting="same_kind")
        return torch.from_numpy(out)

    def _at_once(self, pieces: Tensor, active: float, gains: Gains | None) -> Tensor:
        """A block of frames."""
        c = self.config.stft
        frames = pieces.shape[1]
        before, after = (1.0, 1.0) if gains is None else (torch.from_numpy(g).to(pieces)[..., None] for g in gains)
        spectrum = torch.fft.rfft(pieces * self.window, n=c.fft_size) * before
        spectrum = torch.view_as_real(spectrum)  # (batch, frame, freq, 2)
        flags = torch.full((frames,), active, dtype=torch.float32, device=pieces.device)
        enhanced, self.states = self.core.stream_step(spectrum.permute(0, 3, 2, 1), self.states, flags)
        enhanced = torch.view_as_complex(enhanced.permute(0, 3, 2, 1).contiguous()) / after  # (batch, frame, freq)
        pieces = torch.fft.irfft(enhanced, n=c.fft_size)[..., : c.window_length] * self.window
        span, finished = (frames - 1) * c.hop_length + c.window_length, frames * c.hop_length
        added = F.fold(pieces.transpose(1, 2), (1, span), (1, c.window_length), stride=(1, c.hop_length))
        added = added[:, 0, 0]  # (batch, span)
        overlap = c.window_length - c.hop_length
        added[:, :overlap] += self._tail
        self._tail = added[:, finished:].clone()
        out = added[:, :finished].reshape(-1, frames, c.hop_length) / self.weight
        return out.flatten(1)  # (batch, frame * hop)

    def _gains_of(self, pieces: Tensor) -> Gains:
        """Gains (batch, frame) of the frames that go in and of those that come out, ``delay`` frames older."""
        power = np.square(pieces.cpu().numpy(), dtype=np.float64).mean(axis=2)
        gains = self._level.gains(power)
        line, frames = np.concatenate([self._gains, gains], axis=1), gains.shape[1]
        self._gains = line[:, frames:]
        return gains, line[:, :frames]
