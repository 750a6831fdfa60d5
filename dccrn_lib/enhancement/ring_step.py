"""A live stream's frames through FrameStep's matrices, in place: nothing is allocated or moved from frame to frame.

What costs most in PyTorch, beside the products themselves, is the number of operations: at one frame each takes longer to
call than to compute. So each stage of the network (one number of bins) has a buffer of rows that holds its last frames in
turns:

    row 0 | slots of the encoder's frames (t mod SLOTS) | slots of the decoder's frames (t mod 2)
    zeros

A layer gathers its rows from there, by a list of row numbers prepared for each slot, multiplies, and its product is written
where the next layer gathers. The neighbouring frame, the frames that a skip waits for, the noisy spectrum that waits for
its mask: all of them lie where they were written. Three operations a layer remain, six where a large complex matrix is read
by half.
"""

from __future__ import annotations

from typing import Any, cast

import torch
import torch.nn.functional as F
from torch import Tensor

from dccrn_lib.enhancement.frame_step import ComplexBottleneckStep, FrameStep, GatedStep, RealBottleneckStep, RowProduct
from dccrn_lib.enhancement.stream_step import States, zeros

LARGE_MATRIX = 40_000  # numbers, from which on reading half of them is faster


class _Stage:
    """Rows of one number of bins, (1 + (slots + 2) freq batch, chan), and its slots.

    The encoder's rows stand in order (freq, batch). The decoder's stand in order (freq / 2, batch, 2) where ``paired``, as
    both bins of a product come side by side.

    Args:
        freq: bins.
        first: the first of them that the network hears; the stage of the spectrum holds DC, too.
        chan, batch: of the frames.
        slots: frames of the encoder that are kept.
        paired: order of the decoder's rows.
    """

    def __init__(self, freq: int, first: int, chan: int, batch: int, slots: int, paired: bool, device: Any) -> None:
        self.freq, self.first, self.chan, self.batch, self.slots, self.paired = freq, first, chan, batch, slots, paired
        size = freq * batch
        self.rows = zeros(1 + (slots + 2) * size, chan, device=device)
        parts = self.rows[1:].split(size)
        self.encoder, self.decoder = parts[:slots], parts[slots:]  # of (freq * batch, chan)

    def row(self, freq: Tensor, stream: Tensor, slot: int, decoder: bool) -> Tensor:
        """Numbers of the rows of these bins, as the network counts them, of these streams in this slot."""
        freq = freq + self.first
        place = freq * self.batch + stream
        if decoder and self.paired:
            place = (freq // 2 * self.batch + stream) * 2 + freq % 2
        return 1 + (slot + self.slots * decoder) * self.freq * self.batch + place

    def encoder_frame(self, slot: int) -> Tensor:
        """View (batch, chan, freq) of a frame of the encoder."""
        return self.encoder[slot].view(self.freq, self.batch, self.chan).permute(1, 2, 0)

    def decoder_frame(self, slot: int) -> Tensor:
        """View (batch, chan, freq) of a frame of the decoder; (batch, chan, freq / 2, 2) where paired."""
        if not self.paired:
            return self.decoder[slot].view(self.freq, self.batch, self.chan).permute(1, 2, 0)
        return self.decoder[slot].view(self.freq // 2, self.batch, 2, self.chan).permute(1, 3, 0, 2)


class _Layer:
    """A RowProduct from one stage to the next.

    Args:
        product: its matrix.
        stage: whose rows it gathers.
        turns: for each turn the slots of the past and the present frame; in the decoder of past x, past skip, present x and
            present skip.
        targets: for each turn where its product goes.
    """

    def __init__(self, product: RowProduct, stage: _Stage, turns: list[tuple[int, ...]], targets: list[Tensor]) -> None:
        self.weight, self.bias, self.slope, self.rows = product.weight, product.bias, product.slope, stage.rows
        taps, bins = self.weight.shape[0] // product.chan, stage.freq - stage.first
        line = product.index.cpu().reshape(-1, 1, taps) - 1  # (freq', 1, taps); -1 beyond the lowest and highest bin
        block, freq = line.div(bins, rounding_mode="floor"), line % bins
        stream = torch.arange(stage.batch)[:, None]
        self.index = []
        for slots in turns:
            index = torch.zeros(line.shape[0], stage.batch, taps, dtype=torch.long)
            for k, slot in enumerate(slots):
                of_decoder = len(slots) == 4 and k % 2 == 0
                index += torch.where(block == k, stage.row(freq, stream, slot, of_decoder), 0)
            self.index.append(index.flatten().to(stage.rows.device, torch.int32))
        self.gathered = zeros(self.index[0].numel(), product.chan, device=stage.rows.device)
        self.matrix = self.gathered.view(-1, self.weight.shape[0])  # (freq' * batch, taps * chan)
        self.targets = targets

    def __call__(self, turn: int) -> None:
        y = self.targets[turn]
        torch.index_select(self.rows, 0, self.index[turn], out=self.gathered)
        torch.addmm(self.bias, self.matrix, self.weight, out=y)
        if self.slope != 1.0:
            F.leaky_relu_(y, self.slope)


class _ComplexLayer(_Layer):
    """A layer with a complex matrix, of which half is stored.

    All matrices of a frame together are larger than a core's cache, so a frame waits for them more than for anything else.
    The real and the imaginary parts of the input become rows of one product with [A, B] (taps * chan / 2, chan'):

        y_r = x_r A - x_i B + b_r          y_i = scale (x_r B + x_i A) + b_i

    Args:
        halves: [A, B] and scale, from :func:`complex_halves`.
        others: as in _Layer.
    """

    def __init__(self, halves: tuple[Tensor, Tensor], product: RowProduct, stage: _Stage, *others: Any) -> None:
        super().__init__(product, stage, *others)
        self.weight, self.scale = halves
        half, out, device = product.chan // 2, product.out // 2, stage.rows.device
        self.rows = stage.rows.view(-1, half)  # a real and an imaginary row in turns
        self.index = [torch.cat([2 * index, 2 * index + 1]) for index in self.index]
        self.gathered = zeros(self.index[0].numel(), half, device=device)
        self.matrix = self.gathered.view(-1, self.weight.shape[0])  # (2 * freq' * batch, taps * chan / 2)
        self.product = zeros(self.matrix.shape[0], self.weight.shape[1], device=device)
        (rr, ri), (ir, ii) = (x.unbind(2) for x in self.product.view(2, self.matrix.shape[0] // 2, -1, 2, out))
        self.joined = zeros(self.matrix.shape[0] // 2, self.weight.shape[1], device=device)
        real, imag = self.joined.view(self.joined.shape[0], -1, 2, out).unbind(2)
        self.difference, self.sum = (rr, ii, real), (ri, ir, imag)

    def __call__(self, turn: int) -> None:
        y = self.targets[turn]
        torch.index_select(self.rows, 0, self.index[turn], out=self.gathered)
        torch.mm(self.matrix, self.weight, out=self.product)
        (rr, ii, real), (ri, ir, imag) = self.difference, self.sum
        torch.sub(rr, ii, out=real)
        torch.add(ri, ir, out=imag)
        torch.addcmul(self.bias, self.joined, self.scale, out=y)
        if self.slope != 1.0:
            F.leaky_relu_(y, self.slope)


def complex_halves(product: RowProduct) -> tuple[Tensor, Tensor] | None:
    """The halves of a layer's matrix, where it is complex.

    Complex weights are [[A, B], [-B, A]] from (real, imaginary) inputs to (real, imaginary) outputs. A plain BatchNorm
    scales the outputs one by one, which leaves a factor between the two columns; complex BatchNorm mixes them.

    Args:
        product: the layer; ``weight`` (taps * chan, bins * chan'), both bins of a product in the decoder.

    Returns:
        [A, B] (taps * chan / 2, bins * chan') and the factors (bins * chan'), 1 at real outputs; None where the matrix is
        not of that form, to the rounding of float32.
    """
    half, out, like = product.chan // 2, product.out // 2, product.weight
    # (tap, part, chan / 2, bin, part', chan' / 2)
    weight = like.double().cpu().unflatten(0, (-1, 2, half)).unflatten(3, (-1, 2, out))
    a, b = weight[:, 0, :, :, 0], -weight[:, 1, :, :, 0]  # to the real outputs, (tap, chan / 2, bin, chan' / 2)
    scaled_a, scaled_b = weight[:, 1, :, :, 1], weight[:, 0, :, :, 1]  # to the imaginary ones
    scale = (a * scaled_a + b * scaled_b).sum((0, 1)) / (a * a + b * b).sum((0, 1))  # (bin, chan' / 2)
    error = ((scaled_a - scale * a) ** 2 + (scaled_b - scale * b) ** 2).sum((0, 1))
    if not (error <= 1e-12 * (scaled_a**2 + scaled_b**2).sum((0, 1))).all():  # so also where nothing reaches an output
        return None
    halves = torch.stack([a, b], dim=3).flatten(2).flatten(0, 1)
    return halves.to(like), torch.stack([torch.ones_like(scale), scale], dim=1).flatten().to(like)


def _layer(product: RowProduct, *others: Any) -> _Layer:
    """Of a large complex matrix the form that reads half of it; at small ones its three operations more cost more."""
    halves = complex_halves(product) if product.weight.numel() >= LARGE_MATRIX else None
    return _ComplexLayer(halves, product, *others) if halves else _Layer(product, *others)


class _Gates:
    """One frame through LSTM layers that hear the same input: one for a real LSTM, two for a complex one.

    ``line`` (row, ...) holds h of the first, x, h of the second, so that [h, x] and [x, h] are views; alone, x and h.
    """

    def __init__(self, steps: list[GatedStep], rows: int) -> None:
        count, units, device = len(steps), steps[0].units, steps[0].weight.device
        inputs = steps[0].weight.shape[0]
        size, lead = inputs - units, units if count == 2 else 0
        self.line = zeros(rows, size + count * units, device=device)
        self.x = self.line[:, lead : lead + size]
        self.h = self.line.as_strided((count, rows, units), (inputs, self.line.shape[1], 1), 0 if count == 2 else size)
        self.inputs = [self.line[:, :inputs], self.line[:, lead:]][:count]
        weights = [step.weight for step in steps]  # rows x, then h
        if count == 2:
            weights[0] = torch.cat([weights[0][size:], weights[0][:size]])
        gates = zeros(count, rows, 4 * units, device=device)
        self.products = list(zip([step.bias for step in steps], self.inputs, weights, gates, strict=True))
        self.sigmoids, self.candidate = gates.split([3 * units, units], dim=2)
        self.parts = self.sigmoids.chunk(3, dim=2)  # input, forget, output
        self.c, self.squashed = zeros(2, count, rows, units, device=device)

    def __call__(self) -> None:
        for bias, x, weight, gates in self.products:
            torch.addmm(bias, x, weight, out=gates)
        self.sigmoids.sigmoid_()
        self.candidate.tanh_()
        i, f, o = self.parts
        # c' = f c + i tanh(g),   h' = o tanh(c')
        self.c.mul_(f).addcmul_(i, self.candidate)
        torch.mul(o, torch.tanh(self.c, out=self.squashed), out=self.h)


class _Bottleneck:
    """LSTM layers and projection from the encoder's deepest frame to the decoder's first.

    A complex LSTM takes real and imaginary part as two rows, (2 batch, units), as ComplexLSTM does.
    """

    def __init__(self, net: RealBottleneckStep | ComplexBottleneckStep, stage: _Stage) -> None:
        parts = 2 if isinstance(net, ComplexBottleneckStep) else 1
        batch, freq, chan = stage.batch, stage.freq, stage.chan // parts
        # with two parts a layer is a ModuleList of two
        steps = [list(pair) if parts == 2 else [pair] for pair in net.layers]  # pyright: ignore[reportArgumentType]
        self.layers = [_Gates(cast("list[GatedStep]", pair), parts * batch) for pair in steps]
        last = zeros(parts * batch, self.layers[-1].h.shape[2], device=stage.rows.device)
        halves = [layer.h.unflatten(1, (parts, batch)) for layer in self.layers]  # (lstm, part, batch, units) of each
        following = [*(layer.x for layer in self.layers[1:]), last]
        self.joins = list(zip(halves, [y.unflatten(0, (parts, batch)) for y in following], strict=True))
        self.parts, names = parts, ["real", "imag"] if parts == 2 else [""]
        projected = zeros(parts, batch, freq * chan, device=stage.rows.device)
        weights = [getattr(net, f"weight_{name}".rstrip("_")) for name in names]
        biases = [getattr(net, f"bias_{name}".rstrip("_")) for name in names]
        self.products = list(zip(biases, last.split(batch), weights, projected, strict=True))

        def sorted_by_part(frame: Tensor) -> Tensor:
            """A slot (freq * batch, parts * chan) as a view (part, batch, freq, chan)."""
            return frame.view(freq, batch, parts, chan).permute(2, 1, 0, 3)

        self.entry = self.layers[0].x.unflatten(0, (parts, batch)).unflatten(2, (freq, chan))
        self.sources = [sorted_by_part(frame) for frame in stage.encoder]
        self.exit = projected.view(parts, batch, freq, chan)
        self.targets = [sorted_by_part(frame) for frame in stage.decoder]

    def __call__(self, turn: int) -> None:
        self.entry.copy_(self.sources[turn])
        for layer, (h, y) in zip(self.layers, self.joins, strict=True):
            layer()
            if self.parts == 2:  # real = LSTM_r(x_r) - LSTM_i(x_i),   imag = LSTM_r(x_i) + LSTM_i(x_r)
                torch.sub(h[0, 0], h[1, 1], out=y[0])
                torch.add(h[0, 1], h[1, 0], out=y[1])
            else:
                y.copy_(h[0])
        for bias, x, weight, out in self.products:
            torch.addmm(bias, x, weight, out=out)
        self.targets[turn % 2].copy_(self.exit)


class RingStep:
    """The network of a streamed DCCRN, one frame at a time, with the states inside; equal to ``core.stream_step``.

    Args:
        step: the matrices; shared, not copied.
        batch: number of parallel streams.
    """

    @torch.inference_mode()
    def __init__(self, step: FrameStep, batch: int = 1) -> None:
        self.step, self.batch = step, batch
        delay, n = step.delay, len(step.encoder)
        self.slots = delay + 2 + delay % 2  # even, so that turns of the slots are turns of the decoder's two as well
        device = step.device
        stages = [_Stage(step.bins[0] + 1, 1, 2, batch, self.slots, False, device)]
        stages += [_Stage(step.bins[k], 0, step.sizes[k], batch, self.slots, k < n, device) for k in range(1, n + 1)]
        self.stages, turns = stages, range(self.slots)
        self.encoder = [
            _layer(product, stages[i], [((t - 1) % self.slots, t) for t in turns], list(stages[i + 1].encoder))
            for i, product in enumerate(cast("list[RowProduct]", step.encoder))
        ]
        self.bottleneck = _Bottleneck(cast(Any, step.bottleneck), stages[n])
        mask = zeros(step.bins[0] // 2 * batch, 4, device=device)
        self.decoder = []
        for i, product in enumerate(cast("list[RowProduct]", step.decoder)):
            late = [(t - self._late(i)) % self.slots for t in turns]
            slots = [((t - 1) % 2, (late[t] - 1) % self.slots, t % 2, late[t]) for t in turns]
            frames = stages[n - 1 - i].decoder if i < n - 1 else [mask, mask]
            pairs = [frame.view(-1, 2 * product.out) for frame in frames]  # both bins of a product in a row
            self.decoder.append(_layer(product, stages[n - i], slots, [pairs[t % 2] for t in turns]))
        self._view_spectra(mask)
        self.reset()

    def _late(self, layer: int) -> int:
        """Frames by which a decoder layer runs behind the encoder."""
        return layer if self.step.delay else 0

    def _view_spectra(self, mask: Tensor) -> None:
        """The mask and the spectra that it meets, as complex (freq / 2, batch, 2)."""
        batch, first = self.batch, self.stages[0]
        pairs = (first.freq // 2, batch, 2)
        spectra = [torch.view_as_complex(frame.view(first.freq, batch, 2)) for frame in first.encoder]  # (freq, batch)
        self.entries = [spectrum.t() for spectrum in spectra]  # (batch, freq)
        self.noisy = [spectrum[1:].unflatten(0, (-1, 2)).transpose(1, 2) for spectrum in spectra]
        self.mask = torch.view_as_complex(mask.view(*pairs, 2))
        self.magnitude, self.ratio = zeros(2, *pairs, device=mask.device)
        self.enhanced = torch.zeros(batch, first.freq, dtype=torch.complex64, device=mask.device)  # 0 at DC
        self.out = self.enhanced[:, 1:].unflatten(1, (-1, 2)).transpose(0, 1)

    @torch.inference_mode()
    def reset(self) -> None:
        """States as at the start."""
        for stage in self.stages:
            stage.rows.zero_()
        for layer in self.bottleneck.layers:
            layer.line.zero_()
            layer.c.zero_()
        self.turn, self.valid = 0, [False] * (self.step.delay + 1)  # of the last frames, newest first

    @torch.inference_mode()
    def __call__(self, spectrum: Tensor, active: bool = True) -> Tensor:
        """Take the next frame of the noisy spectrum, give the frame that is ready (L frames older).

        Args:
            spectrum: complex64 (batch, freq).
            active: whether the frame belongs to the signal; L frames after its end drain the decoder.

        Returns:
            Complex64 (batch, freq), overwritten by the next call; exact zeros for the first L frames.
        """
        turn, stages, n = self.turn, self.stages, len(self.encoder)
        self.turn, self.valid = (turn + 1) % self.slots, [active, *self.valid[:-1]]
        self.entries[turn].copy_(spectrum)
        for layer, stage in zip(self.encoder, stages[1:], strict=True):
            layer(turn)
            if not active:
                stage.encoder[turn].zero_()
        self.bottleneck(turn)
        for i, layer in enumerate(self.decoder):
            if not self.valid[self._late(i)]:
                stages[n - i].decoder[turn % 2].zero_()
            layer(turn)
        if not self.valid[-1]:
            return self.enhanced.zero_()
        self._apply_mask(self.noisy[(turn - self.step.delay) % self.slots])
        return self.enhanced

    def _apply_mask(self, noisy: Tensor) -> None:
        """Modes E, C, R of :func:`dccrn_lib.networks.dccrn.apply_mask`."""
        if self.step.config.mask == "R":
            torch.mul(torch.view_as_real(self.mask), torch.view_as_real(noisy), out=torch.view_as_real(self.out))
            return
        if self.step.config.mask == "E":
            # tanh|M| e^{j arg M} X = M (tanh|M| / |M|) X
            torch.abs(self.mask, out=self.magnitude).add_(1e-6)
            self.mask.mul_(torch.tanh(self.magnitude, out=self.ratio).div_(self.magnitude))
        torch.mul(self.mask, noisy, out=self.out)

    def states(self) -> States:
        """The states in the form of :meth:`StreamingCore.initial_states`."""
        n, delay, last = len(self.encoder), self.step.delay, self.turn - 1
        frames = lambda stage, count: torch.stack(  # noqa: E731
            [stage.encoder_frame((last - k) % self.slots) for k in reversed(range(count))], dim=3
        )
        out = {f"encoder.{i}": frames(self.stages[i], 1)[:, :, self.stages[i].first :] for i in range(n)}
        out |= self._lstm_states()
        for i in range(n):
            stage = self.stages[n - i]
            x = stage.decoder_frame(last % 2).flatten(2)
            skip = stage.encoder_frame((last - self._late(i)) % self.slots)
            out[f"decoder.{i}"] = torch.cat([x, skip], dim=1)[..., None]
        if delay:
            out |= {f"skip.{i}": frames(self.stages[n - i], i) for i in range(1, n)}
            out["spectrum"] = frames(self.stages[0], delay)
            valid = torch.tensor(self.valid[:-1][::-1], dtype=torch.float32, device=self.enhanced.device)
            out["valid"] = valid[None, None, None]
        return {name: state.clone() for name, state in out.items()}

    @torch.inference_mode()
    def load(self, states: States) -> None:
        """Take over states in the form of :meth:`StreamingCore.initial_states`."""
        self.reset()
        n, delay = len(self.encoder), self.step.delay
        valid = states["valid"] if delay else None  # (1, 1, 1, L), oldest first
        if valid is not None:
            self.valid = [flag > 0 for flag in valid.flatten().tolist()[::-1]] + [False]
            self._fill(self.stages[0], states["spectrum"])
        for i in range(1, n):
            stage = self.stages[i]
            self._fill(stage, states[f"encoder.{i}"])
        self.stages[0].encoder_frame(self.slots - 1)[:, :, 1:] = states["encoder.0"][..., 0]
        for i in range(n):
            stage, late = self.stages[n - i], self._late(i)
            x, skip = states[f"decoder.{i}"][..., 0].chunk(2, dim=1)
            if late and valid is not None:
                self._fill(stage, states[f"skip.{i}"] * valid[..., delay - late :])
            stage.encoder_frame(self.slots - 1 - late).copy_(skip)
            frame = stage.decoder_frame(1)
            frame.copy_(x.reshape(frame.shape))
        for layer, (h, c) in zip(self.bottleneck.layers, self._lstm_parts(states), strict=True):
            layer.h.copy_(h)
            layer.c.copy_(c)

    def _fill(self, stage: _Stage, frames: Tensor) -> None:
        """Write the last frames (batch, chan, freq, frame) of the encoder, oldest first."""
        count = frames.shape[3]
        for k in range(count):
            stage.encoder_frame(self.slots - count + k).copy_(frames[..., k])

    def _lstm_states(self) -> States:
        layers = self.bottleneck.layers
        if self.bottleneck.parts == 1:
            return {f"lstm.{part}": torch.cat([getattr(layer, part) for layer in layers]) for part in "hc"}
        kinds = [(k, kind, part) for k, kind in enumerate(("real", "imag")) for part in "hc"]
        return {
            f"lstm.{i}.{kind}_{part}": getattr(layer, part)[k : k + 1]
            for i, layer in enumerate(layers)
            for k, kind, part in kinds
        }

    def _lstm_parts(self, states: States) -> list[tuple[Tensor, ...]]:
        """For each layer h and c, (lstm, row, units)."""
        count = range(len(self.bottleneck.layers))
        if self.bottleneck.parts == 1:
            return [tuple(states[f"lstm.{part}"][i : i + 1] for part in "hc") for i in count]
        return [
            tuple(torch.cat([states[f"lstm.{i}.{kind}_{part}"] for kind in ("real", "imag")]) for part in "hc")
            for i in count
        ]

    def __getstate__(self) -> dict[str, Any]:
        """Buffers are full of views of each other, which a copy would tear apart: it is made anew, with the same states."""
        return {"step": self.step, "batch": self.batch, "states": self.states()}

    def __setstate__(self, record: dict[str, Any]) -> None:
        self.__init__(record["step"], record["batch"])
        self.load(record["states"])
