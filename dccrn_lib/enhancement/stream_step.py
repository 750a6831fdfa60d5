"""The network of a streamed DCCRN: a pure function (next frames, states) -> (finished frames, new states).

Every layer of a DCCRN joins two neighbouring frames, so one remembered frame per layer is all it needs:

    encoder   y[t]   = f(W x[t] + V x[t-1] + b)
    decoder   y[t-d] = f(W x[t] + V x[t-1] + b)        d = 1 frame of look-ahead (the paper) or 0

With d = 1 decoder layer i runs i frames behind the encoder, so its skip waits i frames in a queue, and the
mask meets the spectrum of L = 6 frames ago. Nothing is approximated: a flag travels with each frame and makes
frames before the first and after the last exact zeros, where the offline transposed convolution finds none.

Representation: real tensors (batch, chan, freq, frame), first half of the channels real, so that the step
exports to ONNX.
"""

from __future__ import annotations

import copy
from typing import Any, TypeGuard, cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from dccrn_lib.enhancement.block_layers import (
    FEW_CHANNELS,
    Geometry,
    Part,
    joined,
    narrow_transposed,
    three_products,
    whole,
)
from dccrn_lib.networks.complex_layers import ComplexConvTranspose2d, ComplexLSTM
from dccrn_lib.networks.dccrn import DCCRN, RealBottleneck
from dccrn_lib.runtime.errors import ConfigError

States = dict[str, Tensor]


def zeros(*shape: int, device: Any = None) -> Tensor:
    """Zeros in float32, which is what a stream keeps whatever :func:`torch.set_default_dtype` was told."""
    return torch.zeros(shape, dtype=torch.float32, device=device)


def can_stream(model: nn.Module) -> TypeGuard[DCCRN]:
    """Whether a network says of itself that it ``streams``."""
    return getattr(model, "streams", False)


def require_streamable(model: nn.Module) -> DCCRN:
    """Return ``model`` if it can stream; ConfigError with the reason otherwise."""
    if can_stream(model):
        return model
    if reason := getattr(model, "offline_reason", ""):
        raise ConfigError(
            f"{type(model).__name__} is not causal: {reason}, so it cannot stream; use enhance_file or the offline model"
        )
    raise ConfigError(f"expected a DCCRN from build_model or load_model, got {type(model).__name__}")


def _affine_of(norm: nn.Module, channels: int) -> tuple[Tensor, Tensor]:
    """Matrix A (chan, chan) and offset b (chan,) of a norm in eval mode, y = A x + b, found by probing it."""
    probe = torch.cat([zeros(1, channels), 4096.0 * torch.eye(channels, dtype=torch.float32)])  # (1 + chan, chan)
    norm = copy.deepcopy(norm).cpu().float().eval()
    answer = norm(probe[:, :, None, None])[:, :, 0, 0].double()
    return (answer[1:] - answer[0]).T / 4096.0, answer[0]


class FramePairLayer(nn.Module):
    """An encoder or decoder layer with an explicit past: y[t] = act(W x[t] + V x[t-1] + b).

    Block weight and norm are multiplied out once. A single frame is stacked with the one before it along chan,
    which leaves a small (transposed) convolution over freq; more frames go through the 2-d one.

    Shapes: parts of x, to be joined along chan, (batch, chan, freq, frame); previous (batch, chan, freq, 1) -> y
    (batch, chan', freq', frame) and the new previous.
    """

    weight: Tensor
    pair_weight: Tensor
    bias: Tensor

    def __init__(self, layer: Any) -> None:
        super().__init__()
        conv = layer.conv
        self.transposed = isinstance(conv, ComplexConvTranspose2d)
        self.stride, self.padding = conv.stride, conv.padding[0]
        self.output_padding = conv.output_padding if self.transposed else (0, 0)
        weight, bias = conv.block_weight().double().cpu(), conv.block_bias().double().cpu()
        matrix, offset = _affine_of(layer.norm, bias.numel())
        # the kernel's frame axis runs past to present in a convolution, present to past in a transposed one
        if self.transposed:
            weight = torch.einsum("oc,icft->ioft", matrix, weight).float()  # (in, out, freq, frame = 2)
            real_x, real_skip, imag_x, imag_skip = weight.chunk(4)  # as concat_skip joins them
            weight = torch.cat([real_x, imag_x, real_skip, imag_skip])  # x and skip as they come
            pair = torch.cat([weight[..., 1:], weight[..., :1]], dim=0)  # (2 in, out, freq, 1): past, present
        else:
            weight = torch.einsum("oc,cift->oift", matrix, weight).float()  # (out, in, freq, frame = 2)
            pair = torch.cat([weight[..., :1], weight[..., 1:]], dim=1)  # (out, 2 in, freq, 1): past, present
        self.register_buffer("weight", weight.contiguous(memory_format=torch.channels_last))
        self.register_buffer("pair_weight", pair.contiguous(memory_format=torch.channels_last))
        self.register_buffer("bias", (matrix @ bias + offset).float())
        self.geometry = Geometry(self.transposed, self.stride, self.padding, self.output_padding)
        self.three = three_products(conv, self.geometry, matrix, self.bias)
        self.slope = float(layer.act.weight) if isinstance(layer.act, nn.PReLU) else 1.0  # of PReLU; 1 is none

    def forward(self, parts: list[Part], previous: Tensor, valid: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """Parts (batch, chan, freq, frame), joined along chan, behind the ``previous`` frame -> output and last frame.

        ``valid`` (1, 1, 1, frame) holds 0 for input frames that count as zeros; None has none.
        """
        one, traced = sum(piece.shape[-1] for piece in parts[0]) == 1, _traced()
        if valid is not None and (one or traced):
            parts, valid = [[whole(part) * valid] for part in parts], None
        last = torch.cat([part[-1][..., -1:] for part in parts], dim=1)  # (batch, chan, freq, 1)
        if traced:
            y = self.geometry.convolve(_traced_line(previous, parts), self.weight, self.bias)
        else:
            y = self._single(torch.cat([previous, last], dim=1)) if one else self._block(previous, parts, valid)
        y = y if self.slope == 1.0 else F.leaky_relu(y, self.slope, inplace=True)
        return y, last if valid is None else last * valid[..., -1:]

    def _block(self, previous: Tensor, parts: list[Part], valid: Tensor | None) -> Tensor:
        """Many frames, in the form that costs least."""
        if self.three is not None and self.three.pays(previous):
            return self.three(previous, parts, valid)
        line = joined(previous, parts, valid)  # (batch, chan, freq, 1 + frame)
        if self.transposed and self.bias.numel() <= FEW_CHANNELS:
            return narrow_transposed(line, self.weight, self.bias, self.geometry)
        return self.geometry.convolve(line, self.weight, self.bias)

    def _single(self, line: Tensor) -> Tensor:
        """One frame below the one before it, (batch, 2 chan, freq, 1) -> (batch, chan', freq', 1)."""
        line = line.contiguous(memory_format=torch.channels_last)
        padding = (self.padding, 0)
        if self.transposed:
            return F.conv_transpose2d(line, self.pair_weight, self.bias, self.stride, padding, self.output_padding)
        return F.conv2d(line, self.pair_weight, self.bias, self.stride, padding)


def _traced() -> bool:
    """Whether the export is recording the operations, which then must not depend on values."""
    return torch.jit.is_tracing()  # public in its documentation, not in its annotations  # pyright: ignore[reportPrivateImportUsage]


def _traced_line(previous: Tensor, parts: list[Part]) -> Tensor:
    """What ``joined`` gives, as operations that a file can hold."""
    return torch.cat([previous, torch.cat([whole(part) for part in parts], dim=1)], dim=3)


def _lstm_step(lstm: nn.LSTM, x: Tensor, h: Tensor, c: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """LSTM over (frame, batch, size) from states h, c (layer, batch, units); a single frame skips the set-up."""
    if x.shape[0] > 1:
        y, (h, c) = lstm(x, (h, c))
        return y, h, c
    y, new = x[0], []
    for layer, weights in enumerate(lstm.all_weights):
        new.append(torch.lstm_cell(y, (h[layer], c[layer]), *weights))
        y = new[-1][0]
    return y[None], torch.stack([h for h, _ in new]), torch.stack([c for _, c in new])


def _delay(x: Tensor, queue: Tensor) -> tuple[Part, Tensor]:
    """Let frames wait in ``queue`` (..., delay): oldest out, in one or two pieces, newest in."""
    queue = queue.contiguous(memory_format=torch.channels_last)  # as x, where it has many frames
    delay = queue.shape[-1]
    if x.shape[-1] > delay and not _traced():  # the layer joins them
        return [queue, x[..., :-delay]], x[..., -delay:].clone(memory_format=torch.channels_last)
    line = torch.cat([queue, x], dim=-1)
    return [line[..., :-delay]], line[..., -delay:].clone(memory_format=torch.channels_last)


def masked_parts(mask: Tensor, spectrum: Tensor, kind: str, dim: int) -> Tensor:
    """Modes E, C, R of :func:`dccrn_lib.networks.dccrn.apply_mask` in real arithmetic.

    Args:
        mask, spectrum: of one shape, 2 long along ``dim``: real and imaginary part.
        kind: "E", "C" or "R".
        dim: axis of the two parts.

    Returns:
        The masked spectrum in the same form.
    """
    if kind == "R":
        return mask * spectrum
    m_real, m_imag = mask.split(1, dim=dim)
    x_real, x_imag = spectrum.split(1, dim=dim)
    product = torch.cat([m_real * x_real - m_imag * x_imag, m_real * x_imag + m_imag * x_real], dim=dim)
    if kind == "C":
        return product
    magnitude = (m_real * m_real + m_imag * m_imag + 1e-12).sqrt()
    return product * (magnitude.tanh() / magnitude)


class StreamingCore(nn.Module):
    """The spectrum-to-spectrum part of a DCCRN as a pure function of (frames, states).

    Weights are copied from ``model`` in its eval-mode behaviour: later training does not change this object.

    Args:
        model: any DCCRN: masks E/C/R, real or complex LSTM, plain or complex BatchNorm, look-ahead 0 or 1.

    Raises:
        ConfigError: the model is a Uformer, which is not causal, or no DCCRN at all.
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

        Keys: ``encoder.i``, ``decoder.i`` (batch, chan, freq, 1) the last input frame of each layer, in the decoder
        x and then the skip; ``skip.i``
        (batch, chan, freq, i) the queue of decoder layer i; ``spectrum`` (batch, 2, freq, L) frames that wait for
        their mask; ``valid`` (1, 1, 1, L) which of the waiting frames exist; ``lstm...`` (layer, batch, units)
        hidden and cell states, real and imaginary part stacked along batch in a complex LSTM.
        """
        c = self.config
        device = cast(FramePairLayer, self.decoder[0]).weight.device
        sizes = [2, *c.channels]
        n = len(c.channels)
        bins = [c.stft.fft_size // 2 >> i for i in range(n + 1)]
        shapes: dict[str, tuple[int, ...]] = {f"encoder.{i}": (batch, sizes[i], bins[i], 1) for i in range(n)}
        if isinstance(self.bottleneck, RealBottleneck):
            shapes |= {f"lstm.{part}": (c.rnn_layers, batch, c.rnn_units) for part in "hc"}
        else:
            kinds = [f"{kind}_{part}" for kind in ("real", "imag") for part in "hc"]
            names = [f"lstm.{i}.{kind}" for i in range(c.rnn_layers) for kind in kinds]
            shapes |= {name: (1, 2 * batch, c.rnn_units // 2) for name in names}
        shapes |= {f"decoder.{i}": (batch, 2 * sizes[n - i], bins[n - i], 1) for i in range(n)}
        if self.delay:
            shapes |= {f"skip.{i}": (batch, sizes[n - i], bins[n - i], i) for i in range(1, n)}
            shapes |= {"spectrum": (batch, 2, bins[0] + 1, self.delay), "valid": (1, 1, 1, self.delay)}
        return {name: zeros(*shape, device=device) for name, shape in shapes.items()}

    def stream_step(self, spectrum: Tensor, states: States, active: Tensor | None = None) -> tuple[Tensor, States]:
        """Take the next frames of the noisy spectrum, give the frames that are ready (L frames older).

        Args:
            spectrum: real and imaginary part, float32 (batch, 2, freq, frame); one frame in real time, more at
                will.
            states: from :meth:`initial_states` or the previous call; not changed.
            active: (frame,), 1.0 for a frame of the signal, 0.0 after its end; default all 1. L inactive frames
                drain the decoder, after which the states are spent.

        Returns:
            Enhanced frames (batch, 2, freq, frame), exact zeros for the first L, and the new states.
        """
        new: States = {}
        valid = torch.ones_like(spectrum[:1, :1, :1]) if active is None else active[None, None, None]
        if self.delay:
            line = torch.cat([states["valid"], valid], dim=-1)  # (1, 1, 1, L + frame): oldest first
            new["valid"] = line[..., -self.delay :]
        flags = line if self.delay else valid
        all_valid = not _traced() and bool(flags.all())  # usual, and a pass over memory less
        x, skips = spectrum[:, :, 1:], []  # DC dropped
        for i, layer in enumerate(self.encoder):
            x, new[f"encoder.{i}"] = layer([[x]], states[f"encoder.{i}"])
            skips.append(x)
        x = self._bottleneck_step(x, states, new)
        for i, layer in enumerate(self.decoder):
            skip = [skips[-1 - i]]
            if self.delay and i:
                skip, new[f"skip.{i}"] = _delay(skip[0], states[f"skip.{i}"])
                valid = line[..., self.delay - i : -i]
            x, new[f"decoder.{i}"] = layer([[x], skip], states[f"decoder.{i}"], None if all_valid else valid)
        if self.delay:
            waited, new["spectrum"] = _delay(spectrum, states["spectrum"])
            spectrum = whole(waited)
            valid = line[..., : -self.delay]
        mask = F.pad(x.float(), (0, 0, 1, 0))  # (batch, 2, freq, frame): 0 at DC
        return masked_parts(mask, spectrum, self.config.mask, dim=1) * valid, {name: new[name] for name in states}

    forward = stream_step

    def _bottleneck_step(self, x: Tensor, states: States, new: States) -> Tensor:
        """LSTM layers and projection, (batch, chan, freq, frame) -> same; writes their states into ``new``."""
        net, (batch, chan, freq) = self.bottleneck, x.shape[:3]
        seq = x.permute(3, 0, 1, 2).flatten(2)  # (frame, batch, chan * freq)
        if isinstance(net, RealBottleneck):
            seq, new["lstm.h"], new["lstm.c"] = _lstm_step(net.lstm, seq, states["lstm.h"], states["lstm.c"])
            seq = net.project(seq)
        else:
            real, imag = seq.chunk(2, dim=2)  # each (frame, batch, chan / 2 * freq)
            for i, layer in enumerate(cast("list[ComplexLSTM]", net.lstm)):
                both, answers = torch.cat([real, imag], dim=1), []  # (frame, 2 batch, size)
                for kind, lstm in (("real", layer.lstm_real), ("imag", layer.lstm_imag)):
                    h, c = f"lstm.{i}.{kind}_h", f"lstm.{i}.{kind}_c"
                    answer, new[h], new[c] = _lstm_step(lstm, both, states[h], states[c])
                    answers += answer.chunk(2, dim=1)
                rr, ri, ir, ii = answers
                real, imag = rr - ii, ri + ir
            seq = torch.cat([net.project_real(real), net.project_imag(imag)], dim=2)
        return seq.reshape(-1, batch, chan, freq).permute(1, 2, 3, 0)  # (batch, chan, freq, frame)
