"""The experiment of the paper, in one place: teacher, student alone, student with AT-KL, on the same data and seed.

Notebook 05 walks through it; notebook 06 evaluates what it leaves; the command line's ``train`` runs its parts one by
one. Systems have fixed keys: "noisy", "student", "student_at_kl", "teacher".
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from pathlib import Path

from torch import nn

from dccrn_lib.corpus.manifest import read_manifests
from dccrn_lib.corpus.mixing import MixtureDataset
from dccrn_lib.corpus.synthesis.corpus import generated_corpus
from dccrn_lib.networks.weights import load_model
from dccrn_lib.runtime.devices import set_up_cpu
from dccrn_lib.runtime.errors import ConfigError
from dccrn_lib.runtime.files import hash_files, read_json, write_json
from dccrn_lib.runtime.paths import joined_paths, weights_dir
from dccrn_lib.runtime.workers import spawn_pool, usable_cores
from dccrn_lib.training.config import TrainConfig
from dccrn_lib.training.loop import train
from dccrn_lib.training.profiles import Profile, get_profile
from dccrn_lib.training.session import TrainResult

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
        ConfigError: one of speech and noise without the other, or rir without them.
        ManifestError: the manifests of a kind lack one of the splits train, valid and test.
    """
    profile = get_profile(profile) if isinstance(profile, str) else profile
    if bool(speech) != bool(noise):
        raise ConfigError("speech and noise manifests go together: give both, or neither for the generated corpus")
    if rir and not speech:
        raise ConfigError("rir manifests go with speech and noise: give all three, or none for the generated corpus")
    if not speech:
        made = generated_corpus(profile.corpus_hours, seed, progress=progress)
        return {"speech": str(made.speech), "noise": str(made.noise), "rir": str(made.rir)}
    for kind, manifests in (("speech", speech), ("noise", noise)):
        for split in ("train", "valid", "test"):
            read_manifests(joined_paths(manifests), split=split, kind=kind)
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
    settings = {**profile.settings(profile.teacher if system == "teacher" else profile.student), **corpus}
    settings |= {"out": str(out / system), "seed": seed}
    if system == "student_at_kl":
        settings |= {"method": "at_kl", "teacher": str(out / "teacher" / "best.safetensors")}
    return TrainConfig(**{**settings, **changes})


def data_hash(corpus: dict[str, str]) -> str:
    """SHA-256 of the corpus's manifests, wherever they lie."""
    return hash_files(path for key in ("speech", "noise", "rir") for path in joined_paths(corpus[key]))


def experiment_folder(out: str | Path, configs: Sequence[TrainConfig]) -> Path:
    """``out/experiment-<hash>``: another config, seed or corpus is another folder, so no run is taken for another.

    Args:
        out: folder of the experiments.
        configs: of the systems, from :func:`train_config` with any ``out``.
    """
    records = [c.deciding() for c in configs]
    corpora = sorted({data_hash({"speech": c.speech, "noise": c.noise, "rir": c.rir}) for c in configs})
    text = json.dumps([records, corpora], sort_keys=True)
    return Path(out) / f"experiment-{hashlib.sha256(text.encode()).hexdigest()[:8]}"


def record_experiment(folder: str | Path, profile: str, seed: int, corpus: dict[str, str], method: str) -> Path:
    """Write ``experiment.json`` beside the experiment's folder: it names the latest one, for notebook 06."""
    folder = Path(folder)
    record = {"folder": folder.name, "profile": profile, "seed": seed, "method": method, "data_hash": data_hash(corpus)}
    write_json(folder.parent / "experiment.json", record)
    return folder.parent / "experiment.json"


def find_experiment(out: str | Path, profile: str) -> dict | None:
    """What :func:`record_experiment` wrote in ``out`` for that profile, its folder made whole; None if none is finished."""
    file = Path(out) / "experiment.json"
    if not file.is_file():
        return None
    record = read_json(file, "remove it to train the experiment again")
    record["folder"] = Path(out) / record["folder"]
    finished = all(_finished_folder(record["folder"] / name) for name in TRAINED)
    return record if finished and record["profile"] == profile else None


def run_system(config: TrainConfig, progress: bool = True) -> TrainResult:
    """Train one system, or resume where it stopped; a finished run is loaded at once.

    Raises:
        KeyboardInterrupt: the training was told to stop; it keeps a checkpoint, and the next call goes on.
    """
    result = resume_system(config, progress)
    if result.stopped:
        raise KeyboardInterrupt
    return result


def resume_system(config: TrainConfig, progress: bool = True) -> TrainResult:
    """As :func:`run_system`, but a training that was told to stop comes back, ``stopped`` and half trained."""
    return train(config, resume=True, progress=progress)


def _run_alone(config: TrainConfig) -> bool:
    set_up_cpu(threads=1)
    return resume_system(config, progress=False).stopped


def run_systems(configs: Sequence[TrainConfig]) -> None:
    """Train systems that do not need each other at once, one process with one thread each; finished ones are kept.

    Small networks gain little from a second thread and lose much when anything else runs, so two processes are the
    better use of two cores. Only for profiles on the CPU: a GPU is better given one system after the other.

    Args:
        configs: from :func:`train_config`; none of them may be another one's teacher.

    Raises:
        KeyboardInterrupt: a training was told to stop; it keeps a checkpoint, and the next call goes on.
    """
    todo = [c for c in configs if not _finished(c)]
    if len(todo) > 1 and usable_cores() > 1 and all(c.device == "cpu" for c in todo):
        with spawn_pool(min(len(todo), usable_cores()), shielded=False) as pool:  # each keeps a checkpoint at Ctrl-C
            stopped = any(list(pool.map(_run_alone, todo)))
    else:
        stopped = any(
            resume_system(config, progress=False).stopped for config in todo
        )  # none behind one that is stopped
    if stopped:
        raise KeyboardInterrupt


def _finished(config: TrainConfig) -> bool:
    return _steps_made(Path(config.out)) >= config.steps


def _finished_folder(folder: Path) -> bool:
    """Whether the run in a folder made all the steps that its record asks for."""
    if not (folder / "best.safetensors").is_file() or not (folder / "config.json").is_file():
        return False
    return _steps_made(folder) >= read_json(folder / "config.json", "remove it to train the system again")["steps"]


def _steps_made(folder: Path) -> int:
    """Steps of a run by its last validation, which stands at its end; 0 without one."""
    path = folder / "history.json"
    valid = read_json(path, "remove it to resume the run").get("valid") if path.is_file() else None
    return valid[-1]["step"] if valid else 0


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
    sources = (corpus["speech"], corpus["noise"], corpus["rir"] or None)
    mix, length = profile.mix(profile.test_seconds, training=False), count or profile.test_mixtures
    return MixtureDataset(*sources, mix, seed=TEST_SEED, length=length, split="test")
