"""Complex layers in real arithmetic.

Representation: inside the networks a complex feature is ONE REAL tensor (batch, chan, freq, frame); the first half
of the channels holds real parts, the second half imaginary parts in the same order. Channel counts in this module
count both halves, as DCCRN does. BatchNorm, autocast and ONNX need real tensors. complex64 appears only at the
edge; :func:`to_complex` and :func:`from_complex` are the only converters.

A complex product (Wr + jWi)(xr + jxi) = (Wr xr - Wi xi) + j(Wi xr + Wr xi) is one real product with the block weight
[[Wr, -Wi], [Wi, Wr]]: the four small convolutions of the textbook become one large one, with equal arithmetic.

Source: Trabelsi et al. 2018 (layers); Hu et al. 2020 and the authors' code (biases, initialisation, LSTM).
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from dccrn_lib.runtime.errors import ConfigError


def to_complex(x: Tensor) -> Tensor:
    """Stacked real (batch, chan, ...) -> complex64 (batch, chan / 2, ...)."""
    real, imag = x.float().chunk(2, dim=1)
    return torch.complex(real, imag)


def from_complex(z: Tensor) -> Tensor:
    """Complex (batch, chan, ...) -> stacked real (batch, 2 * chan, ...)."""
    return torch.cat([z.real, z.imag], dim=1)


def _half(channels: int, name: str) -> int:
    if channels < 2 or channels % 2:
        raise ConfigError(
            f"{name} counts real and imaginary channels together and must be even and >= 2, got {channels}"
        )
    return channels // 2


class _ComplexWeight(nn.Module):
    """Weight Wr + jWi and the two biases of a complex linear map; N(0, 0.05) and 0 at the start."""

    def __init__(self, shape: tuple[int, ...], bias_size: int, std: float = 0.05) -> None:
        super().__init__()
        self.weight_real = nn.Parameter(torch.randn(shape) * std)
        self.weight_imag = nn.Parameter(torch.randn(shape) * std)
        self.bias_real = nn.Parameter(torch.zeros(bias_size))
        self.bias_imag = nn.Parameter(torch.zeros(bias_size))

    def block_weight(self) -> Tensor:
        """[[Wr, -Wi], [Wi, Wr]]: (out, in, ...) each -> (2 out, 2 in, ...), the weight of the real map of both parts."""
        top = torch.cat([self.weight_real, -self.weight_imag], dim=1)
        bottom = torch.cat([self.weight_imag, self.weight_real], dim=1)
        return torch.cat([top, bottom], dim=0)

    def block_bias(self) -> Tensor:
        """(2 out,): each of the two real maps has its own bias, b = (br - bi) + j(br + bi)."""
        return torch.cat([self.bias_real - self.bias_imag, self.bias_real + self.bias_imag])


class ComplexConv2d(_ComplexWeight):
    """Complex 2-d convolution over (freq, frame).

    Args:
        in_channels, out_channels: real + imaginary counted together.
        kernel_size, stride, padding, dilation: (freq, frame). ``padding`` is symmetric zeros.
        causal_frames: zeros put before the first frame only (0 = none); for a kernel of 2 frames, 1 makes it causal.

    Shapes: (batch, in_channels, freq, frame) -> (batch, out_channels, freq', frame').

    >>> ComplexConv2d(4, 6, (5, 2), (2, 1), (2, 0), causal_frames=1)(torch.zeros(1, 4, 16, 7)).shape
    torch.Size([1, 6, 8, 7])
    """

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        kernel_size: tuple[int, int],
        stride: tuple[int, int] = (1, 1),
        padding: tuple[int, int] = (0, 0),
        dilation: tuple[int, int] = (1, 1),
        causal_frames: int = 0,
    ) -> None:
        n_in, n_out = _half(in_channels, "in_channels"), _half(out_channels, "out_channels")
        super().__init__((n_out, n_in, *kernel_size), n_out)
        self.stride, self.padding, self.dilation, self.causal_frames = stride, padding, dilation, causal_frames

    def forward(self, x: Tensor) -> Tensor:
        """Convolve (batch, in_channels, freq, frame) -> (batch, out_channels, freq', frame')."""
        if self.causal_frames:
            x = F.pad(x, (self.causal_frames, 0))
        return F.conv2d(x, self.block_weight(), self.block_bias(), self.stride, self.padding, self.dilation)


class ComplexConvTranspose2d(_ComplexWeight):
    """Complex transposed 2-d convolution over (freq, frame); arguments as :class:`ComplexConv2d`.

    Shapes: (batch, in_channels, freq, frame) -> (batch, out_channels, freq', frame').

    >>> ComplexConvTranspose2d(4, 2, (5, 2), (2, 1), (2, 0), (1, 0))(torch.zeros(1, 4, 8, 7)).shape
    torch.Size([1, 2, 16, 8])
    """

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        kernel_size: tuple[int, int],
        stride: tuple[int, int] = (1, 1),
        padding: tuple[int, int] = (0, 0),
        output_padding: tuple[int, int] = (0, 0),
    ) -> None:
        n_in, n_out = _half(in_channels, "in_channels"), _half(out_channels, "out_channels")
        super().__init__((n_in, n_out, *kernel_size), n_out)
        self.stride, self.padding, self.output_padding = stride, padding, output_padding

    def block_weight(self) -> Tensor:
        """Rows are inputs here: [[Wr, Wi], [-Wi, Wr]] -> (in_channels, out_channels, freq, frame)."""
        from_real = torch.cat([self.weight_real, self.weight_imag], dim=1)
        from_imag = torch.cat([-self.weight_imag, self.weight_real], dim=1)
        return torch.cat([from_real, from_imag], dim=0)

    def forward(self, x: Tensor) -> Tensor:
        """Convolve (batch, in_channels, freq, frame) -> (batch, out_channels, freq', frame')."""
        return F.conv_transpose2d(
            x, self.block_weight(), self.block_bias(), self.stride, self.padding, self.output_padding
        )


class ComplexLinear(_ComplexWeight):
    """Complex linear map along the last axis.

    Args:
        in_features, out_features: COMPLEX features (one per real/imaginary pair).

    Shapes: real and imaginary part (..., in_features) each -> the same with out_features.
    """

    def __init__(self, in_features: int, out_features: int) -> None:
        super().__init__((out_features, in_features), out_features, std=in_features**-0.5)

    def forward(self, real: Tensor, imag: Tensor) -> tuple[Tensor, Tensor]:
        """Map both parts, (..., in_features) each -> (..., out_features) each."""
        x = torch.cat([real, imag], dim=-1)
        y = F.linear(x, self.block_weight(), self.block_bias())
        real, imag = y.chunk(2, dim=-1)
        return real, imag


class ComplexBatchNorm2d(nn.Module):
    """Complex BatchNorm: each complex channel is whitened by its 2x2 covariance, then mapped by a learned 2x2 matrix.

    Plain BatchNorm scales real and imaginary part apart; this one also removes their correlation.

    Args:
        channels: real + imaginary counted together.
        eps: added to both variances.
        momentum: weight of the newest batch in the running statistics.

    Shapes: (batch, chan, freq, frame) -> same.

    Source: Trabelsi et al. 2018, section 3.5; parameters as in the authors' DCCRN code.
    """

    running_mean: Tensor
    running_cov: Tensor
    num_batches_tracked: Tensor

    def __init__(self, channels: int, eps: float = 1e-5, momentum: float = 0.1) -> None:
        super().__init__()
        n = _half(channels, "channels")
        self.eps, self.momentum = eps, momentum
        self.weight_rr = nn.Parameter(torch.ones(n))
        self.weight_ri = nn.Parameter(torch.empty(n).uniform_(-0.9, 0.9))
        self.weight_ii = nn.Parameter(torch.ones(n))
        self.bias_real = nn.Parameter(torch.zeros(n))
        self.bias_imag = nn.Parameter(torch.zeros(n))
        self.register_buffer("running_mean", torch.zeros(2, n))  # real, imaginary
        self.register_buffer("running_cov", torch.tensor([[1.0], [0.0], [1.0]]).repeat(1, n))  # rr, ri, ii
        self.register_buffer("num_batches_tracked", torch.tensor(0, dtype=torch.long))

    def batch_mean(self, x: Tensor) -> Tensor:
        """Mean over batch, freq and frame: (batch, chan / 2, freq, frame) -> (chan / 2,)."""
        return x.mean((0, 2, 3))

    def forward(self, x: Tensor) -> Tensor:
        """Whiten and map (batch, chan, freq, frame) -> same, by the statistics of the batch in training."""
        dtype = x.dtype
        real, imag = x.float().chunk(2, dim=1)  # each (batch, chan / 2, freq, frame); statistics want fp32
        if self.training:
            mean = torch.stack([self.batch_mean(real), self.batch_mean(imag)])
        else:
            mean = self.running_mean
        real = real - mean[0][None, :, None, None]
        imag = imag - mean[1][None, :, None, None]
        if self.training:
            cov = torch.stack([self.batch_mean(v) for v in (real * real, real * imag, imag * imag)])
            with torch.no_grad():
                self.running_mean.lerp_(mean, self.momentum)
                self.running_cov.lerp_(cov, self.momentum)
                self.num_batches_tracked += 1
        else:
            cov = self.running_cov
        v_rr, v_ri, v_ii = cov[0] + self.eps, cov[1], cov[2] + self.eps
        # U = V^(-1/2) of a symmetric 2x2 matrix V, in closed form: s = sqrt(det V), t = sqrt(trace V + 2 s)
        s = (v_rr * v_ii - v_ri * v_ri).clamp_min(self.eps**2).sqrt()
        t = (v_rr + v_ii + 2 * s).sqrt()
        u_rr, u_ri, u_ii = (v_ii + s) / (s * t), -v_ri / (s * t), (v_rr + s) / (s * t)
        # Z = W U, W symmetric; y = Z (x - mean) + b
        z_rr = self.weight_rr * u_rr + self.weight_ri * u_ri
        z_ri = self.weight_rr * u_ri + self.weight_ri * u_ii
        z_ir = self.weight_ri * u_rr + self.weight_ii * u_ri
        z_ii = self.weight_ri * u_ri + self.weight_ii * u_ii
        z_rr, z_ri, z_ir, z_ii, b_r, b_i = (
            v[None, :, None, None] for v in (z_rr, z_ri, z_ir, z_ii, self.bias_real, self.bias_imag)
        )
        return torch.cat([z_rr * real + z_ri * imag + b_r, z_ir * real + z_ii * imag + b_i], dim=1).to(dtype)


_LSTM_IN_FLOAT16 = ("cuda",)  # devices where autocast to bfloat16 computes LSTMs in float16, in PyTorch 2.11


def run_lstm(lstm: nn.LSTM, x: Tensor) -> Tensor:
    """Outputs of an LSTM from zero states: (frame, batch, input_size) -> (frame, batch, hidden_size).

    Under autocast on CUDA it runs in float32: PyTorch would take float16 for it, which holds no small gradients.
    """
    if x.device.type in _LSTM_IN_FLOAT16 and torch.is_autocast_enabled(x.device.type):
        with torch.autocast(x.device.type, enabled=False):
            return lstm(x.float())[0]
    return lstm(x)[0]


class ComplexLSTM(nn.Module):
    """One complex LSTM layer made of two real ones, as DCCRN-CL defines it.

    real = LSTM_r(x_r) - LSTM_i(x_i),   imag = LSTM_r(x_i) + LSTM_i(x_r)

    An LSTM is not linear, so this is a naming convention rather than complex arithmetic. Real and imaginary part
    are stacked along the batch: two calls instead of four.

    Args:
        input_size, hidden_size: COMPLEX features.

    Shapes: real and imaginary part (frame, batch, input_size) each -> (frame, batch, hidden_size) each.
    """

    def __init__(self, input_size: int, hidden_size: int) -> None:
        super().__init__()
        self.lstm_real = nn.LSTM(input_size, hidden_size)
        self.lstm_imag = nn.LSTM(input_size, hidden_size)

    def forward(self, real: Tensor, imag: Tensor) -> tuple[Tensor, Tensor]:
        """Run over the frames, from zero states: (frame, batch, input_size) each -> (frame, batch, hidden_size) each."""
        x = torch.cat([real, imag], dim=1)  # (frame, 2 * batch, input_size)
        rr, ri = run_lstm(self.lstm_real, x).chunk(2, dim=1)  # LSTM_r(x_r), LSTM_r(x_i)
        ir, ii = run_lstm(self.lstm_imag, x).chunk(2, dim=1)  # LSTM_i(x_r), LSTM_i(x_i)
        return rr - ii, ri + ir
