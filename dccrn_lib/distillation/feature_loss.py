"""What all distances between the features of student and teacher have in common."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from dccrn_lib.distillation.attention import FrameGrid, align_frames
from dccrn_lib.runtime.errors import ConfigError


def require_same_layers(student: dict[str, Tensor], teacher: dict[str, Tensor]) -> None:
    """ConfigError unless both hold features of the same layers, at least one."""
    if set(student) != set(teacher):
        raise ConfigError(f"layers of student and teacher differ: {sorted(set(student) ^ set(teacher))}")
    if not student:
        raise ConfigError("no layer to compare: run both networks under a FeatureTap first")


def _check_pair(name: str, student: Tensor, teacher: Tensor) -> None:
    if not student.numel() or not teacher.numel():
        raise ConfigError(
            f"{name}: student {tuple(student.shape)} or teacher {tuple(teacher.shape)} is empty; "
            "give a batch of at least one recording that fills a frame"
        )
    if student.shape[0] != teacher.shape[0] or student.shape[2] != teacher.shape[2]:
        raise ConfigError(
            f"{name}: batch and freq of student {tuple(student.shape)} and teacher {tuple(teacher.shape)} must agree; "
            "use models with the same FFT size and number of layers"
        )


class FeatureLoss(nn.Module):
    """Distance between the features of student and teacher, averaged over the layers.

    Called with two dicts from :class:`FeatureTap` it gives (scalar, {layer: scalar}). Teachers are detached. Subclasses
    define :meth:`layer`, which takes the features in the type that the networks computed them in.

    Args:
        student_stft, teacher_stft: STFTConfig of the networks, needed where frames are brought together.
    """

    def __init__(self, student_stft: FrameGrid | None = None, teacher_stft: FrameGrid | None = None) -> None:
        super().__init__()
        self.student_stft, self.teacher_stft = student_stft, teacher_stft

    def prepare(self, student: dict[str, Tensor], teacher: dict[str, Tensor]) -> None:
        """Called once with the first batch's features, {layer: (batch, chan, freq, frame)}; adapters are built here."""

    def layer(self, name: str, student: Tensor, teacher: Tensor) -> Tensor:
        """Distance of one layer, a float32 scalar.

        Args:
            name: of the layer, as :class:`FeatureTap` calls it: "encoder.0" .. "decoder.5".
            student: (batch, chan, freq, frame).
            teacher: (batch, chan, freq, frame) with the same batch and freq, detached.
        """
        raise NotImplementedError

    def forward(self, student: dict[str, Tensor], teacher: dict[str, Tensor]) -> tuple[Tensor, dict[str, Tensor]]:
        """Mean over the layers, and the distance of each.

        Args:
            student, teacher: {layer: (batch, chan, freq, frame)} with the same keys.

        Raises:
            ConfigError: the layers differ or there are none, a feature is empty, a layer's batch or freq differ, or frames
                have to be brought together and the STFTConfigs are not given.
        """
        require_same_layers(student, teacher)
        losses = {}
        for name in student:
            _check_pair(name, student[name], teacher[name])
            losses[name] = self.layer(name, student[name], teacher[name].detach())
        return torch.stack(list(losses.values())).mean(), losses

    def _teacher_at_student_rate(self, teacher: Tensor, frames: int) -> Tensor:
        if self.student_stft is None or self.teacher_stft is None:
            if teacher.shape[-1] == frames:
                return teacher
            raise ConfigError("this method aligns frames: give student_stft and teacher_stft")
        return align_frames(teacher, self.teacher_stft, self.student_stft, frames)
