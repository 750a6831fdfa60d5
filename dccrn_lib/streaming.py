"""Streaming: a DCCRN applied to a signal that arrives piece by piece, equal to the offline model.

Every layer of a DCCRN joins two neighbouring frames, so one remembered frame per layer is all a convolution needs:

    encoder   y[t]     = f(W1 x[t] + W0 x[t-1] + b)
    decoder   y[t-d]   = f(W0 x[t] + W1 x[t-1] + b)        d = 1 frame of look-ahead (paper) or 0

With d = 1 decoder layer i runs i frames behind the encoder, so its skip waits i frames in a queue, and the mask meets
the spectrum of L = 6 frames ago. Nothing is approximated: a flag travels with each frame and makes frames before the
first and after the last exact zeros wherever the offline transposed convolution finds no frame.

Latency, from the arithmetic alone: frame k is complete with sample (k + 1) hop - 1, and output sample n lies in frames
up to floor((n + window - hop) / hop), each of which waits for L more frames. In the worst alignment that is

    latency = (window - hop) + L hop + (hop - 1) = (window - 1) + L hop

999 samples (62.4 ms) for the paper's L = 6 and 399 samples (24.9 ms) for L = 0, at 16 kHz with a hop of 100.

Representation: real tensors only inside :class:`StreamingCore`, ordered (frame, batch, chan, freq), so that the step
exports to ONNX.
"""

from __future__ import annotations

import copy

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from dccrn_lib.complex_nn import ComplexConvTranspose2d
from dccrn_lib.dccrn import DCCRN, DCCRNConfig, RealBottleneck
from dccrn_lib.errors import AudioError, ConfigError

SAMPLE_RATE = 16000  # Hz

States = dict[str, Tensor]


def latency_samples(config: DCCRNConfig) -> int:
    """Samples by which a streamed output lags: (window - 1) + L hop.

    >>> latency_samples(DCCRNConfig()), latency_samples(DCCRNConfig(decoder_lookahead=0))
    (999, 399)
    """
    return config.stft.window_length - 1 + config.lookahead_frames * config.stft.hop_length


def require_streamable(model: nn.Module) -> DCCRN:
    """Return ``model`` if it can stream; ConfigError with the reason otherwise."""
    if isinstance(model, DCCRN):
        return model
    raise ConfigError(
        f"{type(model).__name__} is not causal: global time attention needs the whole signal, so it cannot stream; "
        "use enhance_file or the offline model"
    )


def _affine_of(norm: nn.Module, channels: int) -> tuple[Tensor, Tensor]:
    """Matrix A (chan, chan) and offset b (chan,) of a norm in eval mode, y = A x + b, found by probing it."""
    probe = torch.cat([torch.zeros(1, channels), 4096.0 * torch.eye(channels)])  # (1 + chan, chan)
    norm = copy.deepcopy(norm).cpu().float().eval()
    answer = norm(probe[:, :, None, None])[:, :, 0, 0].double()
    return (answer[1:] - answer[0]).T / 4096.0, answer[0]


class FramePairLayer(nn.Module):
    """An encoder or decoder layer, one frame at a time: y[t] = act(W x[t] + V x[t-1] + b).

    The two frames are stacked along chan, which leaves a 1-d (transposed) convolution over freq; block weight and norm
    are multiplied out once.

    Shapes: x (frame, batch, chan, freq), previous (1, batch, chan, freq) -> y (frame, batch, chan', freq'), new previous.
    """

    def __init__(self, layer: nn.Module) -> None:
        super().__init__()
        conv = layer.conv
        self.transposed = isinstance(conv, ComplexConvTranspose2d)
        self.stride, self.padding = conv.stride[0], conv.padding[0]
        self.output_padding = conv.output_padding[0] if self.transposed else 0
        weight, bias = conv.block_weight().double().cpu(), conv.block_bias().double().cpu()
        matrix, offset = _affine_of(layer.norm, bias.numel())
        # the frame axis of a convolution runs past to present, of a transposed one present to past
        if self.transposed:
            pair = torch.cat([weight[..., 1], weight[..., 0]], dim=0)  # (2 in, out, freq): past, present
            pair = torch.einsum("oc,icf->iof", matrix, pair)
        else:
            pair = torch.cat([weight[..., 0], weight[..., 1]], dim=1)  # (out, 2 in, freq): past, present
            pair = torch.einsum("oc,cif->oif", matrix, pair)
        self.register_buffer("weight", pair.float().contiguous())
        self.register_buffer("bias", (matrix @ bias + offset).float())
        self.act = copy.deepcopy(layer.act).cpu()

    def forward(self, x: Tensor, previous: Tensor) -> tuple[Tensor, Tensor]:
        line = torch.cat([previous, x])  # (1 + frame, batch, chan, freq)
        pair = torch.cat([line[:-1], x], dim=2).flatten(0, 1)  # (frame * batch, 2 chan, freq)
        if self.transposed:
            y = F.conv_transpose1d(pair, self.weight, self.bias, self.stride, self.padding, self.output_padding)
        else:
            y = F.conv1d(pair, self.weight, self.bias, self.stride, self.padding)
        y = self.act(y)
        return y.reshape(-1, x.shape[1], y.shape[1], y.shape[2]), line[-1:]


def _delay(x: Tensor, queue: Tensor) -> tuple[Tensor, Tensor]:
    """Let frames wait in ``queue`` (delay, ...): oldest out, newest in."""
    line, delay = torch.cat([queue, x]), queue.shape[0]
    return line[:-delay], line[-delay:]


class StreamingCore(nn.Module):
    """The spectrum-to-spectrum part of a DCCRN as a pure function of (frames, states).

    Weights are copied from ``model`` (its eval-mode behaviour), so later training does not change this object.

    Args:
        model: any DCCRN: masks E/C/R, real or complex LSTM, plain or complex BatchNorm, look-ahead 0 or 1.

    Raises:
        ConfigError: the model is not a DCCRN (Uformer is not causal).
    """

    @torch.no_grad()
    def __init__(self, model: DCCRN) -> None:
        super().__init__()
        model = require_streamable(model)
        self.config = model.config
        self.delay = model.config.lookahead_frames
        self.encoder = nn.ModuleList(FramePairLayer(layer) for layer in model.encoder)
        self.decoder = nn.ModuleList(FramePairLayer(layer) for layer in model.decoder)
        self.bottleneck = copy.deepcopy(model.bottleneck).cpu().float()
        self.to(next(model.parameters()).device).eval().requires_grad_(False)

    def initial_states(self, batch: int = 1) -> States:
        """Zero states for ``batch`` parallel streams.

        Keys: ``encoder.i``, ``decoder.i`` (1, batch, chan, freq) the last input frame of each layer; ``skip.i``
        (i, batch, chan, freq) queue of decoder layer i; ``spectrum`` (L, batch, 2, freq) frames that wait for their
        mask; ``valid`` (L, 1, 1, 1) which of the waiting frames exist; ``lstm...`` hidden and cell states.
        """
        c = self.config
        device = self.decoder[0].weight.device
        sizes = [2, *c.channels]
        n = len(c.channels)
        bins = [c.stft.fft_size // 2 >> i for i in range(n + 1)]
        shapes = {f"encoder.{i}": (1, batch, sizes[i], bins[i]) for i in range(n)}
        if isinstance(self.bottleneck, RealBottleneck):
            shapes |= {f"lstm.{part}": (c.rnn_layers, batch, c.rnn_units) for part in "hc"}
        else:
            names = [f"lstm.{i}.{kind}_{part}" for i in range(c.rnn_layers) for kind in ("real", "imag") for part in "hc"]
            shapes |= {name: (1, 2 * batch, c.rnn_units // 2) for name in names}
        shapes |= {f"decoder.{i}": (1, batch, 2 * sizes[n - i], bins[n - i]) for i in range(n)}
        if self.delay:
            shapes |= {f"skip.{i}": (i, batch, sizes[n - i], bins[n - i]) for i in range(1, n)}
            shapes |= {"spectrum": (self.delay, batch, 2, bins[0] + 1), "valid": (self.delay, 1, 1, 1)}
        return {name: torch.zeros(shape, device=device) for name, shape in shapes.items()}

    def stream_step(self, spectrum: Tensor, states: States, active: Tensor | None = None) -> tuple[Tensor, States]:
        """Take the next frames of the noisy spectrum, give the frames that are ready (L frames older).

        Args:
            spectrum: real and imaginary part, float32 (batch, 2, freq, frame); frame = 1 in real time, more at will.
            states: from :meth:`initial_states` or the previous call; not changed.
            active: (frame,), 1.0 for a frame of the signal, 0.0 after its end; default all 1. L inactive frames drain
                the decoder, after which the states are spent.

        Returns:
            Enhanced frames (batch, 2, freq, frame), exact zeros for the first L, and the new states.
        """
        new: States = {}
        frames = spectrum.permute(3, 0, 1, 2)  # (frame, batch, 2, freq)
        valid = torch.ones_like(frames[:, :1, :1, :1]) if active is None else active[:, None, None, None]
        if self.delay:
            line = torch.cat([states["valid"], valid])  # (L + frame, 1, 1, 1): oldest first
            new["valid"] = line[-self.delay :]
        x, skips = frames[..., 1:], []  # DC dropped
        for i, layer in enumerate(self.encoder):
            x, new[f"encoder.{i}"] = layer(x, states[f"encoder.{i}"])
            skips.append(x)
        x = self._bottleneck_step(x, states, new)
        for i, layer in enumerate(self.decoder):
            skip = skips[-1 - i]
            if self.delay and i:
                skip, new[f"skip.{i}"] = _delay(skip, states[f"skip.{i}"])
                valid = line[self.delay - i : -i]
            x_real, x_imag = x.chunk(2, dim=2)
            s_real, s_imag = skip.chunk(2, dim=2)
            joined = torch.cat([x_real, s_real, x_imag, s_imag], dim=2) * valid  # (frame, batch, 2 chan, freq)
            x, new[f"decoder.{i}"] = layer(joined, states[f"decoder.{i}"])
        if self.delay:
            frames, new["spectrum"] = _delay(frames, states["spectrum"])
            valid = line[: -self.delay]
        enhanced = self._apply_mask(F.pad(x, (1, 0)), frames) * valid  # (frame, batch, 2, freq): mask 0 at DC
        return enhanced.permute(1, 2, 3, 0), {name: new[name] for name in states}

    forward = stream_step

    def _bottleneck_step(self, x: Tensor, states: States, new: States) -> Tensor:
        """LSTM layers and projection, (frame, batch, chan, freq) -> same; writes their states into ``new``."""
        net, batch = self.bottleneck, x.shape[1]
        if isinstance(net, RealBottleneck):
            seq = x.flatten(2)  # (frame, batch, chan * freq)
            seq, (new["lstm.h"], new["lstm.c"]) = net.lstm(seq, (states["lstm.h"], states["lstm.c"]))
            return net.project(seq).reshape(-1, batch, *x.shape[2:])
        real, imag = x.flatten(2).chunk(2, dim=2)  # each (frame, batch, chan / 2 * freq)
        for i, layer in enumerate(net.lstm):
            both, answers = torch.cat([real, imag], dim=1), []  # (frame, 2 batch, size)
            for kind, lstm in (("real", layer.lstm_real), ("imag", layer.lstm_imag)):
                h, c = f"lstm.{i}.{kind}_h", f"lstm.{i}.{kind}_c"
                answer, (new[h], new[c]) = lstm(both, (states[h], states[c]))
                answers += answer.chunk(2, dim=1)
            rr, ri, ir, ii = answers
            real, imag = rr - ii, ri + ir
        seq = torch.cat([net.project_real(real), net.project_imag(imag)], dim=2)
        return seq.reshape(-1, batch, *x.shape[2:])

    def _apply_mask(self, mask: Tensor, spectrum: Tensor) -> Tensor:
        """Modes E, C, R of :func:`dccrn_lib.dccrn.apply_mask` in real arithmetic, parts along axis 2."""
        if self.config.mask == "R":
            return mask * spectrum
        m_real, m_imag = mask.chunk(2, dim=2)
        x_real, x_imag = spectrum.chunk(2, dim=2)
        product = torch.cat([m_real * x_real - m_imag * x_imag, m_real * x_imag + m_imag * x_real], dim=2)
        if self.config.mask == "C":
            return product
        magnitude = (m_real * m_real + m_imag * m_imag + 1e-12).sqrt()
        return product * (magnitude.tanh() / magnitude)


class StreamingEnhancer:
    """Enhance a signal while it arrives: push samples, get as many back, ``latency_samples`` late.

    ``concat(push(...), ..., flush())[latency_samples:]`` equals ``model(x)`` on the whole signal.

    Args:
        model: a DCCRN; its weights are copied, on its device, in eval mode.
        batch: number of parallel streams, all pushed together.
        block_frames: most frames processed at once; bounds memory on long pushes.

    Raises:
        ConfigError: the model cannot stream, or batch or block_frames is below 1.

    >>> model = DCCRN(DCCRNConfig(channels=(4, 4, 4, 4, 4, 4), rnn_units=4)).eval()
    >>> stream = StreamingEnhancer(model)
    >>> x = torch.randn(3000) * 0.1
    >>> y = torch.cat([stream.push(x[:7]), stream.push(x[7:2000]), stream.push(x[2000:]), stream.flush()])
    >>> torch.allclose(y[stream.latency_samples:], model(x[None])[0], atol=1e-5)
    True
    """

    def __init__(self, model: DCCRN, batch: int = 1, block_frames: int = 128) -> None:
        if batch < 1 or block_frames < 1:
            raise ConfigError(f"batch and block_frames must be at least 1, got {batch} and {block_frames}")
        self.core = StreamingCore(model)
        self.config = model.config
        self.batch, self.block_frames = batch, block_frames
        self.window = model.stft.window.detach().clone()  # (window,)
        self.frame_count = model.stft.frame_count
        stft = self.config.stft
        squares = F.pad(self.window**2, (0, -stft.window_length % stft.hop_length)).reshape(-1, stft.hop_length)
        self.weight = squares.sum(0).clamp_min(1e-8)  # (hop,): the overlap-added squared window is periodic in hop
        self.reset()

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
        overlap = self.config.stft.window_length - self.config.stft.hop_length
        device = self.window.device
        self.states = self.core.initial_states(self.batch)
        self.received = 0  # samples pushed
        self._input = torch.zeros(self.batch, overlap, device=device)  # samples that the next frame needs
        self._tail = torch.zeros(self.batch, overlap, device=device)  # overlap-add of frames already out
        self._ready = torch.zeros(self.batch, self.config.stft.hop_length - 1, device=device)  # finished output
        # the first finished samples belong to the padding left of the signal and to the decoder's warm-up
        self._blank = overlap + self.config.lookahead_frames * self.config.stft.hop_length
        self._as_numpy, self._as_single = False, False

    @torch.no_grad()
    def push(self, samples: Tensor | np.ndarray) -> Tensor | np.ndarray:
        """Take samples, give as many.

        Args:
            samples: float at 16 kHz, (sample,) or (batch, sample), any length >= 0, torch tensor or NumPy array.

        Returns:
            float32 of the same kind and shape: the enhanced signal ``latency_samples`` late, zeros before it starts.

        Raises:
            AudioError: wrong shape, or a sample that is NaN or infinite (it would stay in the states for good).
        """
        self._as_numpy = not isinstance(samples, Tensor)
        x = torch.as_tensor(samples).to(self.window.device, torch.float32)
        self._as_single = x.dim() == 1
        x = x[None] if self._as_single else x
        if x.dim() != 2 or x.shape[0] != self.batch:
            raise AudioError(
                f"expected samples of shape (sample,) or (batch={self.batch}, sample), got {tuple(np.shape(samples))}"
            )
        if not torch.isfinite(x).all():
            raise AudioError("samples hold NaN or infinity; clean them before pushing")
        self.received += x.shape[1]
        self._consume(x)
        return self._emit(x.shape[1])

    @torch.no_grad()
    def flush(self) -> Tensor | np.ndarray:
        """End the signal: give the last ``latency_samples`` samples, of the kind last pushed, and reset."""
        hop = self.config.stft.hop_length
        frames = self.frame_count(self.received)  # as many as the offline STFT makes
        padding = frames * hop - self.received
        self._consume(torch.zeros(self.batch, padding, device=self.window.device))
        self._consume(torch.zeros(self.batch, self.core.delay * hop, device=self.window.device), active=0.0)
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
        pieces = self._input.unfold(1, c.window_length, c.hop_length)  # (batch, frame, window)
        done = [self._ready]
        done += [self._process(pieces[:, k : k + self.block_frames], active) for k in range(0, frames, self.block_frames)]
        self._ready = torch.cat(done, dim=1)
        self._input = self._input[:, frames * c.hop_length :].clone()

    def _process(self, pieces: Tensor, active: float) -> Tensor:
        """Frames of samples (batch, frame, window) -> finished samples (batch, frame * hop)."""
        c = self.config.stft
        frames = pieces.shape[1]
        spectrum = torch.view_as_real(torch.fft.rfft(pieces * self.window, n=c.fft_size))  # (batch, frame, freq, 2)
        flags = torch.full((frames,), active, device=pieces.device)
        enhanced, self.states = self.core.stream_step(spectrum.permute(0, 3, 2, 1), self.states, flags)
        enhanced = torch.view_as_complex(enhanced.permute(0, 3, 2, 1).contiguous())  # (batch, frame, freq)
        pieces = torch.fft.irfft(enhanced, n=c.fft_size)[..., : c.window_length] * self.window
        span, finished = (frames - 1) * c.hop_length + c.window_length, frames * c.hop_length
        added = F.fold(pieces.transpose(1, 2), (1, span), (1, c.window_length), stride=(1, c.hop_length))[:, 0, 0]
        overlap = c.window_length - c.hop_length
        added[:, :overlap] += self._tail
        self._tail = added[:, finished:].clone()
        out = (added[:, :finished].reshape(-1, frames, c.hop_length) / self.weight).flatten(1).clamp(-1.0, 1.0)
        out[:, : self._blank] = 0.0
        self._blank = max(0, self._blank - finished)
        return out
