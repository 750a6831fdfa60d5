"""The experiment of the paper, in one place: teacher, student alone, student with AT-KL, on the same data and seed.

Notebook 05 walks through it; notebook 06 evaluates what it leaves; the command line's ``train`` runs its parts one by
one. Systems have fixed keys: "noisy", "student", "student_at_kl", "teacher".
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from pathlib import Path

import torch
from torch import nn
from tqdm.auto import tqdm

from dccrn_lib.corpus.manifest import read_manifest
from dccrn_lib.corpus.mixing import MixConfig, MixtureDataset
from dccrn_lib.corpus.recipes import generated_corpus
from dccrn_lib.errors import ConfigError
from dccrn_lib.models import load_model
from dccrn_lib.paths import weights_dir
from dccrn_lib.profiles import Profile, get_profile
from dccrn_lib.training import TrainConfig, TrainResult, train

#: Systems that are trained, in the order they must be.
TRAINED = ("teacher", "student", "student_at_kl")
TEST_SEED = 2_000_003


def corpus_of(
    profile: Profile | str, speech: str = "", noise: str = "", rir: str = "", seed: int = 0, progress: bool = True
) -> dict[str, str]:
    """Manifests of the experiment: the ones given, or the generated corpus of the profile's size.

    Args:
        profile: how much to generate.
        speech, noise, rir: manifests of your own recordings; speech and noise go together, rir may be "".
        seed: of the generated corpus.

    Returns:
        {"speech", "noise", "rir"}: paths, rir may be "".

    Raises:
        ConfigError: one of speech and noise without the other.
        ManifestError: a manifest lacks one of the splits train, valid and test.
    """
    profile = get_profile(profile) if isinstance(profile, str) else profile
    if bool(speech) != bool(noise):
        raise ConfigError("speech and noise manifests go together: give both, or neither for the generated corpus")
    if not speech:
        made = generated_corpus(profile.corpus_hours, seed, progress=progress)
        return {"speech": str(made.speech), "noise": str(made.noise), "rir": str(made.rir)}
    for kind, manifests in (("speech", speech), ("noise", noise)):
        for split in ("train", "valid", "test"):
            for manifest in manifests.split(","):
                read_manifest(manifest, split=split, kind=kind)
    return {"speech": speech, "noise": noise, "rir": rir}


def train_config(
    system: str, profile: Profile | str, corpus: dict[str, str], out: str | Path, seed: int = 0, **changes
) -> TrainConfig:
    """The config of one system of the experiment in ``out/<system>``.

    Args:
        system: "teacher", "student" or "student_at_kl".
        profile: sizes.
        corpus: from :func:`corpus_of`.
        out: folder of the experiment.
        seed: of initialisation and mixtures.
        changes: fields of TrainConfig to set otherwise.
    """
    profile = get_profile(profile) if isinstance(profile, str) else profile
    if system not in TRAINED:
        raise ConfigError(f"unknown system {system!r}; known: {', '.join(TRAINED)}")
    out = Path(out)
    is_teacher = system == "teacher"
    settings = {
        "out": str(out / system), **corpus,
        "model": profile.teacher if is_teacher else profile.student,
        "method": "at_kl" if system == "student_at_kl" else "none",
        "teacher": str(out / "teacher" / "best.safetensors") if system == "student_at_kl" else "",
        "steps": profile.teacher_steps if is_teacher else profile.student_steps,
        "batch_size": profile.batch_size, "learning_rate": profile.learning_rate, "amp": profile.amp,
        "device": profile.device, "workers": profile.workers, "spectral_weight": profile.spectral_weight,
        "ema_decay": profile.ema_decay, "valid_every": profile.valid_every, "valid_mixtures": profile.valid_mixtures,
        "warmup_steps": min(100, profile.student_steps // 10), "seed": seed,
        "mix": MixConfig(segment_seconds=profile.segment_seconds, snr_db=profile.snr_db),
    }  # fmt: skip
    return TrainConfig(**{**settings, **changes})


def run_system(config: TrainConfig, progress: bool = True) -> TrainResult:
    """Train one system, or go on where it stopped; a finished run is loaded at once."""
    return train(config, resume=True, progress=progress)


def load_systems(folder: str | Path = "") -> dict[str, nn.Module]:
    """The trained systems of an experiment, in eval mode.

    Args:
        folder: where :func:`train_config` put them; "" loads the shipped ones of the quick profile.

    Raises:
        WeightsError: one of them is missing.
    """
    if folder:
        return {name: load_model(Path(folder) / name / "best.safetensors") for name in TRAINED}
    return {name: load_model(weights_dir() / "quick" / f"{name}.safetensors") for name in TRAINED}


def test_mixtures(profile: Profile | str, corpus: dict[str, str], count: int | None = None) -> MixtureDataset:
    """The fixed mixtures of the test split: speakers, sentences and noises that no training has seen."""
    profile = get_profile(profile) if isinstance(profile, str) else profile
    mix = MixConfig(segment_seconds=profile.test_seconds, snr_db=profile.snr_db)
    sources = (corpus["speech"], corpus["noise"], corpus["rir"] or None)
    return MixtureDataset(*sources, mix, seed=TEST_SEED, length=count or profile.test_mixtures, split="test")


def _score(job: tuple) -> dict:
    from dccrn_lib.metrics import score_pair

    clean, estimate, metrics = job
    torch.set_num_threads(1)
    return score_pair(clean, estimate, metrics=metrics)


def evaluate_systems(
    systems: dict[str, nn.Module | None],
    mixtures: MixtureDataset,
    metrics: Sequence[str] = ("pesq_wb", "stoi", "si_snr_db", "gain", "polarity"),
    workers: int | None = None,
    progress: bool = True,
) -> dict[str, list[dict]]:
    """Score every system on every mixture.

    Args:
        systems: name -> model; None stands for the noisy input itself.
        mixtures: the test set.
        metrics: see ``dccrn_lib.metrics.score_pair``.
        workers: processes that score; as many as cores by default, 1 scores in this process.

    Returns:
        name -> one dict a mixture: {"id", "snr_db_in", "label", metric: value or None, "reasons"}.
    """
    workers = min(workers or os.cpu_count() or 1, 8)
    jobs, heads = [], []
    for i in tqdm(range(len(mixtures)), desc="enhance", disable=not progress):
        item = mixtures[i]
        for name, model in systems.items():
            estimate = item["noisy"]
            if model is not None:
                device = next(model.parameters()).device
                with torch.no_grad():
                    estimate = model.eval()(item["noisy"][None].to(device))[0].cpu()
            jobs.append((item["clean"].numpy(), estimate.numpy(), tuple(metrics)))
            heads.append((name, {"id": item["id"], "snr_db_in": item["snr_db"], "label": item["label"]}))
    if workers == 1:
        scores = [_score(job) for job in tqdm(jobs, desc="score", disable=not progress)]
    else:
        with ProcessPoolExecutor(workers, mp_context=get_context("spawn")) as pool:
            scores = list(tqdm(pool.map(_score, jobs, chunksize=4), total=len(jobs), desc="score", disable=not progress))
    items: dict[str, list[dict]] = {name: [] for name in systems}
    for (name, head), score in zip(heads, scores, strict=True):
        items[name].append({**head, **score})
    return items
