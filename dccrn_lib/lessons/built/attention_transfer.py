"""Built in lesson 04: AT-KL, from a tapped feature to the loss between two networks.

Features are real tensors (batch, chan, freq, frame); of teacher and student only batch and freq have to agree.
"""

import torch
from torch import Tensor, nn


def attention_map(feature: Tensor, power: float = 2.0) -> Tensor:
    """Q(f, t): how much happens at frequency f in frame t."""
    return feature.abs().pow(power).mean(dim=1)  # (batch, freq, frame)


def frequency_profile(feature: Tensor, power: float = 2.0) -> Tensor:
    """q(f): the attention map averaged over frames."""
    return attention_map(feature, power).mean(dim=-1)  # (batch, freq)


def log_probabilities(q: Tensor, normalisation: str = "sum", temperature: float = 1.0) -> Tensor:
    """log P(f) of a profile: divided by its sum, or the softmax of the profile divided by its length."""
    if normalisation == "sum":
        q = q + 1e-8 * q.mean(dim=-1, keepdim=True) + 1e-20  # an empty bin keeps a finite logarithm
        return (q / q.sum(dim=-1, keepdim=True)).log()  # (batch, freq)
    if normalisation == "softmax":
        unit = q / (q.square().sum(dim=-1, keepdim=True) + 1e-20).sqrt()  # between 0 and 1
        return torch.log_softmax(unit / temperature, dim=-1)  # (batch, freq)
    raise ValueError(f"normalisation is 'sum' or 'softmax', not {normalisation!r}")


def divergence(log_teacher: Tensor, log_student: Tensor) -> Tensor:
    """D(P_T || P_S) in nat: summed over freq, averaged over the batch."""
    return (log_teacher.exp() * (log_teacher - log_student)).sum(dim=-1).mean()


class MyATKL(nn.Module):
    """AT-KL over frequency: (features of the student, of the teacher) -> (mean over layers, layer -> nat)."""

    def __init__(self, normalisation: str = "sum", power: float = 2.0, temperature: float = 1.0) -> None:
        super().__init__()
        self.normalisation, self.power, self.temperature = normalisation, power, temperature

    def layer(self, student: Tensor, teacher: Tensor) -> Tensor:
        profiles = (frequency_profile(feature, self.power) for feature in (teacher.detach(), student))
        log_p = [log_probabilities(q, self.normalisation, self.temperature) for q in profiles]
        return divergence(*log_p)

    def forward(self, student: dict[str, Tensor], teacher: dict[str, Tensor]) -> tuple[Tensor, dict[str, Tensor]]:
        terms = {name: self.layer(student[name], teacher[name]) for name in student}
        return torch.stack(list(terms.values())).mean(), terms
