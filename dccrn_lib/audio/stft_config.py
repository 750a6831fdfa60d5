"""The sizes of the short-time Fourier transform, as numbers: no torch, so that the command line reads them at once."""

from __future__ import annotations

from dataclasses import dataclass

from dccrn_lib.runtime.errors import ConfigError
from dccrn_lib.runtime.settings import require_whole


@dataclass(frozen=True)
class STFTConfig:
    """Sizes in samples at 16 kHz. Defaults are DCCRN's: 25 ms window, 6.25 ms hop, FFT of 512."""

    window_length: int = 400
    hop_length: int = 100
    fft_size: int = 512
    window: str = "hann"  # "hann" | "sqrt_hann", both periodic

    def __post_init__(self) -> None:
        require_whole(self, "window_length", "hop_length", "fft_size")
        if not 1 <= self.hop_length <= self.window_length <= self.fft_size:
            raise ConfigError(
                f"STFT sizes must satisfy 1 <= hop_length <= window_length <= fft_size, got hop {self.hop_length}, "
                f"window {self.window_length}, fft {self.fft_size}"
            )
        if self.fft_size > 2**20:
            raise ConfigError(f"fft_size must be at most 2^20 samples, a minute, got {self.fft_size}")
        if self.window not in ("hann", "sqrt_hann"):
            raise ConfigError(f"unknown window {self.window!r}; known: hann, sqrt_hann")
