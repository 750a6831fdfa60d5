"""AT-KL: attention transfer by the Kullback-Leibler divergence, the idea of Distil-DCCRN.

Teacher and student share the frequency size of every layer (FFT 512 without DC: 128, 64, 32, 16, 8, 4 in the encoder,
8 .. 256 in the decoder); channels and frame rates differ. AT-KL compares what the two have in common.

Source: Han et al. 2024 name AT-KL and what it ties together; the formulas are our reading (docs/ledger.md).
"""

from __future__ import annotations

from torch import Tensor

from dccrn_lib.distillation.attention import (
    NORMALISATIONS,
    FrameGrid,
    channel_attention,
    kl_divergence,
    log_distribution,
)
from dccrn_lib.distillation.feature_loss import FeatureLoss
from dccrn_lib.runtime.errors import ConfigError, nearest_name

READINGS = ("frequency", "time_frequency")


class AttentionTransferKL(FeatureLoss):
    """AT-KL: KL divergence between attention distributions of teacher and student.

    Args:
        reading: "frequency": pool chan and frame, compare over freq (the default: no interpolation, no adapter).
            "time_frequency": add the KL over frame of Q averaged over freq, with the teacher's frames interpolated to
            the student's.
        normalisation: "sum" or "softmax", see :func:`log_distribution`.
        power: p of the channel attention.
        temperature: of the softmax.
        student_stft, teacher_stft: STFTConfig of the two networks, needed for "time_frequency".

    Raises:
        ConfigError: unknown reading or normalisation, a power or temperature that is not above 0.

    Source: Han et al. 2024 for the idea; both readings are ours.
    """

    def __init__(
        self,
        reading: str = "frequency",
        normalisation: str = "sum",
        power: float = 2.0,
        temperature: float = 1.0,
        student_stft: FrameGrid | None = None,
        teacher_stft: FrameGrid | None = None,
    ) -> None:
        super().__init__(student_stft, teacher_stft)
        if reading not in READINGS:
            raise ConfigError(f"unknown reading {reading!r}; {nearest_name(reading, list(READINGS))}")
        if normalisation not in NORMALISATIONS:
            raise ConfigError(
                f"unknown normalisation {normalisation!r}; {nearest_name(normalisation, list(NORMALISATIONS))}"
            )
        if not power > 0 or not temperature > 0:
            raise ConfigError(f"power and temperature must be above 0, got {power} and {temperature}")
        self.reading, self.normalisation, self.power, self.temperature = reading, normalisation, power, temperature

    def _kl(self, teacher: Tensor, student: Tensor) -> Tensor:
        log_p = [log_distribution(q, self.normalisation, self.temperature) for q in (teacher, student)]
        return kl_divergence(*log_p)

    def layer(self, name: str, student: Tensor, teacher: Tensor) -> Tensor:
        """KL over freq of features (batch, chan, freq, frame), and over frame in the reading "time_frequency"; in nats."""
        m_student, m_teacher = channel_attention(student, self.power), channel_attention(teacher, self.power)
        # q(f) = mean_t Q(f, t);  L = KL(P_teacher || P_student) over freq
        loss = self._kl(m_teacher.mean(-1), m_student.mean(-1))
        if self.reading == "time_frequency":
            # r(t) = mean_f Q(f, t), the teacher's at the student's frames;  L += KL over frame
            aligned = self._teacher_at_student_rate(m_teacher.mean(1), m_student.shape[-1])
            loss = loss + self._kl(aligned, m_student.mean(1))
        return loss


class CentredAttentionTransferKL(AttentionTransferKL):
    """AT-KL of what changes over time: each channel and frequency loses its mean over frame first.

    Uformer's fusion leaves most of a tapped feature's energy in an offset that is the same in every frame; AT-KL
    compares mainly that. Here only the rest is compared. Args as :class:`AttentionTransferKL`. Source: ours.
    """

    def layer(self, name: str, student: Tensor, teacher: Tensor) -> Tensor:
        """As of AT-KL, for features (batch, chan, freq, frame) without their mean over frame."""
        # A(c, f, t) - mean_t A(c, f, t)
        student, teacher = (a.float() - a.float().mean(-1, keepdim=True) for a in (student, teacher))
        return super().layer(name, student, teacher)
