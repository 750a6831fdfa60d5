"""One frame of a streamed DCCRN at the speed of its matrix products: every layer is a gather of rows and one product.

What a convolution over frequency does to a single frame is a matrix product: the five neighbouring bins of this frame and
the five of the frame before stand side by side in a row, and

    encoder   y[j]             = f([x[2j - 2 .. 2j + 2] of both frames] W + b)
    decoder   y[2j], y[2j + 1] = f([x[j - 1 .. j + 1] of both frames] W + b)      even and odd bin in one row

The transposed convolution spreads its input over even and odd bins; read from the output, each needs three neighbours. The
tap that the odd bins lack is a block of zeros in W, a sixth of the products, and the price of one product for both.
Complex weights are written out as blocks, BatchNorm is multiplied in, rows and columns are sorted so that nothing needs a
transposition. ``StreamingCore`` in stream_step.py is the readable form of the same arithmetic for any number of frames;
this one takes the weights from there, and a quarter of the time.

Representation: features of a frame are real tensors (batch, freq, chan), first half of the channels real.
"""

from __future__ import annotations

from typing import cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from dccrn_lib.enhancement.stream_step import FramePairLayer, States, StreamingCore, masked_parts, zeros
from dccrn_lib.networks.complex_layers import ComplexLSTM
from dccrn_lib.networks.dccrn import RealBottleneck


class RowProduct(nn.Module):
    """An encoder or decoder layer for one frame: rows are gathered, multiplied by one matrix, and rectified.

    Args:
        layer: its folded weights.
        freq: bins of the input.

    Shapes: previous and frame (batch, row, chan), where row = freq in the encoder and 2 freq in the decoder, whose
    input has the rows of x and then those of the skip -> (batch, freq', chan').
    """

    weight: Tensor
    bias: Tensor
    index: Tensor
    zero: Tensor

    def __init__(self, layer: FramePairLayer, freq: int) -> None:
        super().__init__()
        weight, bias, index = (_decoder_matrix if layer.transposed else _encoder_matrix)(layer, freq)
        self.chan, self.out = layer.weight.shape[0 if layer.transposed else 1], bias.numel()
        if layer.transposed:
            self.chan, bias = self.chan // 2, bias.repeat(2)
        self.register_buffer("weight", weight.t().contiguous().t())  # the inputs of an output side by side in memory
        self.register_buffer("bias", bias.clone())
        self.register_buffer("index", index)  # of the gathered rows; row 0 is zeros, beyond the lowest and highest bin
        self.register_buffer("zero", zeros(1, 1, self.chan))
        self.slope = layer.slope

    def forward(self, previous: Tensor, frame: Tensor) -> Tensor:
        """One frame, ``previous`` the one before it: (batch, row, chan) each -> (batch, freq', chan')."""
        batch = int(frame.shape[0])  # a plain number, also where the step is traced for export
        zero = self.zero if batch == 1 else self.zero.expand(batch, -1, -1)
        line = torch.cat([zero, previous, frame], dim=1)  # (batch, 1 + 2 row, chan)
        rows = line.index_select(1, self.index).reshape(-1, self.weight.shape[0])  # (batch * freq, taps * chan)
        y = torch.addmm(self.bias, rows, self.weight)  # (batch * freq, chan') or both bins of the decoder
        y = y if self.slope == 1.0 else F.leaky_relu(y, self.slope)
        return y.reshape(batch, -1, self.out)  # (batch, freq', chan')


def _encoder_matrix(layer: FramePairLayer, freq: int) -> tuple[Tensor, Tensor, Tensor]:
    """Matrix (taps * 2 * chan, chan'), bias (chan',) and gathered rows (freq' * taps * 2,) of an encoder layer."""
    weight = layer.weight.cpu()  # (chan', chan, taps, frame), past to present
    taps, stride = weight.shape[2], layer.stride[0]
    bins = stride * torch.arange(freq // stride)[:, None] + torch.arange(taps) - layer.padding  # (freq', taps)
    rows = torch.stack([1 + bins, 1 + freq + bins], dim=2)  # (freq', taps, frame)
    inside = ((bins >= 0) & (bins < freq))[..., None]
    matrix = weight.permute(2, 3, 1, 0).flatten(0, 2)  # (taps * frame * chan, chan')
    return matrix, layer.bias.cpu(), torch.where(inside, rows, 0).flatten()


def _decoder_matrix(layer: FramePairLayer, freq: int) -> tuple[Tensor, Tensor, Tensor]:
    """Matrix (3 * 4 * chan, 2 * chan'), bias (chan',) and gathered rows (freq * 3 * 4,) of a decoder layer.

    A row holds for each of three bins: x and skip of the past frame, x and skip of the present one.
    """
    weight = layer.weight.cpu().flip(3)  # (2 * chan, chan', taps, frame), now past to present
    stride, (both, out, taps, _) = layer.stride[0], weight.shape
    parts = weight.unflatten(0, (2, both // 2))  # (part, chan, chan', taps, frame): x and skip
    reach = torch.arange(-1, 2)
    matrix = zeros(3, 2, 2, both // 2, stride, out)  # (bin, frame, part, chan, parity, chan')
    for j, shift in enumerate(reach.tolist()):
        for parity in range(stride):
            tap = parity + layer.padding - stride * shift  # output 2 m + parity takes x[m + shift] by this tap
            if 0 <= tap < taps:
                matrix[j, :, :, :, parity] = parts[:, :, :, tap].permute(3, 0, 1, 2)
    bins = torch.arange(freq)[:, None] + reach  # (freq, bin)
    rows = 1 + freq * torch.arange(4) + bins[..., None]  # (freq, bin, frame * part)
    inside = ((bins >= 0) & (bins < freq))[..., None]
    return matrix.flatten(0, 3).flatten(1), layer.bias.cpu(), torch.where(inside, rows, 0).flatten()


class GatedStep(nn.Module):
    """One frame through one LSTM layer: gates by one product with [x, h], sorted input, forget, output, candidate.

    Args:
        lstm: with one layer's weights at ``index``.
        order: of the inputs, where they come sorted otherwise than in training; None as they are.

    Shapes: x (batch, size), h and c (batch, units) -> new h and c.
    """

    weight: Tensor
    bias: Tensor

    def __init__(self, lstm: nn.LSTM, index: int, order: Tensor | None = None) -> None:
        super().__init__()
        w_x, w_h, b_x, b_h = (w.detach().cpu() for w in lstm.all_weights[index])
        w_x = w_x if order is None else w_x[:, order]
        sort = (
            torch.arange(4 * lstm.hidden_size).unflatten(0, (4, -1))[[0, 1, 3, 2]].flatten()
        )  # i, f, g, o -> i, f, o, g
        self.units = lstm.hidden_size
        self.register_buffer("weight", torch.cat([w_x, w_h], dim=1)[sort].t().contiguous())  # (size + units, 4 units)
        self.register_buffer("bias", (b_x + b_h)[sort])

    def forward(self, x: Tensor, h: Tensor, c: Tensor) -> tuple[Tensor, Tensor]:
        """x (batch, size), h and c (batch, units) -> new h and c."""
        gates = torch.addmm(self.bias, torch.cat([x, h], dim=1), self.weight)  # (batch, 4 units)
        gates, candidate = gates.split([3 * self.units, self.units], dim=1)
        i, f, o = gates.sigmoid().split(self.units, dim=1)
        # c' = f c + i tanh(g),   h' = o tanh(c')
        c = f * c + i * candidate.tanh()
        return o * c.tanh(), c


class RealBottleneckStep(nn.Module):
    """LSTM layers and projection for one frame, (batch, freq, chan) -> same."""

    weight: Tensor
    bias: Tensor

    def __init__(self, net: RealBottleneck, chan: int, freq: int) -> None:
        super().__init__()
        self.chan, self.freq = chan, freq
        order = torch.arange(chan * freq).reshape(chan, freq).t().flatten()  # training sorts by chan, then freq
        layers = range(net.lstm.num_layers)
        self.layers = nn.ModuleList(GatedStep(net.lstm, i, None if i else order) for i in layers)
        self.register_buffer("weight", net.project.weight.detach().cpu()[order].t().contiguous())
        self.register_buffer("bias", net.project.bias.detach().cpu()[order])

    def forward(self, x: Tensor, states: States, new: States) -> Tensor:
        """One frame (batch, freq, chan) -> same; reads ``states`` and writes ``new``, name -> (batch, units)."""
        y = x.flatten(1)  # (batch, freq * chan)
        for i, layer in enumerate(self.layers):
            h, c = f"lstm.{i}.h", f"lstm.{i}.c"
            y, new[c] = layer(y, states[h], states[c])
            new[h] = y
        y = torch.addmm(self.bias, y, self.weight)
        return y.reshape(-1, self.freq, self.chan)


class ComplexBottleneckStep(nn.Module):
    """Complex LSTM layers and two projections for one frame, (batch, freq, chan) -> same.

    x_r and x_i are two rows of the same product, as in ComplexLSTM.
    """

    weight_real: Tensor
    weight_imag: Tensor
    bias_real: Tensor
    bias_imag: Tensor

    def __init__(self, net: nn.Module, chan: int, freq: int) -> None:
        super().__init__()
        self.chan, self.freq = chan, freq
        order = torch.arange(chan // 2 * freq).reshape(-1, freq).t().flatten()  # training sorts by chan, then freq
        lstms = cast("list[ComplexLSTM]", net.lstm)
        self.layers = nn.ModuleList(
            nn.ModuleList(GatedStep(lstm, 0, None if i else order) for lstm in (layer.lstm_real, layer.lstm_imag))
            for i, layer in enumerate(lstms)
        )
        for part in ("real", "imag"):
            project = cast(nn.Linear, getattr(net, f"project_{part}"))
            self.register_buffer(f"weight_{part}", project.weight.detach().cpu()[order].t().contiguous())
            self.register_buffer(f"bias_{part}", project.bias.detach().cpu()[order])

    def forward(self, x: Tensor, states: States, new: States) -> Tensor:
        """One frame (batch, freq, chan) -> same; reads ``states`` and writes ``new``, name -> (2 * batch, units)."""
        batch, half = int(x.shape[0]), self.chan // 2
        y = x.reshape(batch, self.freq, 2, half).permute(2, 0, 1, 3).reshape(2 * batch, -1)  # x_r above x_i
        for i, pair in enumerate(cast("list[nn.ModuleList]", self.layers)):
            answers = []
            for kind, layer in zip(("real", "imag"), pair, strict=True):
                h, c = f"lstm.{i}.{kind}_h", f"lstm.{i}.{kind}_c"
                new[h], new[c] = layer(y, states[h], states[c])
                answers.append(new[h])
            (rr, ri), (ir, ii) = (answer.split(batch) for answer in answers)
            real, imag = rr - ii, ri + ir  # (batch, units)
            y = torch.cat([real, imag])
        real = torch.addmm(self.bias_real, real, self.weight_real)  # (batch, freq * chan / 2)
        imag = torch.addmm(self.bias_imag, imag, self.weight_imag)
        both = [part.reshape(batch, self.freq, half) for part in (real, imag)]
        return torch.cat(both, dim=2)  # (batch, freq, chan)


def _wait(frame: Tensor, queue: Tensor) -> tuple[Tensor, Tensor]:
    """Let frames (batch, ...) wait in ``queue`` (batch, delay, ...): oldest out, newest in."""
    newest = frame[:, None]
    return queue[:, 0], newest if queue.shape[1] == 1 else torch.cat([queue[:, 1:], newest], dim=1)


class FrameStep(nn.Module):
    """The network of a streamed DCCRN for one frame, equal to ``core.stream_step`` and several times as fast.

    Args:
        core: folded weights; they are copied, in another order.
    """

    dc: Tensor

    @torch.no_grad()
    def __init__(self, core: StreamingCore) -> None:
        super().__init__()
        self.config, self.delay = core.config, core.delay
        sizes, n = [2, *core.config.channels], len(core.config.channels)
        bins = [core.config.stft.fft_size // 2 >> i for i in range(n + 1)]
        encoder, decoder = (cast("list[FramePairLayer]", part) for part in (core.encoder, core.decoder))
        self.sizes, self.bins = sizes, bins
        self.encoder = nn.ModuleList(RowProduct(layer, bins[i]) for i, layer in enumerate(encoder))
        self.decoder = nn.ModuleList(RowProduct(layer, bins[n - i]) for i, layer in enumerate(decoder))
        kind = RealBottleneckStep if isinstance(core.bottleneck, RealBottleneck) else ComplexBottleneckStep
        self.bottleneck = kind(cast(RealBottleneck, core.bottleneck), sizes[-1], bins[-1])
        self.register_buffer("dc", zeros(1, 1, 2))
        self.to(encoder[0].weight.device).eval().requires_grad_(False)

    @property
    def device(self) -> torch.device:
        """Where the weights lie."""
        return cast(RowProduct, self.encoder[0]).weight.device

    def initial_states(self, batch: int = 1) -> States:
        """Zero states for ``batch`` parallel streams.

        Keys: ``encoder.i`` (batch, freq, chan) the last input frame of each layer; ``decoder.i`` (batch, 2 freq, chan)
        the same, x above the skip; ``skip.i`` (batch, i, freq, chan) the queue of decoder layer i; ``spectrum``
        (batch, L, freq, 2) frames that wait for their mask; ``valid`` (1, L) which of the waiting frames exist;
        ``lstm...`` (batch, units), in a complex LSTM (2 batch, units), the real part above the imaginary one.
        """
        sizes, bins, n, c = self.sizes, self.bins, len(self.encoder), self.config
        shapes: dict[str, tuple[int, ...]] = {f"encoder.{i}": (batch, bins[i], sizes[i]) for i in range(n)}
        kinds = [f"{kind}_{part}" for kind in ("real", "imag") for part in "hc"] if c.lstm == "complex" else ["h", "c"]
        rows, units = (2 * batch, c.rnn_units // 2) if c.lstm == "complex" else (batch, c.rnn_units)
        shapes |= {f"lstm.{i}.{kind}": (rows, units) for i in range(c.rnn_layers) for kind in kinds}
        shapes |= {f"decoder.{i}": (batch, 2 * bins[n - i], sizes[n - i]) for i in range(n)}
        if self.delay:
            shapes |= {f"skip.{i}": (batch, i, bins[n - i], sizes[n - i]) for i in range(1, n)}
            shapes |= {"spectrum": (batch, self.delay, bins[0] + 1, 2), "valid": (1, self.delay)}
        return {name: zeros(*shape, device=self.device) for name, shape in shapes.items()}

    def forward(self, spectrum: Tensor, states: States, active: Tensor) -> tuple[Tensor, States]:
        """Take the next frame of the noisy spectrum, give the frame that is ready (L frames older).

        Args:
            spectrum: real and imaginary part, float32 (batch, freq, 2).
            states: from :meth:`initial_states` or the previous call; not changed.
            active: (1,), 1.0 for a frame of the signal, 0.0 after its end.

        Returns:
            Enhanced frame (batch, freq, 2), exact zeros for the first L, and the new states.
        """
        new: States = {}
        x, skips, valid = spectrum[:, 1:], [], active  # DC dropped
        if self.delay:
            line = torch.cat([states["valid"], active[None]], dim=1)  # (1, L + 1): oldest first
            new["valid"] = line[:, 1:]
        for i, layer in enumerate(self.encoder):
            new[f"encoder.{i}"] = x
            x = layer(states[f"encoder.{i}"], x)
            skips.append(x)
        x = self.bottleneck(x, states, new)
        for i, layer in enumerate(self.decoder):
            skip = skips[-1 - i]
            if self.delay and i:
                skip, new[f"skip.{i}"] = _wait(skip, states[f"skip.{i}"])
                valid = line[:, self.delay - i]
            frame = torch.cat([x, skip], dim=1) * valid  # (batch, 2 freq, chan)
            x, new[f"decoder.{i}"] = layer(states[f"decoder.{i}"], frame), frame
        if self.delay:
            spectrum, new["spectrum"] = _wait(spectrum, states["spectrum"])
            valid = line[:, 0]
        enhanced = masked_parts(x, spectrum[:, 1:], self.config.mask, dim=2) * valid
        dc = self.dc if enhanced.shape[0] == 1 else self.dc.expand(enhanced.shape[0], -1, -1)
        return torch.cat([dc, enhanced], dim=1), {name: new[name] for name in states}
