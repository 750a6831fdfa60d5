"""Methods times seeds: which way of distilling is better, and is the difference more than luck?

A sweep lives in one folder: one run a (method, seed), each trained and evaluated on the same test mixtures with the same
teacher, and the table out of them. Started again, it resumes where it stopped: a finished run is read, a half-finished
one resumed. The runs go to any ``concurrent.futures.Executor``, a cluster's too (see ``experiments.executors``); several
processes can also share the folder by taking every n-th run (``share``), on one machine or on many.

Source: ours. The unit of the statistics is the seed: every seed gives one mean over the test mixtures per method, and
methods are compared within a seed (same initial weights, same mixtures).
"""

from __future__ import annotations

import functools
import json
import re
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Executor
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from dccrn_lib.corpus.mixing import MixtureDataset
from dccrn_lib.distillation.at_kl import READINGS
from dccrn_lib.distillation.attention import NORMALISATIONS
from dccrn_lib.distillation.loss import METHODS
from dccrn_lib.distillation.names import CACHED_METHODS
from dccrn_lib.evaluation.intervals import Difference, means_of_pairs, paired_difference
from dccrn_lib.evaluation.metrics import COMPARED_METRICS
from dccrn_lib.evaluation.scores import require_installed
from dccrn_lib.evaluation.systems import evaluate_systems, kept_items
from dccrn_lib.experiments.executors import run_jobs
from dccrn_lib.experiments.paper import data_hash, resume_system, run_system, test_mixtures, train_config
from dccrn_lib.results.records import save_result
from dccrn_lib.runtime.errors import ConfigError, nearest_name
from dccrn_lib.runtime.files import read_json, write_json
from dccrn_lib.runtime.json_text import parse_json
from dccrn_lib.runtime.locks import only_writer
from dccrn_lib.training.config import TrainConfig
from dccrn_lib.training.profiles import Profile, get_profile


@dataclass(frozen=True)
class Variant:
    """A method with its reading and normalisation; ``name`` as typed, e.g. "at_kl:time_frequency:softmax"."""

    name: str
    method: str
    reading: str = "frequency"
    normalisation: str = "sum"

    @classmethod
    def parse(cls, text: str) -> Variant:
        """From ``method`` or ``at_kl[:reading[:normalisation]]``.

        >>> Variant.parse("at_kl:time_frequency")
        Variant(name='at_kl:time_frequency', method='at_kl', reading='time_frequency', normalisation='sum')
        """
        method, *rest = text.strip().split(":")
        if method not in METHODS:
            raise ConfigError(f"unknown distillation method {method!r}; {nearest_name(method, list(METHODS))}")
        if rest and method != "at_kl" or len(rest) > 2:
            raise ConfigError(f"method {text!r}: write at_kl:reading:normalisation; other methods have no such part")
        for value, known in zip(rest, (READINGS, NORMALISATIONS), strict=False):
            if value not in known:
                raise ConfigError(f"method {text!r}: unknown {value!r}; {nearest_name(value, list(known))}")
        return cls(text.strip(), method, *rest)


@dataclass(frozen=True)
class SweepRun:
    """One trained and evaluated student."""

    method: str
    seed: int
    items: list[dict]

    def mean(self, metric: str) -> float:
        """Over the test mixtures that could be scored.

        Raises:
            ConfigError: none of them could: the network is silent, or its output is not finite.
        """
        scores = [i[metric] for i in self.items if i[metric] is not None]
        if not scores:
            reason = next(
                (i["reasons"][metric] for i in self.items if metric in i.get("reasons", {})), "no reason kept"
            )
            raise ConfigError(
                f"{self.method}, seed {self.seed}: none of {len(self.items)} mixtures could be scored in {metric} "
                f"({reason}); if the training diverged, choose another --out and a lower learning_rate"
            )
        return float(np.mean(scores))


@dataclass(frozen=True)
class GridJob:
    """One training and its evaluation, as it travels to whoever does it.

    Args:
        name: of what is compared, a method for example.
        config: of the run; its seed and folder are the job's.
        tests: makes the mixtures that judge it, where the job is done.
        metrics: to score.
        workers: processes that score.
        progress: show progress bars.
    """

    name: str
    config: TrainConfig
    tests: Callable[[], MixtureDataset]
    metrics: tuple[str, ...]
    workers: int | None = 1
    progress: bool = False

    @property
    def folder(self) -> Path:
        return Path(self.config.out)


def train_and_score(job: GridJob) -> SweepRun | None:
    """Do a job, or read what an earlier call left in its folder; None where the training was told to stop."""
    result = resume_system(job.config, job.progress)
    if result.stopped:
        return None
    items = evaluate_systems(
        {job.name: result.model}, job.tests(), job.metrics, job.workers, job.progress, job.folder / "evaluation.json"
    )
    return SweepRun(job.name, job.config.seed, items[job.name])


def run_grid(jobs: Sequence[GridJob], executor: Executor | None = None) -> list[SweepRun]:
    """Do all jobs, on any executor; the finished runs in the order of the jobs.

    A job whose training was told to stop (Ctrl-C, SIGTERM) ends the grid; the next call resumes it.

    Args:
        jobs: see :class:`GridJob`; relative paths in them are taken from the folder in which a worker was started.
        executor: None does them here, one after the other.
    """
    done: dict[Path, SweepRun] = {}
    for job, run in run_jobs(train_and_score, jobs, executor):
        if run is None:
            break
        done[job.folder] = run
    return [done[job.folder] for job in jobs if job.folder in done]


def shared(jobs: Sequence, share: tuple[int, int]) -> list:
    """Every n-th job, from number i on.

    Raises:
        ConfigError: ``share`` is not (i, n) with 0 <= i < n.
    """
    if not 0 <= share[0] < share[1]:
        raise ConfigError(f"share {share} must be (i, n) with 0 <= i < n")
    return list(jobs[share[0] :: share[1]])


def run_sweep(
    methods: Sequence[str],
    seeds: Sequence[int],
    profile: Profile | str,
    out: str | Path,
    corpus: dict[str, str],
    teacher: str | Path = "",
    share: tuple[int, int] = (0, 1),
    metrics: Sequence[str] = COMPARED_METRICS,
    workers: int | None = None,
    progress: bool = True,
    executor: Executor | None = None,
    **changes,
) -> list[SweepRun]:
    """Train and evaluate the student with every method and seed; resume where an earlier call stopped.

    Args:
        methods: names, see :meth:`Variant.parse`.
        seeds: of initial weights and mixtures.
        profile: sizes.
        out: folder of the sweep.
        corpus: manifests, from ``paper.corpus_of``.
        teacher: its weights; "" trains one in ``out/teacher`` (seed 0), which all runs share.
        share: (i, n): take runs i, i + n, i + 2n ... only, for n processes with one ``out``.
        metrics: to score, higher is better.
        workers: processes that score; None takes one where there is little to score.
        progress: show progress bars.
        executor: that does the runs, at once where it can; None does them here.
        changes: fields of TrainConfig for all students; ``teacher_cache`` for those whose method it serves.

    Returns:
        The runs of this share, in the order of methods, then seeds. ``out/sweep.json`` holds all finished runs of the
        folder.

    Raises:
        ConfigError: an unknown method, no method or seed, a share out of range, a folder that holds other runs, or a
            metric whose package is not installed.
        KeyboardInterrupt: a training was told to stop; what is finished is kept, and the next call goes on.
    """
    require_installed(metrics)
    profile = get_profile(profile) if isinstance(profile, str) else profile
    variants = [Variant.parse(m) for m in methods]
    if not variants or not seeds:
        raise ConfigError("a sweep needs at least one method and one seed")
    mine = shared([(variant, seed) for variant in variants for seed in seeds], share)
    out = Path(out)
    if not teacher and any(v.method != "none" for v in variants):
        where = {k: v for k, v in changes.items() if k == "device"}
        with only_writer(out, wait=True):  # of several shares one trains it, and the others find it
            teacher = run_system(train_config("teacher", profile, corpus, out, **where), progress).weights
    tests = functools.partial(test_mixtures, profile, corpus)
    workers = 1 if workers is None and (executor is not None or profile.test_mixtures < 16) else workers
    jobs = []
    for variant, seed in mine:
        settings = {
            **changes,
            "method": variant.method,
            "reading": variant.reading,
            "normalisation": variant.normalisation,
            "teacher": str(teacher) if variant.method != "none" else "",
        }
        if variant.method not in CACHED_METHODS:  # these see the teacher live, or none
            settings["teacher_cache"] = ""
        config = train_config("student", profile, corpus, out, seed=seed, **settings)
        config = replace(config, out=str(out / variant.name.replace(":", "-") / f"seed{seed}"))
        jobs.append(GridJob(variant.name, config, tests, tuple(metrics), workers, progress))
    runs = run_grid(jobs, executor)
    _save(out, profile, corpus, metrics)
    if len(runs) < len(jobs):
        raise KeyboardInterrupt
    return runs


def keep_record(file: Path, record: Mapping[str, Any]) -> None:
    """Write what an experiment is about to do beside its runs, where publishing finds it; the folder is made.

    Args:
        file: JSON in the folder of the experiment.
        record: holds ``config`` and ``data_hash``, which decide what the runs are.

    Raises:
        ConfigError: runs in the folder were begun with other settings or data, or by another experiment; nothing is
            written then. What was asked for and refused before a run began is written over.
        DamagedFileError: the file is cut off or empty.
    """
    wanted = parse_json(json.dumps(record))
    begun = any(file.parent.rglob("config.json"))  # a refused call leaves a record and no run
    if begun and not file.is_file():
        raise ConfigError(
            f"{file.parent}: holds runs and no {file.name}: they are of another experiment; choose another --out"
        )
    if begun:
        kept = read_json(file, "remove the folder of the experiment and run it again")
        for name in ("config", "data_hash"):
            if kept.get(name) != wanted[name]:
                raise ConfigError(
                    f"{file.parent}: its runs have {name} = {kept.get(name)}, asked for {wanted[name]}; "
                    "choose another --out, or give the settings they were made with"
                )
    file.parent.mkdir(parents=True, exist_ok=True)
    write_json(file, wanted)


def done_by(command: str, **lists: Sequence[Any]) -> str:
    """A recorded command with the options that list what was done: the record is of the last call, the runs of all.

    >>> done_by("run --seeds 2 --steps=2", seeds=[0, 1, 2])
    'run --seeds 0,1,2 --steps=2'
    """
    for name, values in lists.items():
        joined = ",".join(map(str, values))
        command = re.sub(rf"--{name} .*?(?= --|$)", lambda _, n=name, j=joined: f"--{n} {j}", command)
    return command


def seed_of(folder: Path) -> int | None:
    """The seed of a run's folder; None where its name tells none.

    >>> seed_of(Path("none/seed3")), seed_of(Path("none/seed3 (copy)"))
    (3, None)
    """
    found = re.fullmatch(r"seed(\d+)", folder.name)
    return int(found[1]) if found else None


def load_runs(out: str | Path) -> list[SweepRun]:
    """All finished runs in a sweep's folder, whoever made them; ordered by method and seed.

    Folders of other names, as copies have them (``seed0 (copy)``), are passed over.
    """
    runs = [
        SweepRun(name, seed, items)
        for file in sorted(Path(out).glob("*/seed*/evaluation.json"))
        if (seed := seed_of(file.parent)) is not None
        for name, items in kept_items(file).items()
    ]
    return sorted(runs, key=lambda run: (run.method, run.seed))


def seed_differences(runs: Sequence[SweepRun], metric: str, baseline: str) -> dict[str, Difference | None]:
    """Method -> its difference to the baseline paired by seed, with Student's t interval; None without a common seed.

    Raises:
        ConfigError: no run of the baseline.
    """
    items: dict[str, dict[int, list[dict]]] = {}
    for run in runs:
        items.setdefault(run.method, {})[run.seed] = run.items
    if baseline not in items:
        raise ConfigError(f"no run of {baseline!r} to compare with; {nearest_name(baseline, list(items))}")
    found: dict[str, Difference | None] = {}
    for method, by_seed in items.items():
        common = sorted(by_seed.keys() & items[baseline].keys()) if method != baseline else []
        means = [means_of_pairs(by_seed[seed], items[baseline][seed], metric) for seed in common]
        found[method] = paired_difference([a for a, _ in means], [b for _, b in means], method="t") if means else None
    return found


def seed_verdict(difference: Difference) -> str:
    """The verdict of a difference over seeds, or that one seed gives none."""
    return "one seed: no interval" if difference.low is None else difference.verdict


def _by_seed(runs: Sequence[SweepRun], metric: str) -> Mapping[str, dict[int, float]]:
    values: dict[str, dict[int, float]] = {}
    for run in runs:
        values.setdefault(run.method, {})[run.seed] = run.mean(metric)
    return values


def compare_methods(runs: Sequence[SweepRun], metric: str = "si_snr_db", baseline: str = "none") -> list[dict]:
    """One row a method: mean over seeds, and its difference to ``baseline`` paired by seed.

    Args:
        runs: from :func:`run_sweep` or :func:`load_runs`.
        metric: higher is better.
        baseline: method to compare with; it must be among the runs.

    Returns:
        Rows {"method", "seeds", "mean", "std", "difference", "low", "high", "verdict"}; the interval is None for
        fewer than two common seeds, and the verdict then says so.

    Raises:
        ConfigError: no run of the baseline.
    """
    differences, rows = seed_differences(runs, metric, baseline), []
    for method, by_seed in _by_seed(runs, metric).items():
        scores, d = np.array(list(by_seed.values())), differences[method]
        row = {"method": method, "seeds": len(by_seed), "mean": float(scores.mean())}
        row["std"] = float(scores.std(ddof=1)) if len(scores) > 1 else None
        if d is None:
            row |= {
                "difference": None,
                "low": None,
                "high": None,
                "verdict": "baseline" if method == baseline else "no common seed",
            }
        else:
            row |= {"difference": d.mean, "low": d.low, "high": d.high, "verdict": seed_verdict(d)}
        rows.append(row)
    return rows


def _save(out: Path, profile: Profile, corpus: dict[str, str], metrics: Sequence[str]) -> None:
    """``out/sweep.json``: one row a finished run."""
    rows = [
        {"method": run.method, "seed": run.seed, "n": len(run.items), **{m: run.mean(m) for m in metrics}}
        for run in load_runs(out)
    ]
    payload = {"config": {"profile": profile.name}, "seed": sorted({r["seed"] for r in rows}), "rows": rows}
    save_result("sweep", {**payload, "data_hash": data_hash(corpus)}, folder=out)
