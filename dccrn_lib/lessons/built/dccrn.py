"""Built in lesson 02: the student, from complex convolutions to a network that enhances a waveform.

Complex numbers are stacked real tensors (batch, chan, freq, frame), real channels first, as in
``dccrn_lib.networks.complex_layers``; channel counts hold both halves. Parameters have the names of the library's
DCCRN, so that weights go from one into the other, and the same seed gives the same start.
"""

import torch
import torch.nn.functional as F
from safetensors.torch import load_file
from torch import nn

from dccrn_lib.runtime.paths import weights_dir


class MyComplexWeight(nn.Module):
    """A complex kernel Wr + j Wi and the biases of its two real convolutions: N(0, 0.05) and 0 at the start."""

    def __init__(self, shape: tuple[int, int, int, int], complex_out: int) -> None:
        super().__init__()
        self.weight_real = nn.Parameter(0.05 * torch.randn(shape))
        self.weight_imag = nn.Parameter(0.05 * torch.randn(shape))
        self.bias_real = nn.Parameter(torch.zeros(complex_out))
        self.bias_imag = nn.Parameter(torch.zeros(complex_out))

    def block_bias(self) -> torch.Tensor:
        br, bi = self.bias_real, self.bias_imag
        return torch.cat([br - bi, br + bi])  # (chan_out,)


class MyConv(MyComplexWeight):
    """Complex convolution, kernel (5, 2): half the bins, as many frames, looks one frame back."""

    def __init__(self, chan_in: int, chan_out: int) -> None:
        super().__init__((chan_out // 2, chan_in // 2, 5, 2), chan_out // 2)

    def block_weight(self) -> torch.Tensor:
        wr, wi = self.weight_real, self.weight_imag
        top = torch.cat([wr, -wi], dim=1)  # makes the real channels
        bottom = torch.cat([wi, wr], dim=1)  # makes the imaginary channels
        return torch.cat([top, bottom], dim=0)  # (chan_out, chan_in, 5, 2)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = F.pad(x, (1, 0, 2, 2))  # a frame of zeros before the first, two bins of zeros at both ends
        return F.conv2d(x, self.block_weight(), self.block_bias(), stride=(2, 1))  # (batch, chan_out, freq / 2, frame)


class MyTransposedConv(MyComplexWeight):
    """Complex transposed convolution, kernel (5, 2): twice the bins, one frame more than came in."""

    def __init__(self, chan_in: int, chan_out: int) -> None:
        super().__init__((chan_in // 2, chan_out // 2, 5, 2), chan_out // 2)

    def block_weight(self) -> torch.Tensor:
        wr, wi = self.weight_real, self.weight_imag
        from_real = torch.cat([wr, wi], dim=1)  # rows are inputs here
        from_imag = torch.cat([-wi, wr], dim=1)
        return torch.cat([from_real, from_imag], dim=0)  # (chan_in, chan_out, 5, 2)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        weight, bias = self.block_weight(), self.block_bias()
        return F.conv_transpose2d(x, weight, bias, stride=(2, 1), padding=(2, 0), output_padding=(1, 0))


class MyBatchNorm(nn.Module):
    """Mean 0 and variance 1 in every channel, then a learned scale and offset; remembers the statistics for later."""

    def __init__(self, chan: int, momentum: float = 0.1) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(chan))
        self.bias = nn.Parameter(torch.zeros(chan))
        self.register_buffer("running_mean", torch.zeros(chan))
        self.register_buffer("running_var", torch.ones(chan))
        self.momentum = momentum

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        mean, var = self.running_mean, self.running_var  # what evaluation uses
        if self.training:
            mean, var = x.mean(dim=(0, 2, 3)), x.var(dim=(0, 2, 3), correction=0)  # of this batch, (chan,) each
            count = x.numel() / x.shape[1]
            with torch.no_grad():
                self.running_mean.lerp_(mean, self.momentum)
                self.running_var.lerp_(var * count / (count - 1), self.momentum)
        scale = self.weight / (var + 1e-5).sqrt()
        return x * scale[:, None, None] + (self.bias - mean * scale)[:, None, None]


class MyLSTM(nn.Module):
    """The "complex" LSTM of DCCRN: two real LSTMs, combined like the parts of a complex product."""

    def __init__(self, size: int, hidden: int) -> None:
        super().__init__()
        self.lstm_real = nn.LSTM(size, hidden)
        self.lstm_imag = nn.LSTM(size, hidden)

    def forward(self, real: torch.Tensor, imag: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        rr, ri = self.lstm_real(real)[0], self.lstm_real(imag)[0]  # (frame, batch, hidden) each
        ir, ii = self.lstm_imag(real)[0], self.lstm_imag(imag)[0]
        return rr - ii, ri + ir


class MyBottleneck(nn.Module):
    """Two complex LSTM layers over the frames, and a linear map back to the size of the feature."""

    def __init__(self, chan: int, freq: int, hidden: int) -> None:
        super().__init__()
        size = chan // 2 * freq
        self.lstm = nn.ModuleList([MyLSTM(size, hidden), MyLSTM(hidden, hidden)])
        self.project_real = nn.Linear(hidden, size)
        self.project_imag = nn.Linear(hidden, size)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        batch, chan, freq, frame = x.shape
        parts = x.permute(3, 0, 1, 2).reshape(frame, batch, 2, chan // 2 * freq)  # one vector a frame and part
        real, imag = parts[:, :, 0], parts[:, :, 1]  # (frame, batch, size) each
        for layer in self.lstm:
            real, imag = layer(real, imag)
        parts = torch.stack([self.project_real(real), self.project_imag(imag)], dim=2)  # (frame, batch, 2, size)
        return parts.reshape(frame, batch, chan, freq).permute(1, 2, 3, 0)  # (batch, chan, freq, frame)


class MyEncoderLayer(nn.Module):
    """(batch, chan_in, freq, frame) -> (batch, chan_out, freq / 2, frame)."""

    def __init__(self, chan_in: int, chan_out: int) -> None:
        super().__init__()
        self.conv, self.norm, self.act = MyConv(chan_in, chan_out), MyBatchNorm(chan_out), nn.PReLU()

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.act(self.norm(self.conv(x)))


class MyDecoderLayer(nn.Module):
    """(batch, chan_in, freq, frame) -> (batch, chan_out, 2 freq, frame); uses one frame of the future, or none."""

    def __init__(self, chan_in: int, chan_out: int, last: bool = False, lookahead: int = 1) -> None:
        super().__init__()
        self.conv, self.lookahead = MyTransposedConv(chan_in, chan_out), lookahead
        self.norm = nn.Identity() if last else MyBatchNorm(chan_out)
        self.act = nn.Identity() if last else nn.PReLU()

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        y = self.conv(x)  # (batch, chan_out, 2 freq, frame + 1)
        y = y[..., 1:] if self.lookahead else y[..., :-1]  # as many frames as came in
        return self.act(self.norm(y))


def my_concat(x: torch.Tensor, skip: torch.Tensor) -> torch.Tensor:
    """Join two features along chan, real with real and imaginary with imaginary."""
    (x_real, x_imag), (s_real, s_imag) = x.chunk(2, dim=1), skip.chunk(2, dim=1)
    return torch.cat([x_real, s_real, x_imag, s_imag], dim=1)


def my_mask(mask: torch.Tensor, noisy: torch.Tensor) -> torch.Tensor:
    """Mask E: turn each bin by the mask's angle and scale it by tanh of the mask's size; complex in and out."""
    size = (mask.real**2 + mask.imag**2 + 1e-12).sqrt()  # never 0: its gradient stays finite
    return mask * (size.tanh() / size) * noisy


class MySTFT(nn.Module):
    """Spectrum of lesson 01 and its inverse: window 400, hop 100, FFT 512."""

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("window", torch.hann_window(400), persistent=False)

    def forward(self, wave: torch.Tensor) -> torch.Tensor:
        frames = (wave.shape[-1] + 299) // 100 + 1
        padded = F.pad(wave, (300, frames * 100 - wave.shape[-1]))
        pieces = padded.unfold(-1, 400, 100) * self.window  # (batch, frame, 400)
        return torch.fft.rfft(pieces, n=512).transpose(1, 2)  # (batch, freq = 257, frame)

    def inverse(self, spectrum: torch.Tensor, samples: int) -> torch.Tensor:
        pieces = torch.fft.irfft(spectrum.transpose(1, 2), n=512)[..., :400] * self.window  # (batch, frame, 400)
        squares = (self.window**2).expand_as(pieces)
        wave, weight = (self.overlap_add(p)[:, 300 : 300 + samples] for p in (pieces, squares))
        return wave / weight.clamp_min(1e-8)  # (batch, sample)

    def overlap_add(self, pieces: torch.Tensor) -> torch.Tensor:
        size = (1, pieces.shape[1] * 100 + 300)
        return F.fold(pieces.transpose(1, 2), size, kernel_size=(1, 400), stride=(1, 100))[:, 0, 0]


class MyStudent(nn.Module):
    """The student of Distil-DCCRN in our reading: noisy waveform (batch, sample) -> enhanced waveform.

    Args:
        channels: of the encoder's six layers, real and imaginary counted together.
        rnn_units: of the LSTM, both parts together.
        lookahead: frames of the future that each decoder layer uses, 1 or 0.
    """

    def __init__(self, channels=(16, 32, 64, 128, 128, 128), rnn_units: int = 192, lookahead: int = 1) -> None:
        super().__init__()
        self.stft = MySTFT()
        sizes = [2, *channels]  # 2: real and imaginary part of the spectrum
        pairs = list(zip(sizes[:-1], sizes[1:], strict=True))
        self.encoder = nn.ModuleList(MyEncoderLayer(before, after) for before, after in pairs)
        self.bottleneck = MyBottleneck(channels[-1], 256 // 2 ** len(channels), rnn_units // 2)
        self.decoder = nn.ModuleList(
            MyDecoderLayer(2 * after, before, last=before == 2, lookahead=lookahead)
            for before, after in reversed(pairs)
        )
        nn.init.constant_(self.decoder[-1].conv.bias_real, 0.5)  # (0.5 + 0.5) + j (0.5 - 0.5): the mask starts at 1
        nn.init.constant_(self.decoder[-1].conv.bias_imag, -0.5)

    def estimate_mask(self, noisy: torch.Tensor) -> torch.Tensor:
        """Complex spectrum (batch, freq, frame) -> complex mask of the same shape, 0 at DC."""
        x = torch.stack([noisy.real, noisy.imag], dim=1)[:, :, 1:]  # (batch, 2, 256, frame): without DC
        skips = []
        for layer in self.encoder:
            x = layer(x)
            skips.append(x)
        x = self.bottleneck(x)
        for layer in self.decoder:
            x = layer(my_concat(x, skips.pop()))
        x = F.pad(x, (0, 0, 1, 0))  # (batch, 2, 257, frame): a zero for DC
        return torch.complex(x[:, 0], x[:, 1])

    def forward(self, wave: torch.Tensor) -> torch.Tensor:
        noisy = self.stft(wave)  # Y, (batch, freq, frame)
        enhanced = my_mask(self.estimate_mask(noisy), noisy)
        return self.stft.inverse(enhanced, wave.shape[-1]).clamp(-1, 1)


def load_shipped(name: str = "distil_dccrn", **sizes) -> MyStudent:
    """MyStudent with the weights that ship under this name, in evaluation mode; ``sizes`` as MyStudent takes them."""
    state = load_file(weights_dir() / f"{name}.safetensors")
    state = {key: value for key, value in state.items() if not key.endswith("num_batches_tracked")}  # a mere counter
    student = MyStudent(**sizes)
    student.load_state_dict(state)
    return student.eval()
