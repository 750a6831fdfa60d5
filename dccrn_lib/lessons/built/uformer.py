"""Built in lesson 03: the teacher, from two streams and their fusion to a network that enhances a waveform.

The complex stream is one real tensor (batch, 2 * chan, freq, frame), real parts first; the magnitude stream is (batch,
chan, freq, frame). Inside the conformer the channels come last. ``parts`` is 2 for the complex stream and 1 for the
magnitude stream. Convolutions and BatchNorm are those of lesson 02, the STFT is that of lesson 01.
"""

import math

import torch
from safetensors.torch import load_file
from torch import nn

from dccrn_lib import ComplexSTFT, STFTConfig
from dccrn_lib.lessons.built.dccrn import MyBatchNorm, MyConv, MyTransposedConv
from dccrn_lib.runtime.paths import weights_dir


def my_size(stream: torch.Tensor, axis: int = 1) -> torch.Tensor:
    """|z| of a stacked complex stream, at least 3.5e-4: the gradient of a square root at 0 would be infinite."""
    real, imag = stream.chunk(2, dim=axis)
    return (real**2 + imag**2).clamp_min(2**-23).sqrt()


def my_direction(z: torch.Tensor, at_zero: float, tiny: float) -> torch.Tensor:
    """exp(j arg z) = z / |z| of a complex tensor, and ``at_zero`` where |z| <= ``tiny``: a zero has no angle."""
    size = z.abs()
    return torch.where(size > tiny, z / size.clamp_min(tiny), at_zero)


def my_streams(Y: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Noisy spectrum, complex (batch, 257, frame) -> the two streams that enter the first layer."""
    bins = Y[:, None, 1:]  # (batch, 1, 256, frame): without DC
    A = my_size(torch.cat([bins.real, bins.imag], dim=1)).sqrt()  # |Y|^0.5
    C = A * my_direction(bins, at_zero=0.0, tiny=1e-12)  # |Y|^0.5 exp(j arg Y)
    return torch.cat([C.real, C.imag], dim=1), A  # (batch, 2, 256, frame), (batch, 1, 256, frame)


def my_fuse(C: torch.Tensor, A: torch.Tensor, axis: int = 1) -> tuple[torch.Tensor, torch.Tensor]:
    """C' = C + sigmoid(A) (1 + j) and A' = A + sigmoid(|C|), both from the old values; ``axis`` holds the channels."""
    to_complex = torch.sigmoid(A)
    to_magnitude = torch.sigmoid(my_size(C, axis))
    return C + torch.cat([to_complex, to_complex], dim=axis), A + to_magnitude


class MySharedBatchNorm(MyBatchNorm):
    """One mean and one variance for the real and the imaginary part of a channel: the parts are twice the batch."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        batch, chan, freq, frame = x.shape
        parts = x.reshape(2 * batch, chan // 2, freq, frame)
        return super().forward(parts).reshape(batch, chan, freq, frame)


class MyTwoStreamEncoder(nn.Module):
    """Halve the bins of both streams, then fuse: (2 * low, freq), (low, freq) -> (2 * high, freq / 2), (high, ...)."""

    def __init__(self, low: int, high: int) -> None:
        super().__init__()
        self.complex_conv = MyConv(2 * low, 2 * high)  # lesson 02, counts both parts
        self.complex_norm, self.complex_act = MySharedBatchNorm(high), nn.PReLU()
        self.magnitude_conv = nn.Conv2d(low, high, (5, 2), stride=(2, 1), padding=(2, 1))
        self.magnitude_norm, self.magnitude_act = MyBatchNorm(high), nn.PReLU()

    def forward(self, C: torch.Tensor, A: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        C = self.complex_act(self.complex_norm(self.complex_conv(C)))
        A = self.magnitude_conv(A)[..., :-1]  # a frame of zeros on both sides gives one too many: drop the last
        A = self.magnitude_act(self.magnitude_norm(A))
        return my_fuse(C, A)


class MyTwoStreamDecoder(nn.Module):
    """Join both streams with their skips, double the bins, then fuse; the last layer has no BatchNorm and no PReLU."""

    def __init__(self, high: int, low: int, last: bool = False) -> None:
        super().__init__()
        self.complex_conv = MyTransposedConv(4 * high, 2 * low)  # stream and skip, real and imaginary
        self.complex_norm = nn.Identity() if last else MySharedBatchNorm(low)
        self.complex_act = nn.Identity() if last else nn.PReLU()
        self.magnitude_conv = nn.ConvTranspose2d(2 * high, low, (5, 2), (2, 1), padding=(2, 0), output_padding=(1, 0))
        self.magnitude_norm = nn.Identity() if last else MyBatchNorm(low)
        self.magnitude_act = nn.Identity() if last else nn.PReLU()

    def forward(
        self, C: torch.Tensor, A: torch.Tensor, C_skip: torch.Tensor, A_skip: torch.Tensor
    ) -> tuple[torch.Tensor, torch.Tensor]:
        (real, imag), (skip_real, skip_imag) = C.chunk(2, dim=1), C_skip.chunk(2, dim=1)
        C = torch.cat([skip_real, real, skip_imag, imag], dim=1)  # the skip comes first
        A = torch.cat([A_skip, A], dim=1)
        C = self.complex_conv(C)[..., :-1]  # of frame + 1 frames the first: no look-ahead
        A = self.magnitude_conv(A)[..., :-1]
        C, A = self.complex_act(self.complex_norm(C)), self.magnitude_act(self.magnitude_norm(A))
        return my_fuse(C, A)


class MyLayerNorm(nn.Module):
    """Mean 0 and variance 1 over the channels of each position and part, then a learned gain and offset a channel."""

    def __init__(self, chan: int, parts: int) -> None:
        super().__init__()
        self.weight, self.bias = nn.Parameter(torch.ones(chan)), nn.Parameter(torch.zeros(chan))
        self.parts = parts

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = x.unflatten(-1, (self.parts, -1))  # (..., part, chan)
        mean, var = x.mean(-1, keepdim=True), x.var(-1, correction=0, keepdim=True)
        return ((x - mean) / (var + 1e-5).sqrt() * self.weight + self.bias).flatten(-2)  # (..., parts * chan)


class MyComplexPair(nn.Module):
    """A complex layer from two real ones of any linear kind: (Wr + j Wi)(xr + j xi), parts stacked along ``axis``."""

    def __init__(self, axis: int, kind: type[nn.Module], *sizes, **options) -> None:
        super().__init__()
        self.axis = axis
        self.real, self.imag = kind(*sizes, **options), kind(*sizes, **options)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        xr, xi = x.chunk(2, dim=self.axis)
        # (Wr xr - Wi xi) + j (Wr xi + Wi xr)
        return torch.cat([self.real(xr) - self.imag(xi), self.real(xi) + self.imag(xr)], dim=self.axis)


def my_linear(parts: int, chan_in: int, chan_out: int) -> nn.Module:
    """A linear map along the last axis: real for one part, complex for two."""
    return nn.Linear(chan_in, chan_out) if parts == 1 else MyComplexPair(-1, nn.Linear, chan_in, chan_out)


class MyFeedForward(nn.Module):
    """x + half of (linear, PReLU, linear) of the normalised x: every position thinks for itself."""

    def __init__(self, chan: int, hidden: int, parts: int) -> None:
        super().__init__()
        self.norm = MyLayerNorm(chan, parts)
        self.expand, self.contract = my_linear(parts, chan, hidden), my_linear(parts, hidden, chan)
        self.activation = nn.PReLU()

    def forward(self, x: torch.Tensor) -> torch.Tensor:  # (batch, freq, frame, parts * chan)
        return x + 0.5 * self.contract(self.activation(self.expand(self.norm(x))))


def my_attention(q: torch.Tensor, k: torch.Tensor, v: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """softmax(q k' / sqrt(d)) v, and the weights: (..., sequence, d) each -> (..., sequence, d), (..., seq, seq)."""
    logits = q @ k.transpose(-1, -2) / math.sqrt(q.shape[-1])  # one for each pair of positions
    weights = torch.exp(logits - logits.amax(-1, keepdim=True))  # the largest exponent is 0: no overflow
    weights = weights / weights.sum(-1, keepdim=True)  # rows sum to 1
    return weights @ v, weights


class MyHead(nn.Module):
    """One attention: queries, keys and values are linear maps of what they are asked of."""

    def __init__(self, chan: int, size: int) -> None:
        super().__init__()
        self.query, self.key, self.value = (nn.Linear(chan, size) for _ in range(3))

    def forward(self, asks: torch.Tensor, offers: torch.Tensor, holds: torch.Tensor) -> torch.Tensor:
        return my_attention(self.query(asks), self.key(offers), self.value(holds))[0]  # (..., sequence, size)


TRIPLES = ("rrr", "rii", "iri", "iir", "rri", "rir", "irr", "iii")  # which part query, key and value come from


class MyComplexHead(nn.Module):
    """Eight attentions with their own maps, added up like the eight terms of q k v for complex q, k and v."""

    def __init__(self, chan: int, size: int) -> None:
        super().__init__()
        self.heads = nn.ModuleList(MyHead(chan, size) for _ in TRIPLES)

    def forward(self, x: torch.Tensor) -> torch.Tensor:  # (batch, sequence, 2 * chan) -> (batch, sequence, 2 * size)
        parts = dict(zip("ri", x.chunk(2, dim=-1), strict=True))
        terms = []
        for triple, head in zip(TRIPLES, self.heads, strict=True):
            sign = (1, 1, -1, -1)[triple.count("i")]  # j^0 = 1, j^1 = j, j^2 = -1, j^3 = -j
            terms.append(sign * head(*(parts[letter] for letter in triple)))
        return torch.cat([sum(terms[:4]), sum(terms[4:])], dim=-1)  # an even number of i's is real


class MyAttention(nn.Module):
    """Attention along ``axis`` "frame" or "freq" between LayerNorms, with a residual."""

    def __init__(self, chan: int, size: int, axis: str, parts: int) -> None:
        super().__init__()
        self.axis, self.parts = axis, parts
        self.norm_in = MyLayerNorm(chan, parts)
        self.head = MyHead(chan, size) if parts == 1 else MyComplexHead(chan, size)
        self.norm_head = MyLayerNorm(size, parts)
        self.linear = my_linear(parts, size, chan)
        self.norm_out, self.activation = MyLayerNorm(chan, parts), nn.PReLU()

    def forward(self, x: torch.Tensor) -> torch.Tensor:  # (batch, freq, frame, parts * chan)
        y = self.norm_in(x)
        if self.axis == "freq":
            y = y.transpose(1, 2)  # (batch, frame, freq, ...): now the bins are the sequence
        outer = y.shape[:2]
        y = y.flatten(0, 1)  # (batch * outer, sequence, ...)
        y = self.head(y) if self.parts == 2 else self.head(y, y, y)
        y = y.unflatten(0, outer)
        if self.axis == "freq":
            y = y.transpose(1, 2)
        return x + self.activation(self.norm_out(self.linear(self.norm_head(y))))


class MyDilatedBlock(nn.Module):
    """Two 3 x 3 convolutions side by side, dilated by 2^k and 2^(7 - k) frames; the second gates the first."""

    def __init__(self, chan: int, hidden: int, k: int, parts: int) -> None:
        super().__init__()

        def dilated(step: int) -> nn.Module:
            options = {"padding": (1, step), "dilation": (1, step)}  # as many frames out as in
            if parts == 1:
                return nn.Conv2d(hidden, hidden, (3, 3), **options)
            return MyComplexPair(1, nn.Conv2d, hidden, hidden, (3, 3), **options)

        self.norm_in, self.reduce = MyLayerNorm(chan, parts), my_linear(parts, chan, hidden)
        self.activation = nn.PReLU()
        self.dilated, self.gate = dilated(2**k), dilated(2 ** (7 - k))
        self.norm_gated, self.restore = MyLayerNorm(hidden, parts), my_linear(parts, hidden, chan)

    def forward(self, x: torch.Tensor) -> torch.Tensor:  # (batch, freq, frame, parts * chan)
        y = self.activation(self.reduce(self.norm_in(x))).permute(0, 3, 1, 2)  # (batch, parts * hidden, freq, frame)
        y = self.dilated(y) * torch.sigmoid(self.gate(y))
        y = self.norm_gated(y.permute(0, 2, 3, 1))
        return x + self.restore(y * torch.sigmoid(y))


class MyConformer(nn.Module):
    """Twelve stages in both streams with a fusion behind each, then a LayerNorm without one."""

    def __init__(self, chan: int, hidden: int, head_size: int, dilated: int) -> None:
        super().__init__()

        def stages(parts: int) -> nn.ModuleList:
            attention = [MyAttention(chan, head_size, axis, parts) for axis in ("frame", "freq")]
            blocks = [MyDilatedBlock(chan, dilated, k, parts) for k in range(8)]
            first, last = (MyFeedForward(chan, hidden, parts) for _ in range(2))
            return nn.ModuleList([first, *attention, *blocks, last])

        self.complex_stages, self.magnitude_stages = stages(parts=2), stages(parts=1)
        self.complex_norm, self.magnitude_norm = MyLayerNorm(chan, parts=2), MyLayerNorm(chan, parts=1)

    def forward(self, C: torch.Tensor, A: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        C, A = C.permute(0, 2, 3, 1), A.permute(0, 2, 3, 1)  # (batch, freq, frame, channels last)
        for complex_stage, magnitude_stage in zip(self.complex_stages, self.magnitude_stages, strict=True):
            C, A = my_fuse(complex_stage(C), magnitude_stage(A), axis=-1)
        return self.complex_norm(C).permute(0, 3, 1, 2), self.magnitude_norm(A).permute(0, 3, 1, 2)


def my_enhance(Y: torch.Tensor, C: torch.Tensor, A: torch.Tensor) -> torch.Tensor:
    """The two masks on the noisy spectrum: |S|^0.5 = (tanh|C| + sigmoid(A)) / 2 |Y|^0.5, arg S = arg Y + arg C."""
    bins = Y[:, None, 1:]  # (batch, 1, 256, frame)
    gain = 0.5 * (torch.tanh(my_size(C)) + torch.sigmoid(A))  # of the root of the magnitude
    size = (gain * my_streams(Y)[1]) ** 2
    mask = torch.complex(*C.chunk(2, dim=1))
    estimate = size * my_direction(bins, 0.0, 1e-12) * my_direction(mask, 1.0, 1e-6)
    return nn.functional.pad(estimate[:, 0], (0, 0, 1, 0))  # (batch, 257, frame), 0 at DC


class MyUformer(nn.Module):
    """Uformer: noisy waveform (batch, sample) -> enhanced waveform. The default sizes are those of the mini teacher.

    Args:
        channels: of the magnitude stream at the input and behind each encoder layer.
        hidden: channels inside the feed-forwards.
        head_size: of queries, keys and values.
        dilated: channels inside the dilated blocks.
    """

    def __init__(self, channels=(1, 2, 4, 8, 16, 16, 16), hidden: int = 16, head_size: int = 8, dilated: int = 8):
        super().__init__()
        self.stft = ComplexSTFT(STFTConfig(400, 160, 512, "sqrt_hann"))  # lesson 01
        pairs = list(zip(channels[:-1], channels[1:], strict=True))
        self.encoder = nn.ModuleList(MyTwoStreamEncoder(low, high) for low, high in pairs)
        self.conformer = MyConformer(channels[-1], hidden, head_size, dilated)
        self.decoder = nn.ModuleList(
            MyTwoStreamDecoder(high, low, last=i == 5) for i, (low, high) in enumerate(reversed(pairs))
        )
        # (br - bi) + j (br + bi) = 0.5 - 0.5j; the last fusion adds 0.5 + 0.5j: the complex mask starts at 1
        nn.init.constant_(self.decoder[-1].complex_conv.bias_real, 0.0)
        nn.init.constant_(self.decoder[-1].complex_conv.bias_imag, -0.5)

    def masks(self, C: torch.Tensor, A: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """The streams at the input -> the streams at the end, (batch, 2, 256, frame) and (batch, 1, 256, frame)."""
        skips = []
        for layer in self.encoder:
            C, A = layer(C, A)
            skips.append((C, A))
        C, A = self.conformer(C, A)
        for layer in self.decoder:
            C, A = layer(C, A, *skips.pop())
        return C, A

    def enhance_spectrum(self, Y: torch.Tensor) -> torch.Tensor:
        return my_enhance(Y, *self.masks(*my_streams(Y)))

    def forward(self, y: torch.Tensor) -> torch.Tensor:
        return self.stft.inverse(self.enhance_spectrum(self.stft(y)), y.shape[-1])


def my_state(state: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """The tensors of the library's Uformer, or of a piece of it, under the names of ours, one by one."""
    mine = {}
    for name, value in state.items():
        if name.endswith("num_batches_tracked"):
            continue  # a counter, nothing learned
        for stream in ("complex", "magnitude"):  # BatchNorm and PReLU stand in one list there
            name = name.replace(f"{stream}_activation.0", f"{stream}_norm")
            name = name.replace(f"{stream}_activation.1", f"{stream}_act")
        if "from_" in name:  # 12 of a complex head's 24 maps in one matrix, sorted by query, key and value
            place, kind = name.split("from_")  # kind: "real.weight", "imag.bias", ...
            roles = ((role, t) for role in range(3) for t, triple in enumerate(TRIPLES) if triple[role] == kind[0])
            for (role, t), rows in zip(roles, value.chunk(12), strict=True):
                mine[f"{place}heads.{t}.{('query', 'key', 'value')[role]}.{kind.split('.')[1]}"] = rows
            continue
        if "complex_conv" not in name:  # weight_real -> real.weight: a pair of real layers here
            for kind in ("weight", "bias"):
                for part in ("real", "imag"):
                    name = name.replace(f"{kind}_{part}", f"{part}.{kind}")
        mine[name] = value
    return mine


def full_teacher() -> MyUformer:
    """MyUformer at full size, untrained."""
    return MyUformer((1, 8, 16, 32, 64, 128, 128), hidden=64, head_size=16, dilated=32)


def load_teacher(name: str = "uformer") -> MyUformer:
    """MyUformer at full size with the weights that ship under this name, in evaluation mode."""
    teacher = full_teacher()
    teacher.load_state_dict(my_state(load_file(weights_dir() / f"{name}.safetensors")))
    return teacher.eval()
