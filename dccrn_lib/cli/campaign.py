"""The command that trains all systems of the comparison side by side."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

from dccrn_lib.cli.checks import count, folder, positive
from dccrn_lib.cli.fields import FieldParser, recorded
from dccrn_lib.cli.parser import Parser
from dccrn_lib.experiments.recipe import SIZES, SYSTEMS, recipe
from dccrn_lib.runtime.errors import ConfigError
from dccrn_lib.runtime.files import read_json, write_json
from dccrn_lib.runtime.settings import parse_seeds
from dccrn_lib.training.config import ALONE_ONLY, TrainConfig

SEEDS = "0,1,2"
STAGES = ("all", "search", "teacher", "students", "speed")

#: Fields that are no options here: the stages decide them, system by system (``steps`` is the length of a stage), or they
#: have no effect on networks that are trained side by side.
DECIDED = (
    "out", "model", "init", "method", "teacher", "reading", "normalisation", "seed", "steps", *ALONE_ONLY,
)  # fmt: skip


def campaign(**options: Any) -> Parser:
    p = FieldParser(TrainConfig, _base, skip=DECIDED, **options)
    p.add_argument(
        "--out", type=folder, required=True, metavar="DIR", help="its folder; what is unfinished there is resumed"
    )
    p.add_argument("--minutes", type=positive, metavar="M", help="length of all stages asked for, together")
    p.add_argument("--steps", type=count, metavar="N", help="length of each stage in steps instead")
    p.add_argument(
        "--stage",
        choices=STAGES,
        default="all",
        help="all: teacher, then students; search: recipes side by side; speed: what a step costs on this device",
    )
    p.add_argument(
        "--teacher-share", type=float, default=0.35, metavar="F", help="fraction of the minutes for the teacher"
    )
    p.add_argument("--teacher", default="", metavar="WEIGHTS", help="a teacher that is there already: none is trained")
    p.add_argument(
        "--seeds",
        default=SEEDS,
        metavar="S,S",
        help="seeds of the students; teacher, DCCRN-E and search take the first",
    )
    p.add_argument(
        "--systems", default=",".join(SYSTEMS), metavar="NAME,NAME", help="what the stage of the students trains"
    )
    p.add_argument("--size", choices=SIZES, default="full", help="smoke: miniatures, nothing is learnt")
    p.add_argument("--no-graphs", action="store_true", help="do not capture steps as CUDA graphs")
    p.set_defaults(run=_campaign)
    return p


def _base(a: argparse.Namespace) -> TrainConfig:
    """The recipe; with a record, its fields instead, except those that the stages decide."""
    base = recipe({"speech": "", "noise": "", "rir": ""}, a.out or "", a.size)
    return base if a.config is None else recorded(a.config, base, DECIDED)


def _require_honoured(a: argparse.Namespace, seeds: list[int]) -> None:
    """ConfigError if an option was given that the stages which train no teacher and no taught student make no use of."""
    if a.stage not in ("search", "speed"):
        return
    for name, default in (("systems", ",".join(SYSTEMS)), ("teacher", "")):
        if getattr(a, name) != default:
            raise ConfigError(f"--{name} has no effect on --stage {a.stage}, whose networks are fixed; leave it out")
    if a.stage == "search" and len(seeds) > 1 and a.seeds != SEEDS:
        raise ConfigError(
            f"--stage search takes one seed, not {a.seeds}; give the command once for each, with an --out of its own"
        )


def _require_finished_teacher(a: argparse.Namespace) -> None:
    """ConfigError if students alone are asked for while the teacher of this folder is half trained: it would change."""
    file = Path(a.out) / "stage_teacher.json"
    if a.stage != "students" or a.teacher or not file.is_file():
        return
    record = read_json(file, "remove it to resume the stage")
    if record.get("stopped"):
        raise ConfigError(
            f"{file}: the teacher was stopped after {record.get('steps')} steps; resume it first with --stage teacher, or "
            f"name its weights as they are now: --teacher {Path(a.out) / 'uformer' / 'best.safetensors'}"
        )


def _campaign(a: argparse.Namespace) -> int:
    seeds = parse_seeds(a.seeds)
    _require_honoured(a, seeds)
    _require_finished_teacher(a)
    if not 0 < a.teacher_share < 1:
        raise ConfigError(f"--teacher-share must lie between 0 and 1, got {a.teacher_share}")
    if a.teacher and a.stage == "teacher":
        raise ConfigError("--teacher names a teacher that is there already: --stage teacher would train none")
    # below what is refused, which needs no torch
    from dccrn_lib.experiments.campaign import plan, search
    from dccrn_lib.experiments.training_speed import measure_training
    from dccrn_lib.runtime.devices import set_up_cpu
    from dccrn_lib.training.lockstep import run_stage

    set_up_cpu()
    shared: TrainConfig = a.fields
    if a.stage == "speed":
        file = Path(a.out) / "training_speed.json"
        measure_training(shared, a.size, keep=lambda record: write_json(file, record), progress=not a.quiet)
        return 0
    stages = (
        [search(shared, a.size, seeds[0])]
        if a.stage == "search"
        else plan(shared, seeds, a.size, a.teacher_share, a.systems.split(","), a.teacher)
    )
    for stage in (s for s in stages if a.stage in ("all", s.name)):
        minutes = a.minutes and a.minutes * (stage.share if a.stage == "all" else 1.0)
        record = run_stage(stage, a.out, minutes, a.steps, not a.no_graphs, progress=not a.quiet)
        print(f"{stage.name}: {record['steps']} steps, {record['hours_each']:.2f} h of audio each", flush=True)
        if record["stopped"]:
            print(f"stopped; the same command resumes in {a.out}")
            return 130
    return 0
