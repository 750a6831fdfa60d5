"""All systems of the comparison on one device, side by side, within a stated number of minutes.

    python -m dccrn_lib campaign --speech speech.jsonl --noise noise.jsonl --rir rir.jsonl --out runs/campaign --minutes 25

First the teacher, then DCCRN-E and the three students with every seed, all by one recipe and on the same mixtures.
``recipe`` has the settings they share, ``training.lockstep`` trains a stage; here stands what its systems are.
docs/training.md tells how the recipe was chosen.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from dccrn_lib.experiments.recipe import STUDENTS, SYSTEMS
from dccrn_lib.runtime.errors import ConfigError, nearest_name
from dccrn_lib.training.config import TrainConfig
from dccrn_lib.training.lockstep import Stage

#: Changes of the recipe that the stage "search" tries on the student alone, by name.
SEARCH: dict[str, dict] = {
    "muon_0.005": {"muon_learning_rate": 0.005},
    "muon_0.01": {"muon_learning_rate": 0.01},
    "muon_0.02": {"muon_learning_rate": 0.02},
    "muon_0.04": {"muon_learning_rate": 0.04},
    "adam_0.002": {"optimiser": "adam", "learning_rate": 2e-3},
    "muon_0.01_spectral_30": {"muon_learning_rate": 0.01, "spectral_weight": 30.0},
}


def plan(
    shared: TrainConfig,
    seeds: Sequence[int] = (0,),
    size: str = "full",
    teacher_share: float = 0.35,
    systems: Sequence[str] = SYSTEMS,
    teacher: str = "",
) -> list[Stage]:
    """The stages of a campaign: the teacher, then DCCRN-E and every student with every seed, on the same mixtures.

    Args:
        shared: from :func:`~dccrn_lib.experiments.recipe.recipe`; its ``out`` is the folder of the campaign.
        seeds: of weights and mixtures; DCCRN-E takes the first one only.
        size: as in :func:`~dccrn_lib.experiments.recipe.recipe`.
        teacher_share: of the minutes, in (0, 1).
        systems: names from :data:`SYSTEMS`: what the stage of the students trains.
        teacher: weights of a teacher that is there already; "" trains one first.

    Raises:
        ConfigError: a system that is not one of them.
    """
    for name in systems:
        if name not in SYSTEMS:
            raise ConfigError(f"unknown system {name!r}; {nearest_name(name, list(SYSTEMS))}")
    mini = "_mini" if size == "smoke" else ""
    out = Path(shared.out)
    learning = {"uformer": replace(shared, out=str(out / "uformer"), model="uformer" + mini, seed=seeds[0])}
    taught: dict[str, TrainConfig] = {}
    if "dccrn_e" in systems:
        baseline = "dccrn_e" if size == "full" else "distil_dccrn_mini"
        taught["dccrn_e"] = replace(shared, out=str(out / "dccrn_e"), model=baseline, seed=seeds[0])
    for seed in seeds:
        for name in (n for n in STUDENTS if n in systems):
            system = f"{name}_seed{seed}"
            changes = dict(STUDENTS[name])
            if changes["method"] != "none":
                changes["teacher"] = teacher or str(out / "uformer" / "best.safetensors")
            taught[system] = replace(shared, out=str(out / system), model="distil_dccrn" + mini, seed=seed, **changes)
    if teacher:
        return [Stage("students", taught, 1.0)]
    return [
        Stage("teacher", learning, teacher_share, snapshot_hours=(1.0, 5.0, 20.0)),
        Stage("students", taught, 1 - teacher_share),
    ]


def search(shared: TrainConfig, size: str = "full", seed: int = 0) -> Stage:
    """The stage that compares recipes: the student alone, side by side on the same mixtures.

    Args:
        shared, size: as of :func:`plan`.
        seed: of weights and mixtures.
    """
    mini = "_mini" if size == "smoke" else ""
    out = Path(shared.out) / "search"
    systems = {
        name: replace(shared, out=str(out / name), model="distil_dccrn" + mini, seed=seed, **changes)
        for name, changes in SEARCH.items()
    }
    return Stage("search", systems, 1.0)
