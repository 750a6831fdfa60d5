"""The sizes and switches of the networks, as numbers: no torch, so that the command line reads them at once."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import Any, ClassVar

from dccrn_lib.audio.stft_config import STFTConfig
from dccrn_lib.runtime.errors import ConfigError
from dccrn_lib.runtime.settings import Interval, require_flags, require_intervals, require_whole, shown

_DCCRN_INTERVALS = {
    "channels": Interval(2, 2**14),
    "rnn_units": Interval(2, 2**16),
    "rnn_layers": Interval(1, 64),
    "initial_mask": Interval(-100, 100),
}
UFORMER_LAYERS = 6
DILATED_BLOCKS = 8
#: Frames of future that the blocks see together: block k has the time dilations 2^k and 2^(7 - k).
DILATED_LOOKAHEAD = sum(max(2**k, 2 ** (DILATED_BLOCKS - 1 - k)) for k in range(DILATED_BLOCKS))
_UFORMER_INTERVALS = {
    **dict.fromkeys(("channels", "conformer_hidden", "attention_hidden", "dilated_channels"), Interval(1, 2**14)),
    "dropout": Interval(0, 1, below=True),
    "initial_mask": Interval(-100, 100),
}


def _require_stft(value: Any) -> None:
    if not isinstance(value, STFTConfig):
        raise ConfigError(f"stft wants an STFTConfig, got {shown(value)}")


@dataclass(frozen=True)
class DCCRNConfig:
    """Sizes and switches of a DCCRN.

    Args:
        channels: output channels of the encoder layers, real + imaginary together.
        rnn_units: LSTM units; a complex LSTM splits them in two halves (256 = 128 + 128).
        rnn_layers: LSTM layers.
        lstm: "real" (one LSTM over the stacked features, modes E/C/R of the paper) or "complex" (DCCRN-CL).
        norm: "batch" (plain BatchNorm over all channels) or "complex_batch".
        mask: "E" (polar, magnitude tanh), "C" (complex product), "R" (part-wise product).
        initial_mask: real value of the mask before training, before tanh. 1 starts near "let everything pass", with
            the right polarity, which SI-SNR alone cannot find; 0 is the authors' start (a mask of random phase).
        decoder_lookahead: frames of future each decoder layer uses: 1 as in the paper, 0 for low latency.
        stft: analysis and synthesis.
    """

    family: ClassVar[str] = "dccrn"  # as weights on disk name it

    channels: tuple[int, ...] = (16, 32, 64, 128, 256, 256)
    rnn_units: int = 256
    rnn_layers: int = 2
    lstm: str = "real"
    norm: str = "batch"
    mask: str = "E"
    initial_mask: float = 1.0
    decoder_lookahead: int = 1
    stft: STFTConfig = field(default_factory=STFTConfig)

    def __post_init__(self) -> None:
        require_whole(self, "channels", several=True)
        require_whole(self, "rnn_units", "rnn_layers", "decoder_lookahead")
        _require_stft(self.stft)
        allowed = {"lstm": ("real", "complex"), "norm": ("batch", "complex_batch"), "mask": ("E", "C", "R")}
        for key, names in allowed.items():
            if getattr(self, key) not in names:
                raise ConfigError(f"unknown {key} {getattr(self, key)!r}; known: {', '.join(names)}")
        if self.decoder_lookahead not in (0, 1):
            raise ConfigError(f"decoder_lookahead must be 0 or 1 frame, got {self.decoder_lookahead}")
        if not 1 <= len(self.channels) <= 16:
            raise ConfigError(f"channels must name 1 to 16 layers, got {len(self.channels)}")
        if (self.stft.fft_size // 2) % 2 ** len(self.channels):
            raise ConfigError(f"fft_size / 2 = {self.stft.fft_size // 2} must be divisible by 2^{len(self.channels)}")
        if any(c < 2 or c % 2 for c in self.channels) or self.rnn_units < 2 or self.rnn_units % 2:
            raise ConfigError(f"channels and rnn_units must be even, got {self.channels} and {self.rnn_units}")
        require_intervals(self, _DCCRN_INTERVALS)

    @property
    def lookahead_frames(self) -> int:
        """Frames of future that an output frame depends on."""
        return self.decoder_lookahead * len(self.channels)


@dataclass(frozen=True)
class UformerConfig:
    """Sizes of Uformer. Defaults are the authors' 16 kHz model: 3,336,049 parameters.

    Args:
        channels: magnitude channels (= complex channels of the other stream) at the input and after each
            encoder layer.
        conformer_hidden: channels inside the feed-forwards.
        attention_hidden: size of the attention heads.
        dilated_channels: channels inside the dilated blocks.
        stft: analysis; the FFT size must be divisible by 2 * 2^6.
        dropout: probability, in the conformer only.
        fusion: couple the streams after every layer. Fusion has no parameters: False leaves the count
            unchanged, and every parameter in use, since both streams make the output mask.
        initial_mask: real value of the complex mask C before training: 1 starts with the right polarity, which
            SI-SNR alone cannot find; 0 leaves all biases 0, where fusion alone turns the phase by 45 degrees.
        attention: time and frequency attention. False does not build them: 126,692 parameters fewer.
    """

    family: ClassVar[str] = "uformer"  # as weights on disk name it

    channels: tuple[int, ...] = (1, 8, 16, 32, 64, 128, 128)
    conformer_hidden: int = 64
    attention_hidden: int = 16
    dilated_channels: int = 32
    stft: STFTConfig = field(default_factory=lambda: STFTConfig(400, 160, 512, "sqrt_hann"))
    dropout: float = 0.1
    fusion: bool = True
    attention: bool = True
    initial_mask: float = 1.0

    def __post_init__(self) -> None:
        require_whole(self, "channels", several=True)
        require_whole(self, "conformer_hidden", "attention_hidden", "dilated_channels")
        require_flags(self, "fusion", "attention")
        _require_stft(self.stft)
        object.__setattr__(self, "channels", tuple(self.channels))
        if len(self.channels) != UFORMER_LAYERS + 1 or self.channels[0] != 1 or min(self.channels) < 1:
            raise ConfigError(
                f"Uformer needs {UFORMER_LAYERS + 1} positive channel counts that start with 1, got {self.channels}"
            )
        if min(self.conformer_hidden, self.attention_hidden, self.dilated_channels) < 1:
            raise ConfigError("conformer_hidden, attention_hidden and dilated_channels of Uformer must be >= 1")
        require_intervals(self, _UFORMER_INTERVALS)
        if self.stft.fft_size % 2 ** (UFORMER_LAYERS + 1):
            raise ConfigError(
                f"Uformer halves the frequencies {UFORMER_LAYERS} times: fft_size {self.stft.fft_size} does not fit"
            )

    @property
    def lookahead_frames(self) -> int | float:
        """Frames of future that an output frame depends on: all of them (math.inf) with attention over the frames."""
        return math.inf if self.attention else DILATED_LOOKAHEAD
