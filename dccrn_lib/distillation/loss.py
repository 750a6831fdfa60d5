"""The loss of a student: the clean speech, the teacher's output and the features, in a sum with stated weights."""

from __future__ import annotations

import inspect
import math
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from dccrn_lib.distillation.at_kl import AttentionTransferKL, CentredAttentionTransferKL
from dccrn_lib.distillation.feature_loss import FeatureLoss
from dccrn_lib.distillation.other_methods import AttentionTransfer, ChannelKL, FitNets, SelfSimilarity
from dccrn_lib.losses import si_snr_loss
from dccrn_lib.runtime.errors import ConfigError, nearest_name

#: Method name -> class of its feature term (None: no feature term).
METHODS: dict[str, type[FeatureLoss] | None] = {
    "none": None,
    "output": None,
    "at": AttentionTransfer,
    "kl": ChannelKL,
    "at_kl": AttentionTransferKL,
    "at_kl_centred": CentredAttentionTransferKL,
    "fitnets": FitNets,
    "self_similarity": SelfSimilarity,
}


class DistillationLoss(nn.Module):
    """L = (1 - a) L(student, clean) + a L(student, teacher) + b L_features.

    Args:
        method: key of :data:`METHODS`. "none" sets a = b = 0, "output" has b = 0.
        output_weight: a in [0, 1]; 0.5 is our reading of "balanced".
        feature_weight: b; None has :meth:`balance` choose it.
        base_loss: L on waveforms, (estimate, target) -> scalar; negative SI-SNR by default, as in the paper.
        options: of the feature loss, e.g. ``reading``, ``normalisation``, ``student_stft``, ``teacher_stft``.

    Raises:
        ConfigError: unknown method or option, a outside [0, 1], b below 0 or not finite.
    """

    def __init__(
        self,
        method: str = "at_kl",
        output_weight: float = 0.5,
        feature_weight: float | None = None,
        base_loss: Callable[[Tensor, Tensor], Tensor] = si_snr_loss,
        **options: Any,
    ) -> None:
        super().__init__()
        if method not in METHODS:
            raise ConfigError(f"unknown distillation method {method!r}; {nearest_name(method, list(METHODS))}")
        if not 0 <= output_weight <= 1:
            raise ConfigError(f"output_weight must lie in [0, 1], got {output_weight}")
        if feature_weight is not None and not 0 <= feature_weight < math.inf:
            raise ConfigError(f"feature_weight must be at least 0 and finite, got {feature_weight}")
        self.method, self.base_loss = method, base_loss
        self.output_weight = 0.0 if method == "none" else output_weight
        self.feature_weight = feature_weight
        kind = METHODS[method]
        known = list(inspect.signature(kind).parameters) if kind else []
        for name in options:
            if name not in known:
                hint = nearest_name(name, known) if known else "it has no feature term and takes none"
                raise ConfigError(f"method {method}: unknown option {name!r}; {hint}")
        self.feature_loss = kind(**options) if kind else None

    @property
    def needs_teacher(self) -> bool:
        """Whether a teacher has to run at all."""
        return self.method != "none"

    def waveform_term(self, student: Tensor, clean: Tensor, teacher: Tensor | None) -> dict[str, Tensor]:
        """The two waveform losses, scalars: {"clean": ..., "teacher": ...}.

        Args:
            student, clean, teacher: waveforms (batch, sample); teacher None only for method "none".
        """
        terms = {"clean": self.base_loss(student, clean)}
        if self.needs_teacher:
            # ``needs_teacher`` says that there is one
            terms["teacher"] = self.base_loss(student, teacher.detach())  # pyright: ignore[reportOptionalMemberAccess]
        return terms

    def balance(
        self, parameters: list[nn.Parameter], waveform: Tensor, features: Tensor, share: float = 0.1
    ) -> dict[str, float]:
        """Choose b so that the gradient norm of b L_features is ``share`` of the waveform terms'.

        Args:
            parameters: the student's.
            waveform, features: the two scalars of one batch, graph attached (it is kept).
            share: fraction wanted; 0.1 is a tenth.

        Returns:
            {"waveform_norm", "feature_norm", "feature_weight"}: to be printed and kept.

        Raises:
            ConfigError: ``share`` is below 0 or not finite; b has to be chosen and the gradient of a term is 0 or not
                finite.
        """
        if not 0 <= share < math.inf:
            raise ConfigError(f"share must be at least 0 and finite, got {share}")
        norms = []
        for term in (waveform, features):
            grads = torch.autograd.grad(term, parameters, retain_graph=True, allow_unused=True)
            squares = [g.float().square().sum() for g in grads if g is not None]
            norms.append(torch.stack(squares).sum().sqrt().item() if squares else 0.0)
        if self.feature_weight is None:
            for name, norm in zip(("waveform terms", "feature term"), norms, strict=True):
                if not 0 < norm < math.inf:
                    raise ConfigError(
                        f"method {self.method}: the gradient of the {name} has the norm {norm}; set feature_weight yourself"
                    )
            self.feature_weight = share * norms[0] / norms[1]
        return {"waveform_norm": norms[0], "feature_norm": norms[1], "feature_weight": self.feature_weight}

    def forward(
        self,
        student: Tensor,
        clean: Tensor,
        teacher: Tensor | None = None,
        student_features: dict[str, Tensor] | None = None,
        teacher_features: dict[str, Tensor] | None = None,
    ) -> dict[str, Any]:
        """All terms of one batch.

        Args:
            student, clean, teacher: waveforms (batch, sample); teacher None only for method "none".
            student_features, teacher_features: from FeatureTap, for methods with a feature term.

        Returns:
            {"total", "clean", ["teacher"], ["features", "layers": {name: scalar}]}; "total" is what to minimise.
            While b is None, "total" lacks the feature term: call :meth:`balance` first.

        Raises:
            ConfigError: the teacher's output or features are needed and missing, the batch holds no sample, or as of
                :meth:`FeatureLoss.forward`.
        """
        if self.needs_teacher and teacher is None:
            raise ConfigError(f"method {self.method} needs the teacher's output")
        if self.feature_loss is not None and (student_features is None or teacher_features is None):
            raise ConfigError(f"method {self.method} needs the features of both: hand over those of two FeatureTaps")
        if not student.numel():
            raise ConfigError(
                f"the batch {tuple(student.shape)} holds no sample; leave empty recordings and batches out"
            )
        terms: dict[str, Any] = self.waveform_term(student, clean, teacher)
        a = self.output_weight
        total = (1 - a) * terms["clean"] + (a * terms["teacher"] if self.needs_teacher else 0)
        if self.feature_loss is not None and student_features is not None and teacher_features is not None:
            terms["features"], terms["layers"] = self.feature_loss(student_features, teacher_features)
            if self.feature_weight is not None:
                total = total + self.feature_weight * terms["features"]
        return {"total": total, **terms}
