"""The experiments behind results/: each is run with seeds and published as one JSON file.

An experiment is imported when its command runs: help and usage errors need no torch.
"""

from __future__ import annotations

import argparse
from collections.abc import Collection, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

from dccrn_lib.cli.campaign import DECIDED as DECIDED_BY_STAGES
from dccrn_lib.cli.checks import count, folder, named, positive, stem
from dccrn_lib.cli.fields import FieldParser, recorded
from dccrn_lib.cli.parser import Parser
from dccrn_lib.cli.train import for_its_steps
from dccrn_lib.experiments.recipe import (
    DEFAULT_METHODS,
    SPLITS,
    WAYS,
    PartRecipe,
    part_recipe,
    recipe,
    student_on_data,
    taught_student,
)
from dccrn_lib.runtime.errors import ConfigError
from dccrn_lib.runtime.json_text import parse_object
from dccrn_lib.runtime.settings import changed, parse_seeds
from dccrn_lib.training.config import TrainConfig
from dccrn_lib.training.profiles import get_profile

#: Fields that the comparison of methods decides, run by run, or that all its runs share.
DECIDED = (
    "out", "speech", "noise", "rir", "model", "method", "teacher", "reading", "normalisation", "seed",
)  # fmt: skip

#: Fields that the comparison of training data decides; one way of training, without a teacher, is enough for it.
DECIDED_BY_DATA = (
    "out", "speech", "noise", "rir", "method", "teacher", "reading", "normalisation", "seed", "steps", "valid_every",
)  # fmt: skip

#: Decides nothing and is a path of this machine: no part of the record of an experiment, which binds its other calls.
WHERE = ("teacher_cache",)

#: Those that the comparison with a teacher decides: its students are validated only after their last step.
DECIDED_AT_END = (*DECIDED, "valid_every")


def methods_run(**options: Any) -> Parser:
    p = FieldParser(TrainConfig, _methods_base, skip=DECIDED, **options)
    p.add_argument("--out", type=folder, required=True, metavar="DIR", help="folder of the runs")
    p.add_argument("--profile", default="quick", metavar="NAME", help="size of a run")
    p.add_argument("--methods", default=",".join(DEFAULT_METHODS), metavar="M,M", help="joined by commas")
    p.add_argument("--seeds", default="0,1,2,3,4", metavar="S,S", help="joined by commas")
    p.add_argument("--share", default="0/1", metavar="I/N", help="take every N-th run, from I on")
    _add_cluster(p)
    p.add_argument("--teacher", default="", metavar="WEIGHTS", help="shipped name or path; trained here when not given")
    for kind in ("speech", "noise", "rir"):
        p.add_argument(f"--{kind}", default="", metavar="FILE", help=f"manifests of {kind}; generated when not given")
    p.set_defaults(run=_methods_run)
    return p


def _add_cluster(p: Parser) -> None:
    p.add_argument("--cluster", default="", metavar="ADDRESS", help="dask scheduler whose workers do the trainings")


@contextmanager
def _resumable(out: str) -> Iterator[None]:
    """Say how a sweep that was told to stop goes on; the command then ends as an interrupted one."""
    try:
        yield
    except KeyboardInterrupt:
        print(f"stopped; the same command resumes in {out}")
        raise


def _student(profile: str) -> TrainConfig:
    return TrainConfig(out="", speech="", noise="", **get_profile(profile).settings())


def _compared(profile: str) -> TrainConfig:
    """The profile's student with a method in place of those compared: "none" would refuse ``teacher_cache``."""
    return replace(_student(profile), method="output", teacher="of the comparison")


def _methods_base(a: argparse.Namespace) -> TrainConfig:
    """The profile's student; with a record, its fields instead, except those that the comparison decides."""
    base = _compared(a.profile)
    return base if a.config is None else recorded(a.config, base, DECIDED)


def _methods_run(a: argparse.Namespace) -> int:
    from dccrn_lib.experiments import methods
    from dccrn_lib.experiments.executors import cluster_executor

    base = _compared(a.profile)
    a.fields = for_its_steps(a, a.profile)
    a.changed = changed(a.fields, base)
    a.changes = _outer(a.fields, a.changed)
    a.changed = _without(WHERE, a.changed)
    with _resumable(a.out), cluster_executor(a.cluster) as executor:
        methods.run(a, executor)
    print(f"{a.out}: done; compare the methods by: experiment methods publish --out {a.out} --name NAME")
    return 0


def _outer(config: TrainConfig, names: Iterable[str]) -> dict[str, Any]:
    """The fields of a config that hold these names, ``mix`` for ``mix.snr_db``."""
    return {name: getattr(config, name) for name in dict.fromkeys(name.partition(".")[0] for name in names)}


def methods_publish(**options: Any) -> Parser:
    p = Parser(**options)
    p.add_argument("--out", type=named, required=True, metavar="DIR", help="folder of the runs")
    p.add_argument("--name", type=stem, required=True, metavar="NAME", help="of the result")
    p.add_argument("--title", default="", metavar="TEXT", help="what the table is about")
    p.add_argument("--results", type=folder, metavar="DIR", help="folder for the result; results/ when not given")
    p.set_defaults(run=_methods_publish)
    return p


def _methods_publish(a: argparse.Namespace) -> int:
    from dccrn_lib.experiments.methods import publish

    print(publish(a.out, a.name, a.title, a.results))
    return 0


def _publishing(name: str, **options: Any) -> Parser:
    """The parser of a command that makes a result, ``name`` when not told otherwise, out of finished runs."""
    p = Parser(**options)
    p.add_argument("--out", type=named, required=True, metavar="DIR", help="folder of the runs")
    p.add_argument("--name", type=stem, default=name, metavar="NAME", help="of the result")
    p.add_argument("--results", type=folder, metavar="DIR", help="folder for the result; results/ when not given")
    return p


def teaching_run(**options: Any) -> Parser:
    p = FieldParser(TrainConfig, _teaching_base, skip=DECIDED_AT_END, **options)
    p.add_argument("--out", type=folder, required=True, metavar="DIR", help="folder of the runs")
    p.add_argument("--profile", default="quick", metavar="NAME", help="size of a run")
    p.add_argument("--seeds", default="0,1,2,3,4", metavar="S,S", help="joined by commas")
    p.add_argument("--share", default="0/1", metavar="I/N", help="take every N-th run, from I on")
    _add_cluster(p)
    p.set_defaults(run=_teaching_run)
    return p


def _teaching_base(a: argparse.Namespace) -> TrainConfig:
    base = taught_student(a.profile)
    return base if a.config is None else recorded(a.config, base, DECIDED_AT_END)


def _teaching_run(a: argparse.Namespace) -> int:
    from dccrn_lib.experiments import teaching
    from dccrn_lib.experiments.executors import cluster_executor

    fields = for_its_steps(a, a.profile)
    a.fields = replace(fields, valid_every=fields.steps)
    a.changed = _without((*DECIDED_AT_END, *WHERE), changed(a.fields, taught_student(a.profile)))
    a.changes = _outer(a.fields, _without(DECIDED, changed(a.fields, _student(a.profile))))
    with _resumable(a.out), cluster_executor(a.cluster) as executor:
        teaching.run(a, executor)
    return 0


def _without(names: Collection[str], fields: Mapping[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in fields.items() if name not in names}


def teaching_publish(**options: Any) -> Parser:
    p = _publishing("teaching_quick", **options)
    p.set_defaults(run=_teaching_publish)
    return p


def _teaching_publish(a: argparse.Namespace) -> int:
    from dccrn_lib.experiments.teaching import publish

    print(publish(a.out, a.name, a.results))
    return 0


def teacher_strength_run(**options: Any) -> Parser:
    p = FieldParser(TrainConfig, _strength_base, skip=DECIDED_BY_STAGES, **options)
    p.add_argument("--out", type=folder, required=True, metavar="DIR", help="folder of the runs")
    p.add_argument(
        "--teachers", required=True, metavar="NAME=WEIGHTS,...", help="shipped names or paths, weakest first"
    )
    p.add_argument("--ways", default=",".join(WAYS), metavar="W,W", help="of teaching")
    p.add_argument("--seeds", default="0,1,2,3,4", metavar="S,S", help="joined by commas")
    p.add_argument("--steps", type=count, default=300, metavar="N", help="steps of each student")
    _add_cluster(p)
    p.set_defaults(run=_teacher_strength_run)
    return p


def _strength_base(a: argparse.Namespace) -> TrainConfig:
    corpus = {"speech": "", "noise": "", "rir": ""}
    sizes = {"batch_size": 4, "workers": 0, "valid_mixtures": 60, "ema_decay": 0.99}
    base = recipe(corpus, a.out or "", **sizes, warmup_steps=min(20, a.steps // 10))
    base = replace(base, decay_fraction=0.35, mix=replace(base.mix, segment_seconds=1.0))
    return base if a.config is None else recorded(a.config, base, DECIDED_BY_STAGES)


def _teacher_strength_run(a: argparse.Namespace) -> int:
    from dccrn_lib.experiments import teacher_strength
    from dccrn_lib.experiments.executors import cluster_executor
    from dccrn_lib.runtime.devices import set_up_cpu

    set_up_cpu()
    teachers, seeds, ways = _weights("--teachers", a.teachers), parse_seeds(a.seeds), a.ways.split(",")
    with cluster_executor(a.cluster) as executor:
        if teacher_strength.run(a.fields, teachers, seeds, a.steps, ways, not a.quiet, executor):
            return 0
    print(f"stopped; the same command resumes in {a.out}")
    return 130


def teacher_strength_publish(**options: Any) -> Parser:
    p = _publishing("teacher_strength", **options)
    p.set_defaults(run=_teacher_strength_publish)
    return p


def _teacher_strength_publish(a: argparse.Namespace) -> int:
    from dccrn_lib.experiments.teacher_strength import publish

    print(publish(a.out, a.name, a.results))
    return 0


def _weights(option: str, text: str) -> dict[str, str]:
    """Networks written as NAME=WEIGHTS,...; an error names the option."""
    from dccrn_lib.experiments.teacher_strength import parse_weights

    try:
        return parse_weights(text)
    except ConfigError as error:
        raise ConfigError(f"argument {option}: {error}") from None


def signal(**options: Any) -> Parser:
    p = Parser(**options)
    p.add_argument(
        "students", nargs="+", metavar="NAME=WEIGHTS", help='name in the table = shipped name or path, or "untrained"'
    )
    p.add_argument("--speech", required=True, metavar="FILE", help="manifests with a valid split, joined by commas")
    p.add_argument("--noise", required=True, metavar="FILE", help="manifests with a valid split, joined by commas")
    p.add_argument("--rir", default="", metavar="FILE", help="manifests of rooms; none when not given")
    p.add_argument("--teacher", default="uformer", metavar="WEIGHTS", help="shipped name or path")
    p.add_argument("--batches", type=count, default=24, metavar="N", help="gradients for each student, at least 3")
    p.add_argument("--batch-size", type=count, default=4, metavar="N", help="mixtures in a batch")
    p.add_argument("--seconds", type=positive, default=2.0, metavar="S", help="length of a mixture")
    p.add_argument("--name", type=stem, default="teaching_signal", metavar="NAME", help="of the result")
    p.add_argument("--results", type=folder, metavar="DIR", help="folder for the result; results/ when not given")
    p.set_defaults(run=_signal)
    return p


def _signal(a: argparse.Namespace) -> int:
    from dccrn_lib.experiments.teaching_signal import publish
    from dccrn_lib.runtime.devices import set_up_cpu

    set_up_cpu()
    students = _weights("NAME=WEIGHTS", ",".join(a.students))
    shared = recipe({"speech": a.speech, "noise": a.noise, "rir": a.rir}, "", batch_size=a.batch_size)
    shared = replace(shared, mix=replace(shared.mix, segment_seconds=a.seconds))
    print(publish(students, a.teacher, shared, a.batches, a.name, a.results, not a.quiet))
    return 0


def over_seeds_publish(**options: Any) -> Parser:
    p = Parser(**options)
    p.add_argument("results", nargs="+", metavar="SEED=RESULT", help="scores of each seed, by name in results/")
    p.add_argument("--system", required=True, metavar="NAME", help="a system of these results")
    p.add_argument("--minus", required=True, metavar="NAME", help="the system it is compared to")
    p.add_argument("--name", type=stem, required=True, metavar="NAME", help="of the result to write")
    p.add_argument("--results-folder", type=folder, metavar="DIR", help="where results are; results/ when not given")
    p.set_defaults(run=_over_seeds)
    return p


def _once(kind: str, pairs: list[tuple[Any, str]]) -> dict[Any, str]:
    """The pairs as a mapping; a key that comes twice is refused, for one of its values would be lost."""
    found = dict(pairs)
    for key in found:
        if sum(other == key for other, _ in pairs) > 1:
            raise ConfigError(f"{kind} {key} is given twice; give each a name of its own")
    return found


def _over_seeds(a: argparse.Namespace) -> int:
    from dccrn_lib.experiments.over_seeds import publish

    try:
        parts = [(int(seed), result) for seed, _, result in (part.partition("=") for part in a.results)]
    except ValueError:
        raise ConfigError(f"write SEED=RESULT with a whole number for the seed, not {' '.join(a.results)}") from None
    print(publish(_once("seed", parts), a.system, a.minus, a.name, a.results_folder))
    return 0


def shared_sources(**options: Any) -> Parser:
    p = Parser(**options)
    help_text = "a result of `experiment over-seeds`, or RESULT:SYSTEM:MINUS of one seed"
    p.add_argument("comparisons", nargs="+", metavar="COMPARISON", help=help_text)
    for kind in ("speech", "noise"):
        p.add_argument(
            f"--{kind}", required=True, metavar="FILE", help=f"manifests of real {kind}, with the test split"
        )
    p.add_argument("--name", type=stem, default="shared_sources", metavar="NAME", help="of the result to write")
    p.add_argument("--results-folder", type=folder, metavar="DIR", help="where results are; results/ when not given")
    p.set_defaults(run=_shared_sources)
    return p


def _shared_sources(a: argparse.Namespace) -> int:
    from dccrn_lib.experiments.shared_sources import publish

    print(publish(a.comparisons, {"speech": a.speech, "noise": a.noise}, a.name, a.results_folder))
    return 0


def claim(**options: Any) -> Parser:
    p = Parser(**options)
    p.add_argument(
        "records", nargs="+", metavar="HOURS=RECORD", help="hours to show, and a record of results/shared_sources.json"
    )
    p.add_argument("--name", type=stem, default="claim", metavar="NAME", help="of the result to write")
    p.add_argument("--results-folder", type=folder, metavar="DIR", help="where results are; results/ when not given")
    p.set_defaults(run=_claim)
    return p


def _claim(a: argparse.Namespace) -> int:
    from dccrn_lib.experiments.claim import publish

    pairs = [(hours, record) for hours, _, record in (text.partition("=") for text in a.records)]
    for text, (hours, record) in zip(a.records, pairs, strict=True):
        if not (hours and record):
            raise ConfigError(f"write HOURS=RECORD, as 7.0=equal_hours_7h_test, not {text}")
    print(publish(pairs, a.name, a.results_folder))
    return 0


def equal_hours(**options: Any) -> Parser:
    p = Parser(**options)
    p.add_argument(
        "runs", nargs="+", type=named, metavar="DIR", help="folders of campaigns whose students are finished"
    )
    p.add_argument("--name", type=stem, required=True, metavar="NAME", help="of the result to write")
    p.add_argument("--title", default="", metavar="TEXT", help="what the table is about")
    p.add_argument(
        "--weights", type=folder, metavar="DIR", help="folder for the best weights of each system; none when not given"
    )
    p.add_argument(
        "--card", type=named, metavar="FILE", help="JSON object that stands on every card too: data, licences, limits"
    )
    p.add_argument(
        "--results-folder", type=folder, metavar="DIR", help="folder for the result; results/ when not given"
    )
    p.set_defaults(run=_equal_hours)
    return p


def _equal_hours(a: argparse.Namespace) -> int:
    if a.card and not a.weights:
        raise ConfigError("--card has no effect without --weights: it is for their cards")
    card = _card(a.card) if a.card else None
    from dccrn_lib.experiments.equal_hours import publish
    from dccrn_lib.results.records import require_not_read

    if a.card:
        require_not_read(a.name, a.results_folder, Path(a.card))
    for path in publish(a.runs, a.name, a.title, a.weights, card, a.results_folder):
        print(path)
    return 0


def _card(path: str) -> dict[str, Any]:
    try:
        return parse_object(Path(path).read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        reason = error.strerror if isinstance(error, OSError) else error
        raise ConfigError(
            f'argument --card: {path}: no JSON object ({reason}); write one, as {{"licence": "CC0-1.0"}}'
        ) from None


def weight_growth(**options: Any) -> Parser:
    p = Parser(**options)
    p.add_argument("weights", nargs="+", metavar="WEIGHTS", help="shipped names or paths")
    p.add_argument("--name", type=stem, default="weight_growth", metavar="NAME", help="of the result to write")
    p.add_argument(
        "--results-folder", type=folder, metavar="DIR", help="folder for the result; results/ when not given"
    )
    p.set_defaults(run=_weight_growth)
    return p


def _weight_growth(a: argparse.Namespace) -> int:
    from dccrn_lib.experiments.weight_growth import publish

    print(publish(a.weights, a.name, a.results_folder))
    return 0


def training_data_run(**options: Any) -> Parser:
    p = FieldParser(TrainConfig, _training_data_base, skip=DECIDED_BY_DATA, **options)
    for kind in ("speech", "noise", "rir"):
        p.add_argument(f"--{kind}", required=True, metavar="FILE", help=f"manifests of real {kind}, with a valid split")
    p.add_argument("--generated", required=True, metavar="DIR", help="folder of a generated corpus (corpus synth)")
    p.add_argument("--out", type=folder, required=True, metavar="DIR", help="folder of the runs")
    p.add_argument("--seeds", default="0,1,2", metavar="S,S", help="joined by commas")
    p.add_argument("--steps", type=count, default=300, metavar="N", help="steps of each student")
    p.add_argument("--count", type=count, default=60, metavar="N", help="mixtures that judge")
    p.add_argument("--share", default="0/1", metavar="I/N", help="take every N-th run, from I on")
    _add_cluster(p)
    p.set_defaults(run=_training_data_run)
    return p


def _training_data_base(a: argparse.Namespace) -> TrainConfig:
    base = student_on_data(a.steps)
    return base if a.config is None else recorded(a.config, base, DECIDED_BY_DATA)


def _training_data_run(a: argparse.Namespace) -> int:
    from dccrn_lib.experiments import training_data
    from dccrn_lib.experiments.executors import cluster_executor

    a.changed = changed(a.fields, student_on_data(a.steps))
    with _resumable(a.out), cluster_executor(a.cluster) as executor:
        training_data.run(a, executor)
    return 0


def training_data_publish(**options: Any) -> Parser:
    p = Parser(**options)
    p.add_argument("--out", type=named, required=True, metavar="DIR", help="folder of the runs")
    p.add_argument("--results", type=folder, metavar="DIR", help="folder for the result; results/ when not given")
    p.set_defaults(run=_training_data_publish)
    return p


def _training_data_publish(a: argparse.Namespace) -> int:
    from dccrn_lib.experiments.training_data import publish

    print(publish(a.out, a.results))
    return 0


def uformer_parts(**options: Any) -> Parser:
    p = FieldParser(PartRecipe, _parts_base, **options)
    p.add_argument("--profile", default="quick", metavar="NAME", help="corpus and mini teacher of this profile")
    p.add_argument("--seeds", type=count, default=3, metavar="N", help="number of initialisations")
    _add_cluster(p)
    p.add_argument("--name", type=stem, default="uformer_ablation", metavar="NAME", help="stem of the file in results/")
    p.add_argument("--results", type=folder, metavar="DIR", help="folder for the result; results/ when not given")
    p.set_defaults(run=_uformer_parts)
    return p


def _parts_base(a: argparse.Namespace) -> PartRecipe:
    base = part_recipe(a.profile)
    return base if a.config is None else recorded(a.config, base)


def _uformer_parts(a: argparse.Namespace) -> int:
    from dccrn_lib.experiments.executors import cluster_executor
    from dccrn_lib.experiments.uformer_parts import run_study
    from dccrn_lib.results.records import save_result
    from dccrn_lib.runtime.devices import set_up_cpu

    set_up_cpu(threads=1)
    with cluster_executor(a.cluster) as executor:
        study = run_study(a.profile, a.seeds, a.fields, executor)
    print(save_result(a.name, study, a.results))
    return 0


def shipped_weights(**options: Any) -> Parser:
    p = Parser(**options)
    p.add_argument(
        "models",
        nargs="+",
        metavar="SYSTEM=WEIGHTS",
        help="name in the table = shipped name or path, with @bf16 behind it for that precision",
    )
    p.add_argument("--speech", required=True, metavar="FILE", help="manifests with that split, joined by commas")
    p.add_argument("--noise", required=True, metavar="FILE", help="manifests with that split, joined by commas")
    p.add_argument("--split", default="test", choices=SPLITS, help="test; valid is for choosing (default: test)")
    p.add_argument("--count", type=count, default=120, metavar="N", help="mixtures")
    p.add_argument("--out", type=folder, metavar="DIR", help="folder for the result files; results/ when not given")
    p.add_argument(
        "--workers", type=count, metavar="N", help="processes that score; all cores, 8 at most, when not given"
    )
    p.add_argument("--dnsmos", action="store_true", help="score DNSMOS as well (extra dnsmos)")
    p.add_argument(
        "--prefix",
        default="real",
        metavar="NAME",
        help="the files are NAME_test.json, NAME_paired.json ..., of valid NAME_valid.json, NAME_valid_paired.json ...",
    )
    p.add_argument(
        "--reuse", action="store_true", help="keep the scores of weights that stand in the result file already"
    )
    p.add_argument(
        "--others",
        default="",
        metavar="NAME,NAME",
        help="also other projects' denoisers whose packages are installed: rnnoise, dtln, gtcrn, deepfilternet3, or all",
    )
    p.set_defaults(run=_shipped_weights)
    return p


def _shipped_weights(a: argparse.Namespace) -> int:
    from dccrn_lib.experiments.other_denoisers import parse_others
    from dccrn_lib.experiments.shipped_weights import publish

    wrong = [m for m in a.models if "=" not in m]
    if wrong:
        raise ConfigError(f"{wrong[0]!r} is not SYSTEM=WEIGHTS")
    weights = _once("system", [(name, where) for name, _, where in (m.partition("=") for m in a.models)])
    corpus = {"speech": a.speech, "noise": a.noise}
    progress = not a.quiet
    where = {"folder": a.out, "prefix": a.prefix, "split": a.split, "reuse": a.reuse, "others": parse_others(a.others)}
    for path in publish(weights, corpus, a.count, workers=a.workers, progress=progress, dnsmos=a.dnsmos, **where):
        print(path)
    return 0
