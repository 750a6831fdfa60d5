"""What a part of Uformer is worth: leave it out and train again.

Two questions differ. An *ablation*, as here, trains a network that never had the part: the others can make up for it.
A *lesion* (``networks.uformer.lesions``) bypasses the part in a network that was trained with it: it says how much
this network leans on it.

``python -m dccrn_lib experiment uformer-parts`` runs the ablation of the third lesson and writes
results/uformer_ablation.json. Source: ours.
"""

from __future__ import annotations

from collections.abc import Sequence
from concurrent.futures import Executor
from dataclasses import asdict, dataclass
from functools import lru_cache
from typing import Any

import torch
from torch import Tensor, nn

from dccrn_lib.corpus.mixing import MixtureDataset
from dccrn_lib.evaluation.systems import evaluate_systems
from dccrn_lib.experiments.executors import run_jobs
from dccrn_lib.experiments.paper import corpus_of, data_hash, test_mixtures
from dccrn_lib.experiments.recipe import PartRecipe, part_recipe
from dccrn_lib.losses import level_loss, si_snr_loss
from dccrn_lib.networks.cost import count_macs, count_parameters
from dccrn_lib.networks.presets import build_model
from dccrn_lib.training.profiles import get_profile

#: Name -> switches of UformerConfig.
VARIANTS: dict[str, dict[str, bool]] = {
    "full": {},
    "no fusion": {"fusion": False},
    "no attention": {"attention": False},
    "neither": {"fusion": False, "attention": False},
}


def train_briefly(
    model: nn.Module, batches: Sequence[tuple[Tensor, Tensor]], learning_rate: float = 4e-3, clip: float = 5.0
) -> list[float]:
    """One Adam step a batch on negative SI-SNR plus the level term; leaves the model in eval mode.

    The plain loop of lesson 03, for any network and without a folder, a config or a teacher; ``dccrn_lib.training`` has
    the one for everything else.

    Args:
        model: waveform in, waveform out; trained in place.
        batches: (noisy, clean), each (batch, sample).
        learning_rate: falls linearly to a tenth over the second half of the steps.
        clip: largest gradient norm.

    Returns:
        SI-SNR in dB of each batch before its step.
    """
    optimiser = torch.optim.Adam(model.parameters(), learning_rate)
    half = max(1, len(batches) // 2)
    schedule = torch.optim.lr_scheduler.LambdaLR(optimiser, lambda k: 1 - 0.9 * max(0, k - half) / half)
    model.train()
    curve = []
    for noisy, clean in batches:
        estimate = model(noisy)
        waveform = si_snr_loss(estimate, clean)
        optimiser.zero_grad()
        (waveform + level_loss(estimate, clean)).backward()
        nn.utils.clip_grad_norm_(model.parameters(), clip)
        optimiser.step()
        schedule.step()
        curve.append(-waveform.item())
    model.eval()
    return curve


@dataclass(frozen=True)
class PartJob:
    """One variant of the teacher with one seed, as it travels to whoever trains it."""

    variant: str
    seed: int
    profile: str
    recipe: PartRecipe


@lru_cache(maxsize=1)  # the variants of a seed follow each other
def _batches(profile: str, seed: int, recipe: PartRecipe) -> list[tuple[Tensor, Tensor]]:
    corpus, size = corpus_of(profile, progress=False), recipe.batch_size
    sources = (corpus["speech"], corpus["noise"], corpus["rir"] or None)
    data = MixtureDataset(*sources, recipe.mix, seed=seed, length=size * recipe.steps, split="train")
    batches = ([data[size * k + i] for i in range(size)] for k in range(recipe.steps))
    return [(torch.stack([i["noisy"] for i in batch]), torch.stack([i["clean"] for i in batch])) for batch in batches]


def train_part(job: PartJob) -> dict[str, Any]:
    """Train a variant and score it: {"curve", "items", "parameters", "macs"}."""
    sizes, corpus, recipe = get_profile(job.profile), corpus_of(job.profile, progress=False), job.recipe
    batches = _batches(job.profile, job.seed, recipe)
    torch.manual_seed(job.seed)
    model = build_model(sizes.teacher, **VARIANTS[job.variant])
    curve = train_briefly(model, batches, recipe.learning_rate, recipe.clip)
    held_out = test_mixtures(sizes, corpus, recipe.tests)
    scores = evaluate_systems({"noisy": None, "part": model}, held_out, ("si_snr_db",), workers=1, progress=False)
    items = [
        {
            "id": f"seed{job.seed}/{after['id']}",
            "si_snr_db": after["si_snr_db"],
            "gain_db": _minus(after["si_snr_db"], before["si_snr_db"]),
            "reasons": after["reasons"],
        }
        for before, after in zip(scores["noisy"], scores["part"], strict=True)
    ]
    return {
        "curve": [round(value, 3) for value in curve],
        "items": items,
        "parameters": count_parameters(model),
        "macs": count_macs(model),
    }


def _minus(after: float | None, before: float | None) -> float | None:
    return None if after is None or before is None else after - before


def run_study(
    profile: str = "quick", seeds: int = 3, recipe: PartRecipe | None = None, executor: Executor | None = None
) -> dict[str, Any]:
    """Train every variant of the mini teacher with every seed on the same batches; score on the test split.

    Args:
        profile: names the corpus, the preset and the mixtures.
        seeds: number of initialisations, each with its own training mixtures.
        recipe: how each is trained and judged; that of the profile when None.
        executor: that does the trainings, at once where it can; None does them here.

    Returns:
        Payload for ``results.records.save_result``: systems -> items with the SI-SNR of the output and its gain over
        the noisy input, in dB; both None where a network diverged, with the reason.
    """
    recipe = recipe or part_recipe(profile)
    sizes, corpus = get_profile(profile), corpus_of(profile, progress=False)
    jobs = [PartJob(name, seed, profile, recipe) for seed in range(seeds) for name in VARIANTS]
    done: dict[PartJob, dict[str, Any]] = {}
    for job, part in run_jobs(train_part, jobs, executor):
        done[job] = part
        gains = [item["gain_db"] for item in part["items"] if item["gain_db"] is not None]
        said = f"SI-SNR gain {sum(gains) / len(gains):.2f} dB" if gains else "nothing could be scored"
        print(f"seed {job.seed}, {job.variant}: {said} (n = {len(gains)} of {recipe.tests})", flush=True)
    systems: dict[str, dict[str, Any]] = {name: {"items": [], "curves": []} for name in VARIANTS}
    for job in jobs:  # by seed, whichever was finished first
        system, part = systems[job.variant], done[job]
        system["curves"].append(part["curve"])
        system["items"] += part["items"]
        system["parameters"], system["macs"] = part["parameters"], part["macs"]
    return {
        "config": {
            "profile": profile,
            "model": sizes.teacher,
            **asdict(recipe),
            "segment_seconds": recipe.mix.segment_seconds,
        },
        "seed": list(range(seeds)),
        "data_hash": data_hash(corpus),
        "systems": systems,
        "columns": ["si_snr_db", "gain_db"],
    }
