"""Knowledge distillation between networks of different shape: AT-KL and the methods it is compared with.

Teacher and student share the frequency size of every layer (FFT 512 without DC: 128, 64, 32, 16, 8, 4 in the encoder,
8 .. 256 in the decoder); channels and frame rates differ. AT-KL compares what the two have in common.

Features are real tensors (batch, chan, freq, frame); complex ones have their real half first, so that the mean over
chan of x^2 is half the mean of |A|^2, a factor that every normalisation removes.

Source: Han et al. 2024 name AT-KL and what it ties together; the formulas are our reading (docs/ledger.md).
"""

from __future__ import annotations

import inspect
from collections.abc import Iterator
from contextlib import contextmanager

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from dccrn_lib.errors import ConfigError, nearest_name
from dccrn_lib.losses import si_snr_loss
from dccrn_lib.processes import mean_over_processes

EPS = 1e-8
READINGS = ("frequency", "time_frequency")
NORMALISATIONS = ("sum", "softmax")
STREAMS = ("complex", "magnitude", "both")


class FeatureTap:
    """Record the outputs of all encoder and decoder layers without touching the model.

    Args:
        model: anything with ModuleLists ``encoder`` and ``decoder``.
        stream: for layers that return (complex stream, magnitude stream), as Uformer's do: which one to keep;
            "both" joins them along chan.

    ``features`` maps "encoder.0" .. "decoder.5" to (batch, chan, freq, frame) of the latest forward pass, with its
    gradient history. Use it as a context manager or call :meth:`close`.

    >>> from dccrn_lib import build_model
    >>> model = build_model("distil_dccrn_mini")
    >>> with FeatureTap(model) as tap:
    ...     y = model(torch.randn(1, 1600))
    >>> len(tap.features), tap.features["encoder.5"].shape[1:3]
    (12, torch.Size([32, 4]))
    """

    def __init__(self, model: nn.Module, stream: str = "complex") -> None:
        if stream not in STREAMS:
            raise ConfigError(f"unknown stream {stream!r}; {nearest_name(stream, list(STREAMS))}")
        self.stream = stream
        self.features: dict[str, Tensor] = {}
        self._handles = []
        for part in ("encoder", "decoder"):
            for i, layer in enumerate(getattr(model, part)):
                self._handles.append(layer.register_forward_hook(self._hook(f"{part}.{i}")))

    def _hook(self, name: str):
        def keep(_module, _inputs, output) -> None:
            if isinstance(output, tuple):
                chosen = {"complex": output[:1], "magnitude": output[1:2], "both": output[:2]}[self.stream]
                output = torch.cat(chosen, dim=1)
            self.features[name] = output

        return keep

    def close(self) -> None:
        """Remove the hooks; ``features`` stays."""
        for handle in self._handles:
            handle.remove()
        self._handles = []

    def __enter__(self) -> FeatureTap:
        return self

    def __exit__(self, *_exc) -> None:
        self.close()


def channel_attention(feature: Tensor, power: float = 2.0) -> Tensor:
    """M(f, t) = mean over chan of |A|^p: (batch, chan, freq, frame) -> (batch, freq, frame).

    Real and imaginary parts are channels of their own here. For p = 2 that is half the mean of the complex |A|^2; for
    any other p, |re|^p + |im|^p is no multiple of |A|^p and changes when the phase turns.

    Source: Zagoruyko and Komodakis 2017, eq. 1 (mean instead of sum over chan: a factor).
    """
    feature = feature.float()
    # x * x has a finite gradient at 0 for p = 2; other powers go through |x| kept off 0
    powered = feature.square() if power == 2 else (feature.abs() + EPS).pow(power)
    return powered.mean(dim=1)


def frequency_attention(feature: Tensor, power: float = 2.0) -> Tensor:
    """q(f) = mean over frame of M(f, t): (batch, chan, freq, frame) -> (batch, freq). The frame rate is gone."""
    return channel_attention(feature, power).mean(dim=-1)


def log_distribution(q: Tensor, normalisation: str = "sum", temperature: float = 1.0) -> Tensor:
    """log P along the last axis.

    Args:
        q: non-negative, (..., n).
        normalisation: "sum": P = q / sum q; "softmax": P = softmax(q / ||q||_2 / temperature).
        temperature: of the softmax. At 1, an L2-normalised vector gives a nearly flat P.

    >>> log_distribution(torch.tensor([1.0, 3.0])).exp()
    tensor([0.2500, 0.7500])
    """
    if normalisation == "sum":
        # log P = log(q + eps m) - log sum(q + eps m), with m = mean q: scale-free, and finite for an empty bin
        q = q + EPS * q.mean(-1, keepdim=True) + 1e-20
        return q.log() - q.sum(-1, keepdim=True).log()
    if normalisation == "softmax":
        norm = (q.square().sum(-1, keepdim=True) + 1e-20).sqrt()
        return F.log_softmax(q / norm / temperature, dim=-1)
    raise ConfigError(f"unknown normalisation {normalisation!r}; {nearest_name(normalisation, list(NORMALISATIONS))}")


def kl_divergence(log_teacher: Tensor, log_student: Tensor) -> Tensor:
    """KL(P_teacher || P_student) = sum P_t (log P_t - log P_s) over the last axis, mean over all others, in nats.

    The reduction matters: on one tensor "sum", "batchmean" and "mean" of torch's kl_div differ by the number of rows
    and of elements, a factor beyond 10,000. Here a value does not depend on batch or size of the maps.

    >>> kl_divergence(torch.tensor([[0.5, 0.5]]).log(), torch.tensor([[0.25, 0.75]]).log())
    tensor(0.1438)
    """
    return (log_teacher.exp() * (log_teacher - log_student)).sum(-1).mean()


def align_frames(x: Tensor, from_stft, to_stft, frames: int) -> Tensor:
    """Bring frames of one hop to another by linear interpolation, so that their centres in time agree.

    Args:
        x: (..., frame) at ``from_stft``'s hop.
        from_stft, to_stft: STFTConfig of the two networks. Frame k is centred at k * hop + hop - window / 2.
        frames: number of frames wanted.

    Returns:
        (..., frames); outside the first and last centre the nearest frame is kept.
    """
    k = torch.arange(frames, device=x.device, dtype=torch.float32)
    centre = (k + 1) * to_stft.hop_length - to_stft.window_length / 2  # samples
    position = (centre + from_stft.window_length / 2) / from_stft.hop_length - 1
    position = position.clamp(0, x.shape[-1] - 1)
    left = position.floor().long().clamp_max(max(x.shape[-1] - 2, 0))
    right = (left + 1).clamp_max(x.shape[-1] - 1)
    weight = position - left
    return x[..., left] * (1 - weight) + x[..., right] * weight


def _check_pair(name: str, student: Tensor, teacher: Tensor) -> None:
    if student.shape[0] != teacher.shape[0] or student.shape[2] != teacher.shape[2]:
        raise ConfigError(
            f"{name}: batch and freq of student {tuple(student.shape)} and teacher {tuple(teacher.shape)} must agree; "
            "use models with the same FFT size and number of layers"
        )


class FeatureLoss(nn.Module):
    """Distance between the features of student and teacher, averaged over the layers.

    ``forward(student, teacher)`` takes two dicts from :class:`FeatureTap` with the same keys and returns
    (scalar, {layer: scalar}). Teachers are detached. Subclasses define :meth:`layer`.

    Args:
        student_stft, teacher_stft: STFTConfig of the networks, needed where frames are brought together.
    """

    def __init__(self, student_stft=None, teacher_stft=None) -> None:
        super().__init__()
        self.student_stft, self.teacher_stft = student_stft, teacher_stft

    def prepare(self, student: dict[str, Tensor], teacher: dict[str, Tensor]) -> None:
        """Called once with the first batch's features, before training; adapters are built here."""

    def layer(self, name: str, student: Tensor, teacher: Tensor) -> Tensor:
        raise NotImplementedError

    def forward(self, student: dict[str, Tensor], teacher: dict[str, Tensor]) -> tuple[Tensor, dict[str, Tensor]]:
        if set(student) != set(teacher) or not student:
            raise ConfigError(f"layers of student and teacher differ: {sorted(set(student) ^ set(teacher))}")
        losses = {}
        for name in student:
            _check_pair(name, student[name], teacher[name])
            losses[name] = self.layer(name, student[name].float(), teacher[name].detach().float())
        return torch.stack(list(losses.values())).mean(), losses

    def _teacher_at_student_rate(self, teacher: Tensor, frames: int) -> Tensor:
        if self.student_stft is None or self.teacher_stft is None:
            if teacher.shape[-1] == frames:
                return teacher
            raise ConfigError("this method aligns frames: give student_stft and teacher_stft")
        return align_frames(teacher, self.teacher_stft, self.student_stft, frames)


class AttentionTransferKL(FeatureLoss):
    """AT-KL: KL divergence between attention distributions of teacher and student.

    Args:
        reading: "frequency": pool chan and frame, compare over freq (the default: no interpolation, no adapter).
            "time_frequency": add the KL over frame of M averaged over freq, with the teacher's frames interpolated to
            the student's.
        normalisation: "sum" or "softmax", see :func:`log_distribution`.
        power: p of the channel attention.
        temperature: of the softmax.
        student_stft, teacher_stft: needed for "time_frequency".

    Source: Han et al. 2024 for the idea; both readings are ours.
    """

    def __init__(
        self,
        reading: str = "frequency",
        normalisation: str = "sum",
        power: float = 2.0,
        temperature: float = 1.0,
        student_stft=None,
        teacher_stft=None,
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
        m_student, m_teacher = channel_attention(student, self.power), channel_attention(teacher, self.power)
        # q(f) = mean_t M(f, t);  L = KL(P_teacher || P_student) over freq
        loss = self._kl(m_teacher.mean(-1), m_student.mean(-1))
        if self.reading == "time_frequency":
            # r(t) = mean_f M(f, t), the teacher's at the student's frames;  L += KL over frame
            aligned = self._teacher_at_student_rate(m_teacher.mean(1), m_student.shape[-1])
            loss = loss + self._kl(aligned, m_student.mean(1))
        return loss


class CentredAttentionTransferKL(AttentionTransferKL):
    """AT-KL of what changes over time: each channel and frequency loses its mean over frame first.

    Uformer's fusion leaves most of a tapped feature's energy in an offset that is the same in every frame; AT-KL
    compares mainly that. Here only the rest is compared. Args as :class:`AttentionTransferKL`. Source: ours.
    """

    def layer(self, name: str, student: Tensor, teacher: Tensor) -> Tensor:
        # A(c, f, t) - mean_t A(c, f, t)
        student, teacher = (a.float() - a.float().mean(-1, keepdim=True) for a in (student, teacher))
        return super().layer(name, student, teacher)


class AttentionTransfer(FeatureLoss):
    """AT: squared distance of L2-normalised attention maps M(f, t), the teacher's at the student's frames.

    Source: Zagoruyko and Komodakis 2017, eq. 2 with p = 2; frames are brought together as in AT-KL.
    """

    def layer(self, name: str, student: Tensor, teacher: Tensor) -> Tensor:
        m_student = channel_attention(student)
        m_teacher = self._teacher_at_student_rate(channel_attention(teacher), m_student.shape[-1])
        maps = [m.flatten(1) / (m.flatten(1).square().sum(1, keepdim=True) + 1e-20).sqrt() for m in (m_student, m_teacher)]
        return (maps[0] - maps[1]).square().sum(1).mean()


class _Projected(FeatureLoss):
    """Methods that compare channels: a learned 1x1 convolution brings the student's channels to the teacher's."""

    def prepare(self, student: dict[str, Tensor], teacher: dict[str, Tensor]) -> None:
        self.adapters = nn.ModuleDict(
            {n.replace(".", "_"): nn.Conv2d(student[n].shape[1], teacher[n].shape[1], 1) for n in student}
        ).to(next(iter(student.values())).device)

    def _pair(self, name: str, student: Tensor, teacher: Tensor) -> tuple[Tensor, Tensor]:
        if not hasattr(self, "adapters"):
            raise ConfigError("call prepare(student, teacher) with one batch of features first: it builds the adapters")
        return self.adapters[name.replace(".", "_")](student), self._teacher_at_student_rate(teacher, student.shape[-1])


class FitNets(_Projected):
    """Hints: mean squared distance of projected features, relative to the teacher's power.

    Source: Romero et al. 2015, eq. 3, at all layers instead of one.
    """

    def layer(self, name: str, student: Tensor, teacher: Tensor) -> Tensor:
        projected, target = self._pair(name, student, teacher)
        power = mean_over_processes(target.square().mean())  # of the whole batch, however many processes share it
        return (projected - target).square().mean() / (power + EPS)


class ChannelKL(_Projected):
    """Channel-wise KL: every channel of the teacher is a distribution over (freq, frame), softmax of its values.

    Source: Shu et al. 2021, eq. 3 at temperature 1 without its T^2 / C factor.
    """

    def layer(self, name: str, student: Tensor, teacher: Tensor) -> Tensor:
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
        grams = []
        for x in (student, teacher):
            rows = x.transpose(1, 2).flatten(2)  # (batch, freq, chan * frame)
            rows = rows / (rows.square().sum(-1, keepdim=True) + 1e-20).sqrt()
            grams.append(rows @ rows.transpose(1, 2))  # (batch, freq, freq)
        return (grams[0] - grams[1]).square().mean()


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
        ConfigError: unknown method or option, a outside [0, 1].
    """

    def __init__(
        self,
        method: str = "at_kl",
        output_weight: float = 0.5,
        feature_weight: float | None = None,
        base_loss=si_snr_loss,
        **options,
    ) -> None:
        super().__init__()
        if method not in METHODS:
            raise ConfigError(f"unknown distillation method {method!r}; {nearest_name(method, list(METHODS))}")
        if not 0 <= output_weight <= 1:
            raise ConfigError(f"output_weight must lie in [0, 1], got {output_weight}")
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
        """The two waveform losses: {"clean": ..., "teacher": ...}."""
        terms = {"clean": self.base_loss(student, clean)}
        if self.needs_teacher:
            terms["teacher"] = self.base_loss(student, teacher.detach())
        return terms

    def balance(
        self, parameters: list[nn.Parameter], waveform: Tensor, features: Tensor, share: float = 0.1
    ) -> dict[str, float]:
        """Choose b so that the gradient norm of b L_features is ``share`` of the waveform terms'.

        Args:
            parameters: the student's.
            waveform, features: the two scalars of one batch, graph attached (it is kept).
            share: 0.1: a tenth.

        Returns:
            {"waveform_norm", "feature_norm", "feature_weight"}: to be printed and kept.
        """
        norms = []
        for term in (waveform, features):
            grads = torch.autograd.grad(term, parameters, retain_graph=True, allow_unused=True)
            norms.append(torch.stack([g.float().square().sum() for g in grads if g is not None]).sum().sqrt().item())
        if self.feature_weight is None:
            if not norms[1] > 0:
                raise ConfigError(f"method {self.method}: the feature term has no gradient; set feature_weight yourself")
            self.feature_weight = share * norms[0] / norms[1]
        return {"waveform_norm": norms[0], "feature_norm": norms[1], "feature_weight": self.feature_weight}

    def forward(
        self,
        student: Tensor,
        clean: Tensor,
        teacher: Tensor | None = None,
        student_features: dict[str, Tensor] | None = None,
        teacher_features: dict[str, Tensor] | None = None,
    ) -> dict[str, Tensor | dict]:
        """All terms of one batch.

        Args:
            student, clean, teacher: waveforms (batch, sample); teacher None only for method "none".
            student_features, teacher_features: from FeatureTap, for methods with a feature term.

        Returns:
            {"total", "clean", ["teacher"], ["features", "layers": {name: scalar}]}; "total" is what to minimise.
            While b is None, "total" lacks the feature term: call :meth:`balance` first.
        """
        if self.needs_teacher and teacher is None:
            raise ConfigError(f"method {self.method} needs the teacher's output")
        terms: dict = self.waveform_term(student, clean, teacher)
        a = self.output_weight
        total = (1 - a) * terms["clean"] + (a * terms["teacher"] if self.needs_teacher else 0)
        if self.feature_loss is not None:
            terms["features"], terms["layers"] = self.feature_loss(student_features, teacher_features)
            if self.feature_weight is not None:
                total = total + self.feature_weight * terms["features"]
        return {"total": total, **terms}


@contextmanager
def frozen(teacher: nn.Module) -> Iterator[nn.Module]:
    """The teacher in eval mode without gradients; checked on leaving, so that no step can have trained it.

    An exception inside the block passes unchanged: the check is for blocks that end well.
    """
    yield freeze(teacher)
    assert_frozen(teacher)


def freeze(teacher: nn.Module) -> nn.Module:
    """Set eval mode and switch gradients off."""
    return teacher.eval().requires_grad_(False)


def assert_frozen(teacher: nn.Module) -> None:
    """Raise unless every part of the teacher is in eval mode and no parameter asks for a gradient."""
    if any(m.training for m in teacher.modules()):
        raise AssertionError("the teacher is in training mode: its BatchNorm statistics would change; call freeze()")
    if any(p.requires_grad or p.grad is not None for p in teacher.parameters()):
        raise AssertionError("the teacher's parameters take gradients; call freeze()")
