"""One optimised form of a DCCRN for inference: block weights written out, BatchNorm multiplied in, matrices in order.

    model = optimised(load_model("distil_dccrn"))

``enhance``, the streams and the benchmarks all use this form. It is called as the network is, and equals it in eval mode up
to rounding: one arithmetic (stream_step.py), in blocks of frames with the channels last, or frame by frame (frame_step.py
and ring_step.py).
"""

from __future__ import annotations

import copy
from functools import cached_property

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from dccrn_lib.enhancement.frame_step import FrameStep
from dccrn_lib.enhancement.stream_step import StreamingCore, can_stream
from dccrn_lib.networks.dccrn import DCCRN

BLOCK_FRAMES = 400  # two blocks in five seconds; more gained nothing, fewer read the weights more often
KEPT_BYTES = 31 << 20  # just below the largest threshold that glibc takes


class OptimisedDCCRN(nn.Module):
    """A DCCRN's waveform in, waveform out, from its folded weights; ``optimised`` makes it.

    Args:
        model: its weights are copied as they are in eval mode; later training does not change this object.

    Shapes: waveform (batch, sample) float32 at 16 kHz -> same shape, any length >= 1; the output is in [-1, 1].
    """

    streams = True

    def __init__(self, model: DCCRN) -> None:
        super().__init__()
        self.core = StreamingCore(model)
        self.config, self.stft = model.config, copy.deepcopy(model.stft).float()
        self.eval()
        keep_freed_memory()

    @cached_property
    def frame_step(self) -> FrameStep:
        """The matrices of a single frame, shared by all live streams of this model."""
        return FrameStep(self.core)

    @property
    def lookahead_frames(self) -> int:
        """Frames of future that an output frame depends on."""
        return self.config.lookahead_frames

    def enhance_spectrum(self, spectrum: Tensor) -> Tensor:
        """Mask a noisy spectrum: complex64 (batch, freq, frame) -> same."""
        frames, delay = spectrum.shape[2], self.core.delay
        parts = F.pad(torch.stack([spectrum.real, spectrum.imag], dim=1), (0, delay))  # (batch, 2, freq, frame + L)
        active = (torch.arange(frames + delay, device=spectrum.device) < frames).float()
        size = BLOCK_FRAMES if spectrum.device.type == "cpu" else frames + delay
        states, done = self.core.initial_states(len(spectrum)), []
        for block, flags in zip(parts.split(size, dim=3), active.split(size), strict=True):
            out, states = self.core.stream_step(block, states, flags)
            done.append(out)
        out = torch.cat(done, dim=3)[..., delay:]
        return torch.complex(out[:, 0], out[:, 1])

    @torch.no_grad()
    def forward(self, x: Tensor) -> Tensor:
        """Enhance a waveform, (batch, sample) -> (batch, sample)."""
        with torch.autocast(x.device.type, enabled=False):
            spectrum = self.stft(x)
        enhanced = self.enhance_spectrum(spectrum)
        with torch.autocast(x.device.type, enabled=False):
            return self.stft.inverse(enhanced, x.shape[-1]).clamp(-1.0, 1.0)


def keep_freed_memory() -> None:
    """Let the C library keep what the features of a block leave free, instead of handing it to the system and back.

    New pages come zeroed, one by one, which cost a twentieth of the time. glibc hands back what is free beyond twice its
    mmap threshold, which grows to the largest mapped piece that was ever freed: so one is freed, untouched. Elsewhere
    this does nothing.
    """
    torch.empty(KEPT_BYTES, dtype=torch.uint8)


def optimised(model: nn.Module) -> nn.Module:
    """The optimised form of a DCCRN; any other network, and what is optimised already, comes back as it is.

    >>> from dccrn_lib.networks.dccrn import DCCRNConfig
    >>> model = DCCRN(DCCRNConfig(channels=(4, 4, 4, 4, 4, 4), rnn_units=4)).eval()
    >>> x = 0.1 * torch.randn(2, 1234)
    >>> torch.allclose(optimised(model)(x), model(x), atol=1e-5)
    True
    """
    return OptimisedDCCRN(model) if can_stream(model) and not isinstance(model, OptimisedDCCRN) else model


def core_of(model: nn.Module) -> StreamingCore:
    """The folded weights: those that an optimised model holds, or new ones.

    Raises:
        ConfigError: the network is not causal, or no DCCRN at all.
    """
    # another network than a DCCRN is refused there
    return model.core if isinstance(model, OptimisedDCCRN) else StreamingCore(model)  # pyright: ignore[reportArgumentType]
