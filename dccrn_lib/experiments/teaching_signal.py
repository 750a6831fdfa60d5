"""Has the teacher anything left to say? Its lead over a student, and whether its gradients help that student.

    python -m dccrn_lib experiment teaching-signal --speech S --noise N --rir R --teacher uformer \\
        untrained=untrained early=weights/equal_hours/student_alone late=distil_dccrn_alone

A step of training follows the gradient of one batch, and what it is wanted for is the loss against the clean speech on
*other* mixtures. So for every student and every term of the loss we take the gradient on many batches and ask for two
cosines: to the clean gradient of the same batch (do the two terms agree?), and to the clean gradients of the other
batches, one by one (does the term help?). A teacher is worth its time where the gradient of clean, output and AT-KL
together points more towards the others than the clean gradient alone does; the paired difference of these cosines says
whether it does.

Nothing is trained: networks in eval mode, float32, mixtures of the valid split by the recipe of the campaign.

Source: ours. Such measurements for AT-KL are not known to us.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from scipy import stats
from torch import Tensor, nn
from torch.nn.functional import cosine_similarity
from torch.utils.data import default_collate
from tqdm import tqdm

from dccrn_lib.distillation.at_kl import AttentionTransferKL
from dccrn_lib.distillation.attention import NORMALISATIONS
from dccrn_lib.distillation.taps import FeatureTap
from dccrn_lib.distillation.teacher import Teacher
from dccrn_lib.evaluation.intervals import Difference, bracketed, paired_difference, t_interval
from dccrn_lib.experiments.paper import data_hash
from dccrn_lib.losses import WaveformLoss, si_snr_db
from dccrn_lib.networks.presets import build_model
from dccrn_lib.networks.weights import load_model, read_card
from dccrn_lib.results.records import save_result
from dccrn_lib.runtime.errors import ConfigError
from dccrn_lib.training.config import TrainConfig
from dccrn_lib.training.validation import VALID_SEED, valid_mixtures

#: The terms of the loss, of which "clean" needs no teacher.
TERMS = ("clean", "output", "at_kl_softmax", "at_kl_sum")
UNTRAINED = "untrained"
STUDENT = "distil_dccrn"


class Terms:
    """The terms of the loss of one student under one teacher, with the weights that a recipe gives them.

    Args:
        student: network to be looked at; it is put into eval mode.
        teacher: frozen here.
        config: ``level_weight`` and ``spectral_weight`` of the waveform terms.
    """

    def __init__(self, student: nn.Module, teacher: nn.Module, config: TrainConfig) -> None:
        self.student, self.parameters = student.eval(), [p for p in student.parameters() if p.requires_grad]
        self.teacher, self.tap = Teacher(teacher, tapped=True), FeatureTap(student)
        self.waveform = WaveformLoss(config.level_weight, config.spectral_weight)
        stfts: dict[str, Any] = {"student_stft": student.config.stft, "teacher_stft": teacher.config.stft}
        self.features = {f"at_kl_{how}": AttentionTransferKL(config.reading, how, **stfts) for how in NORMALISATIONS}

    def measure(self, noisy: Tensor, clean: Tensor) -> tuple[dict[str, Tensor], dict[str, float], Tensor]:
        """One batch, waveforms (batch, sample).

        Returns:
            Gradient of every term, flat, zeros where it reaches no parameter; value of every term; lead of the teacher
            in dB SI-SNR for each mixture (batch,).
        """
        target, taught = self.teacher(noisy, [])
        estimate = self.student(noisy)
        losses = {"clean": self.waveform(estimate, clean), "output": self.waveform(estimate, target)}
        for name, loss in self.features.items():
            losses[name], _ = loss(self.tap.features, taught)
        gradients = {name: self._flat(loss) for name, loss in losses.items()}
        with torch.no_grad():
            lead = si_snr_db(target, clean) - si_snr_db(estimate, clean)
        return gradients, {name: loss.item() for name, loss in losses.items()}, lead

    def _flat(self, loss: Tensor) -> Tensor:
        found = torch.autograd.grad(loss, self.parameters, retain_graph=True, allow_unused=True)
        pairs = zip(found, self.parameters, strict=True)
        return torch.cat([(torch.zeros_like(p) if g is None else g).flatten() for g, p in pairs])

    def close(self) -> None:
        """Remove the hooks from both networks."""
        self.tap.close()
        self.teacher.close()


def together(gradients: Mapping[str, Tensor], output_weight: float, feature_share: float) -> Tensor:
    """The gradient of a taught step: (1 - a) clean + a output + AT-KL (softmax) scaled to a share of the others' norm.

    Args:
        gradients: of one batch, flat, from :meth:`Terms.measure`.
        output_weight: a.
        feature_share: norm of the feature term over that of the waveform terms.

    >>> g = {"clean": torch.tensor([2.0, 0.0]), "output": torch.tensor([0.0, 2.0]),
    ...      "at_kl_softmax": torch.tensor([0.0, 5.0])}
    >>> together(g, 0.5, 0.0), together(g, 0.0, 0.5)
    (tensor([1., 1.]), tensor([2., 1.]))
    """
    waveform = (1 - output_weight) * gradients["clean"] + output_weight * gradients["output"]
    features = gradients["at_kl_softmax"]
    return waveform + features * (feature_share * waveform.norm() / features.norm().clamp_min(1e-30))


def towards_others(gradients: Sequence[Tensor], clean: Sequence[Tensor]) -> np.ndarray:
    """(batch, batch): cosine between the gradient of one batch and the clean gradient of another, NaN for its own.

    >>> x, y = torch.tensor([1.0, 0.0]), torch.tensor([0.0, 1.0])
    >>> towards_others([x, x], [x, y]).tolist()
    [[nan, 0.0], [1.0, nan]]
    """
    first, second = (torch.stack([g / g.norm().clamp_min(1e-30) for g in side]) for side in (gradients, clean))
    cosines = (first @ second.T).double().numpy()
    np.fill_diagonal(cosines, np.nan)
    return cosines


def over_batches(cosines: np.ndarray) -> Difference:
    """Mean of :func:`towards_others` with its 95 % interval by the jackknife: a batch is left out of both sides.

    The cosines of one batch share its gradient and those to one batch its clean gradient: taken for independent of each
    other they would give an interval far too narrow.

    Raises:
        ConfigError: fewer than three batches.
    """
    count = len(cosines)
    if count < 3:
        raise ConfigError(f"at least 3 batches are needed to tell one from the others, got {count}")
    without = np.array([np.nanmean(np.delete(np.delete(cosines, k, 0), k, 1)) for k in range(count)])
    error = math.sqrt((count - 1) / count * float(((without - without.mean()) ** 2).sum()))
    mean, half = float(np.nanmean(cosines)), float(stats.t.ppf(0.975, count - 1)) * error
    return Difference(mean, mean - half, mean + half, count, "jackknife")


def row_of(
    found: Sequence[tuple[Mapping[str, Tensor], Mapping[str, float], Tensor]], config: TrainConfig
) -> dict[str, Any]:
    """The row of one student: means over its batches with 95 % intervals.

    Args:
        found: what :meth:`Terms.measure` gave for each batch.
        config: ``output_weight`` and ``feature_share`` of a taught step.
    """
    gradients = {term: [batch[0][term] for batch in found] for term in TERMS}
    gradients["taught"] = [together(batch[0], config.output_weight, config.feature_share) for batch in found]
    lead = paired_difference(torch.cat([batch[2] for batch in found]).tolist(), [0.0] * _count(found))
    row: dict[str, Any] = {"lead_db": str(lead), "ahead_on": lead.share_better}
    for how in NORMALISATIONS:
        row[f"kl_{how}"] = sum(batch[1][f"at_kl_{how}"] for batch in found) / len(found)
    for term in TERMS[1:]:
        pairs = zip(gradients[term], gradients["clean"], strict=True)
        row[f"{term}_with_clean"] = _mean([cosine_similarity(g, own, dim=0).item() for g, own in pairs])
    others = {term: towards_others(values, gradients["clean"]) for term, values in gradients.items()}
    row |= {f"{term}_to_others": over_batches(values).text(form="+.3f") for term, values in others.items()}
    row["taught_minus_clean"] = str(over_batches(others["taught"] - others["clean"]))
    return row


def _count(found: Sequence[tuple[Any, Any, Tensor]]) -> int:
    return sum(len(batch[2]) for batch in found)


def _mean(values: Sequence[float]) -> str:
    low, high = t_interval(values)
    return f"{sum(values) / len(values):+.3f}{bracketed(low, high, '+.3f')}"


def publish(
    students: Mapping[str, str],
    teacher: str,
    shared: TrainConfig,
    batches: int = 24,
    name: str = "teaching_signal",
    folder: str | Path | None = None,
    progress: bool = True,
) -> Path:
    """Measure every student under the teacher and write ``results/<name>.json``.

    Args:
        students: name in the table -> shipped name or path of weights, or "untrained".
        teacher: shipped name or path of weights.
        shared: recipe: manifests, mixing, batch size, weights of the terms, reading.
        batches: gradients for each student; each batch holds other mixtures.
        name: of the result.
        folder: results/ when None.
        progress: show a progress bar.

    Raises:
        ConfigError: no student is named, or fewer than three batches.
        WeightsError: as of :func:`~dccrn_lib.networks.weights.load_model`, before anything is measured.
    """
    if not students:
        raise ConfigError("name the students as NAME=WEIGHTS, e.g. late=distil_dccrn_alone")
    if batches < 3:
        raise ConfigError(f"at least 3 batches are needed to tell one from the others, got {batches}")
    for weights in (teacher, *(name for name in students.values() if name != UNTRAINED)):
        load_model(weights)  # a slip in the last name would cost the work of all before it
    size = shared.batch_size
    mixtures = valid_mixtures(replace(shared, valid_mixtures=batches * size))
    rows, cards = [], {}
    bar = tqdm(total=len(students) * batches, unit="batch", disable=not progress)
    for student, weights in students.items():
        network = _student(weights)
        terms = Terms(network, load_model(teacher), shared)
        found = []
        for k in range(batches):
            batch = default_collate([mixtures[k * size + i] for i in range(size)])
            found.append(terms.measure(batch["noisy"], batch["clean"]))
            bar.update()
        terms.close()
        card = {} if weights == UNTRAINED else read_card(weights)
        cards[student] = card.get("sha256", UNTRAINED)
        hours = card.get("card", {}).get("hours_of_audio", 0 if weights == UNTRAINED else None)
        rows.append({"student": student, "hours": hours, "n": batches * size, **row_of(found, shared)})
    bar.close()
    payload = {
        "title": "Lead of a teacher and direction of its gradients, by student",
        "note": "Valid split. Cosines between gradients over all parameters of the student, network in eval mode, float32: "
        "with_clean: to the clean gradient of the same batch; to_others: mean of those to the clean gradients of the other "
        "batches. 95 % intervals: with_clean Student's t over the batches, to_others and taught_minus_clean by the "
        "jackknife over them, the lead's by bootstrap over the mixtures.",
        "command": "python -m dccrn_lib experiment teaching-signal NAME=WEIGHTS ... --speech S --noise N --rir R",
        "config": {
            "teacher": read_card(teacher)["sha256"], "students": cards, "batches": batches, "batch_size": size,
            "mix": repr(shared.mix), "output_weight": shared.output_weight, "feature_share": shared.feature_share,
            "spectral_weight": shared.spectral_weight, "level_weight": shared.level_weight, "reading": shared.reading,
        },
        "seed": VALID_SEED,
        "data_hash": data_hash({kind: getattr(shared, kind) for kind in ("speech", "noise", "rir")}),
        "columns": list(rows[0]),
        "rows": rows,
    }  # fmt: skip
    return save_result(name, payload, folder)


def _student(weights: str) -> nn.Module:
    if weights != UNTRAINED:
        return load_model(weights).requires_grad_(True)
    torch.manual_seed(0)
    return build_model(STUDENT)
