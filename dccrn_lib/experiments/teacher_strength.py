"""When does teaching help? The gain of a miniature student over the lead of its teacher, early and late in training.

    python -m dccrn_lib experiment teacher-strength run --speech S --noise N --rir R --out runs/strength \\
        --teachers 1h=runs/a/uformer/best,final=uformer
    python -m dccrn_lib experiment teacher-strength publish --out runs/strength

``run`` trains, for every seed, the student alone and taught by every teacher in several ways, all side by side on the same
mixtures (``training.lockstep``), and scores them on the valid split ten times. The lead is the teacher's SI-SNR on these
mixtures minus that of the student alone at that moment; the gain is that of the taught student over the student alone.

Source: ours. Results with AT-KL under teachers of several strengths are not known to us.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from concurrent.futures import Executor
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from dccrn_lib.evaluation.intervals import paired_difference
from dccrn_lib.experiments.executors import run_jobs
from dccrn_lib.experiments.paper import data_hash
from dccrn_lib.experiments.recipe import WAYS
from dccrn_lib.networks.weights import load_model, read_card
from dccrn_lib.results.records import require_not_read, save_result
from dccrn_lib.runtime.errors import ConfigError, WeightsError
from dccrn_lib.runtime.files import read_json, write_json
from dccrn_lib.runtime.json_text import parse_json
from dccrn_lib.training.config import TrainConfig
from dccrn_lib.training.lockstep import Lockstep, Stage, run_stage
from dccrn_lib.training.run_folder import with_newer_fields
from dccrn_lib.training.validation import validate

STUDENT = "distil_dccrn_mini"
_CURE = "remove the folder of the experiment and run it again"

#: Fractions of the training at which gain and lead are published: before the learning rate falls, and at the end.
MOMENTS = {"early": 0.2, "late": 1.0}


#: Fields of the recipe that stand in the result.
RECIPE = (
    "optimiser", "muon_learning_rate", "learning_rate", "batch_size", "decay_fraction", "ema_decay", "output_weight",
    "feature_share", "spectral_weight", "level_weight", "valid_mixtures", "amp",
)  # fmt: skip


def parse_weights(text: str) -> dict[str, str]:
    """From ``name=weights,name=weights``.

    >>> parse_weights("1h=runs/a/best,final=uformer")
    {'1h': 'runs/a/best', 'final': 'uformer'}

    Raises:
        ConfigError: a part that is not name=weights, or a name given twice.
    """
    networks: dict[str, str] = {}
    for part in text.split(","):
        name, found, weights = part.strip().partition("=")
        if not (name and found and weights) or name in networks or "/" in name:
            raise ConfigError(f"networks are written name=weights,name=weights with different names, got {part!r}")
        networks[name] = weights
    return networks


def strength_stage(shared: TrainConfig, teachers: Mapping[str, str], seed: int, ways: Sequence[str]) -> Stage:
    """The student alone, and taught by every teacher in every way, with one seed; folders below ``shared.out``."""
    for way in ways:
        if way not in WAYS:
            raise ConfigError(f"unknown way of teaching {way!r}; known: {', '.join(WAYS)}")
    out = Path(shared.out)
    systems = {"alone": replace(shared, out=str(out / "alone"), model=STUDENT, seed=seed, method="none")}
    for name, weights in teachers.items():
        for way in ways:
            system = f"{way}.{name}"
            systems[system] = replace(
                shared, out=str(out / system), model=STUDENT, seed=seed, teacher=weights, **WAYS[way]
            )
    return Stage("strength", systems, 1.0)


def run(
    shared: TrainConfig,
    teachers: Mapping[str, str],
    seeds: Sequence[int],
    steps: int,
    ways: Sequence[str] = tuple(WAYS),
    progress: bool = True,
    executor: Executor | None = None,
) -> bool:
    """Train and score all students; finished seeds are kept, a half-finished one resumes.

    Args:
        shared: recipe of all students; ``out`` is the folder of the experiment.
        teachers: name -> weights.
        seeds: of initial weights and mixtures.
        steps: length of each training.
        ways: names from :data:`WAYS`.
        progress: print how far it is.
        executor: that does the seeds, at once where it can; None does them here.

    Returns:
        False if a signal stopped it early.

    Raises:
        ConfigError: the folder was used for other teachers, another recipe or other recordings, or the weights of a teacher
            are others now.
    """
    out = Path(shared.out)
    corpus = data_hash({kind: getattr(shared, kind) for kind in ("speech", "noise", "rir")})
    plan = {"teachers": dict(teachers), "steps": steps, "ways": list(ways)}
    plan = parse_json(json.dumps({**plan, "recipe": shared.deciding(), "data_hash": corpus}))
    weights_now = _weights_hashes(teachers)
    file = out / "plan.json"
    if file.is_file():
        kept = read_json(file, _CURE)  # those of older versions lack the recipe and the data
        if isinstance(kept.get("recipe"), dict):  # or fields of it
            older = with_newer_fields(kept["recipe"], shared)
            kept["recipe"] = {name: value for name, value in older.items() if name in plan["recipe"]}
        if differing := [name for name, value in plan.items() if kept.get(name, value) != value]:
            raise ConfigError(f"{file} was written for other {', '.join(differing)}; choose another --out")
        before = kept.get("weights", {})
        if replaced := [name for name, digest in weights_now.items() if before.get(name, digest) != digest]:
            raise ConfigError(
                f"{file}: the weights of the teacher {replaced[0]} are no longer those that its seeds were taught by; "
                "restore them, or choose another --out"
            )
        weights_now = {**before, **weights_now}
    out.mkdir(parents=True, exist_ok=True)
    write_json(file, {**plan, "weights": weights_now})
    shared = replace(shared, out=str(out.resolve()))  # the workers of a cluster were started elsewhere
    jobs = [SeedJob(shared, dict(teachers), seed, steps, tuple(ways), progress) for seed in seeds]
    return all(finished for _, finished in run_jobs(train_seed, jobs, executor))


def _weights_hashes(teachers: Mapping[str, str]) -> dict[str, str]:
    """SHA-256 of the weights of the teachers; one that is gone is left out: finished seeds need it no longer."""
    hashes = {}
    for name, weights in teachers.items():
        with suppress(WeightsError):
            hashes[name] = read_card(weights)["sha256"]
    return hashes


@dataclass(frozen=True)
class SeedJob:
    """All students of one seed, as they travel to whoever trains them; see :func:`run`."""

    shared: TrainConfig
    teachers: dict[str, str]
    seed: int
    steps: int
    ways: tuple[str, ...]
    progress: bool


def train_seed(job: SeedJob) -> bool:
    """Train the students of a seed side by side and score their teachers; False if a signal stopped it."""
    folder = Path(job.shared.out) / f"seed{job.seed}"
    stage = strength_stage(replace(job.shared, out=str(folder)), job.teachers, job.seed, job.ways)
    if run_stage(stage, folder, steps=job.steps, progress=job.progress)["stopped"]:
        return False
    scores = folder / "teachers.json"
    if not scores.is_file():
        write_json(scores, _teacher_scores(stage, folder, job.teachers, job.steps))
    return True


def _teacher_scores(stage: Stage, folder: Path, teachers: Mapping[str, str], steps: int) -> dict[str, float]:
    """SI-SNR in dB of every teacher on the valid mixtures of a stage."""
    lock = Lockstep(stage, folder, graphs=False, progress=False, steps=steps)  # which it writes into each record
    amp = lock.configs["alone"].amp
    return {
        name: validate(load_model(weights, lock.device), lock.valid, amp)["si_snr_db"]
        for name, weights in teachers.items()
    }


def points(out: str | Path) -> list[dict[str, Any]]:
    """Gain and lead in dB of every finished seed, teacher, way and moment.

    Raises:
        ConfigError: no seed is finished.
    """
    plan = read_json(Path(out) / "plan.json", _CURE)
    found = []
    for folder in sorted(Path(out).glob("seed*")):
        if not (folder / "teachers.json").is_file():
            continue
        strength = read_json(folder / "teachers.json", _CURE)
        alone = _valid(folder / "alone")
        for name in plan["teachers"]:
            for way in plan["ways"]:
                taught = _valid(folder / f"{way}.{name}")
                for moment, fraction in MOMENTS.items():
                    step = min(alone, key=lambda s, goal=fraction * plan["steps"]: abs(s - goal))
                    found.append(
                        {
                            "seed": int(folder.name.removeprefix("seed")), "teacher": name, "way": way, "moment": moment,
                            "step": step, "teacher_db": strength[name], "alone_db": alone[step],
                            "lead_db": strength[name] - alone[step], "gain_db": taught[step] - alone[step],
                        }
                    )  # fmt: skip
    if not found:
        raise ConfigError(f"{out}: no seed is finished yet; call `experiment teacher-strength run` first")
    return found


def _valid(folder: Path) -> dict[int, float]:
    """Step -> SI-SNR in dB on the valid split."""
    history = read_json(folder / "history.json", _CURE)
    return {row["step"]: row["si_snr_db"] for row in history["valid"]}


def publish(out: str | Path, name: str = "teacher_strength", folder: str | Path | None = None) -> Path:
    """Write ``results/<name>.json``: mean gain and its t interval over the seeds, by teacher, way and moment.

    Raises:
        ConfigError: no seed is finished, or the file to write is the plan in ``out``.
    """
    require_not_read(name, folder, Path(out) / "plan.json")
    found = points(out)
    plan = read_json(Path(out) / "plan.json", _CURE)
    config = read_json(next(Path(out).glob("seed*/alone/config.json")), _CURE)
    if "data_hash" not in plan:  # of an older version
        plan["data_hash"] = data_hash({kind: config[kind] for kind in ("speech", "noise", "rir")})
    rows = []
    for moment in MOMENTS:
        for teacher in plan["teachers"]:
            for way in plan["ways"]:
                chosen = [p for p in found if (p["moment"], p["teacher"], p["way"]) == (moment, teacher, way)]
                gain = paired_difference([p["gain_db"] for p in chosen], [0.0] * len(chosen), method="t")
                rows.append(
                    {
                        "moment": moment, "teacher": teacher, "way": way, "seeds": len(chosen),
                        "lead_db": sum(p["lead_db"] for p in chosen) / len(chosen),
                        "gain_db": gain.mean, "low": gain.low, "high": gain.high, "verdict": gain.verdict,
                    }
                )  # fmt: skip
    payload = {
        "title": "Gain of a miniature student over the lead of its teacher",
        "note": "Valid split of real recordings. Lead: SI-SNR of the teacher minus that of the student alone at that step. "
        "Gain: taught minus alone, same seed, same mixtures; intervals are Student's t over the seeds at 95 %.",
        "command": "python -m dccrn_lib experiment teacher-strength run --speech S --noise N --rir R "
        "--teachers NAME=WEIGHTS,... --out DIR",
        "config": {
            "teachers": list(plan["teachers"]),
            "steps": plan["steps"],
            "ways": plan["ways"],
            "student": STUDENT,
            **{key: config[key] for key in RECIPE},
            "segment_seconds": config["mix"]["segment_seconds"],
        },  # fmt: skip
        "data_hash": plan["data_hash"],
        "seed": sorted({p["seed"] for p in found}),
        "columns": ["moment", "teacher", "way", "seeds", "lead_db", "gain_db", "low", "high", "verdict"],
        "rows": rows,
        "points": found,
    }
    return save_result(name, payload, folder)
