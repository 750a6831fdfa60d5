"""The feature distances that AT-KL is compared with."""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor, nn

from dccrn_lib.distillation.attention import EPS, channel_attention, kl_divergence
from dccrn_lib.distillation.feature_loss import FeatureLoss, require_same_layers
from dccrn_lib.runtime.distributed import mean_over_processes
from dccrn_lib.runtime.errors import ConfigError


class AttentionTransfer(FeatureLoss):
    """AT: squared distance of L2-normalised attention maps Q(f, t), the teacher's at the student's frames.

    Source: Zagoruyko and Komodakis 2017, eq. 2 with p = 2; frames are brought together as in AT-KL.
    """

    def layer(self, name: str, student: Tensor, teacher: Tensor) -> Tensor:
        """Of features (batch, chan, freq, frame), mean over the batch."""
        m_student = channel_attention(student)
        m_teacher = self._teacher_at_student_rate(channel_attention(teacher), m_student.shape[-1])
        maps = [
            m.flatten(1) / (m.flatten(1).square().sum(1, keepdim=True) + 1e-20).sqrt() for m in (m_student, m_teacher)
        ]
        return (maps[0] - maps[1]).square().sum(1).mean()


class _Projected(FeatureLoss):
    """Methods that compare channels: a learned 1x1 convolution brings the student's channels to the teacher's."""

    def prepare(self, student: dict[str, Tensor], teacher: dict[str, Tensor]) -> None:
        """Build one 1x1 convolution a layer from the channels of the first batch's features (batch, chan, freq, frame)."""
        require_same_layers(student, teacher)
        self.adapters = nn.ModuleDict(
            {n.replace(".", "_"): nn.Conv2d(student[n].shape[1], teacher[n].shape[1], 1) for n in student}
        ).to(next(iter(student.values())).device)

    def _pair(self, name: str, student: Tensor, teacher: Tensor) -> tuple[Tensor, Tensor]:
        if not hasattr(self, "adapters"):
            raise ConfigError("call prepare(student, teacher) with one batch of features first: it builds the adapters")
        projected = self.adapters[name.replace(".", "_")](student.float())
        return projected, self._teacher_at_student_rate(teacher.float(), student.shape[-1])


class FitNets(_Projected):
    """Hints: mean squared distance of projected features, relative to the teacher's power.

    Source: Romero et al. 2015, eq. 3, at all layers instead of one.
    """

    def layer(self, name: str, student: Tensor, teacher: Tensor) -> Tensor:
        """Of features (batch, chan, freq, frame), over the teacher's mean power."""
        projected, target = self._pair(name, student, teacher)
        power = mean_over_processes(target.square().mean())  # of the whole batch, however many processes share it
        return (projected - target).square().mean() / (power + EPS)


class ChannelKL(_Projected):
    """Channel-wise KL: every channel of the teacher is a distribution over (freq, frame), softmax of its values.

    Source: Shu et al. 2021, eq. 3 at temperature 1 without its T^2 / C factor.
    """

    def layer(self, name: str, student: Tensor, teacher: Tensor) -> Tensor:
        """KL over (freq, frame) of features (batch, chan, freq, frame), mean over batch and chan; in nats."""
        projected, target = self._pair(name, student, teacher)
        log_p = [F.log_softmax(x.flatten(2), dim=-1) for x in (target, projected)]
        return kl_divergence(*log_p)


class SelfSimilarity(FeatureLoss):
    """Similarity between frequency bins: G = F F^T with rows F(f) = L2-normalised (chan, frame), mean squared distance.

    Like AT-KL it needs neither channels nor frames to agree, but keeps which bins behave alike.

    Source: after Nathoo et al. 2024 (self-similarity Gram matrices for small speech enhancement), who compare frames;
    over frequency bins it is our adaptation to networks with different hops.
    """

    def layer(self, name: str, student: Tensor, teacher: Tensor) -> Tensor:
        """Of features (batch, chan, freq, frame), mean over the pairs of bins."""
        grams = []
        for x in (student.float(), teacher.float()):
            rows = x.transpose(1, 2).flatten(2)  # (batch, freq, chan * frame)
            rows = rows / (rows.square().sum(-1, keepdim=True) + 1e-20).sqrt()
            grams.append(rows @ rows.transpose(1, 2))  # (batch, freq, freq)
        return (grams[0] - grams[1]).square().mean()
