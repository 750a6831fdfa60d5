"""Methods times seeds: which way of distilling is better, and is the difference more than luck?

A sweep lives in one folder: one run a (method, seed), each trained and evaluated on the same test mixtures with the same
teacher, and the table out of them. Started again, it goes on where it stopped: a finished run is read, a half-finished
one resumed. Several processes share the work by taking every n-th run (``share``), on one machine or on many.

Source: ours. The unit of the statistics is the seed: every seed gives one mean over the test mixtures per method, and
methods are compared within a seed (same initial weights, same mixtures).
"""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from dccrn_lib.distillation.at_kl import READINGS
from dccrn_lib.distillation.attention import NORMALISATIONS
from dccrn_lib.distillation.loss import METHODS
from dccrn_lib.experiments.paper import data_hash, evaluate_systems, run_system, test_mixtures, train_config
from dccrn_lib.results.records import save_result
from dccrn_lib.runtime.errors import ConfigError, nearest_name
from dccrn_lib.runtime.files import atomic_path, hash_files
from dccrn_lib.training.profiles import Profile, get_profile

METRICS = ("pesq_wb", "stoi", "si_snr_db")


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
        """Over the test mixtures that could be scored."""
        return float(np.mean([i[metric] for i in self.items if i[metric] is not None]))


def run_sweep(
    methods: Sequence[str],
    seeds: Sequence[int],
    profile: Profile | str,
    out: str | Path,
    corpus: dict[str, str],
    teacher: str | Path = "",
    share: tuple[int, int] = (0, 1),
    metrics: Sequence[str] = METRICS,
    workers: int | None = None,
    progress: bool = True,
    **changes,
) -> list[SweepRun]:
    """Train and evaluate the student with every method and seed; go on where an earlier call stopped.

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
        changes: fields of TrainConfig for all students.

    Returns:
        The runs of this share that are finished, in the order of methods, then seeds. ``out/sweep.json`` holds all
        finished runs of the folder.

    Raises:
        ConfigError: an unknown method, no method or seed, a share out of range, or a folder that holds other runs.
    """
    profile = get_profile(profile) if isinstance(profile, str) else profile
    variants = [Variant.parse(m) for m in methods]
    if not variants or not seeds:
        raise ConfigError("a sweep needs at least one method and one seed")
    if not 0 <= share[0] < share[1]:
        raise ConfigError(f"share {share} must be (i, n) with 0 <= i < n")
    out = Path(out)
    needs_teacher = any(v.method != "none" for v in variants)
    if needs_teacher and not teacher:
        steps = {k: v for k, v in changes.items() if k == "device"}
        result = run_system(train_config("teacher", profile, corpus, out, **steps), progress)
        teacher = result.weights
    tests = test_mixtures(profile, corpus)
    workers = 1 if workers is None and len(tests) < 16 else workers
    jobs = [(variant, seed) for variant in variants for seed in seeds]
    runs = []
    for variant, seed in jobs[share[0] :: share[1]]:
        folder = out / variant.name.replace(":", "-") / f"seed{seed}"
        settings = {"method": variant.method, "reading": variant.reading, "normalisation": variant.normalisation}
        settings["teacher"] = str(teacher) if variant.method != "none" else ""
        config = train_config("student", profile, corpus, out, seed=seed, **{**changes, **settings})
        result = run_system(replace(config, out=str(folder)), progress)
        if result.stopped:
            break
        items = _evaluate(result, tests, folder, data_hash(corpus), metrics, workers, progress)
        runs.append(SweepRun(variant.name, seed, items))
    _save(out, profile, corpus, metrics)
    return runs


def _evaluate(result, tests, folder: Path, data: str, metrics, workers, progress: bool) -> list[dict]:
    """Per-mixture scores, from ``evaluation.json`` where that belongs to these weights, mixtures and metrics."""
    key = {"weights": hash_files([result.weights]), "data": data, "n": len(tests), "metrics": list(metrics)}
    key["mix"] = repr(tests.config)
    file = folder / "evaluation.json"
    if file.is_file():
        record = json.loads(file.read_text(encoding="utf-8"))
        if record["key"] == key:
            return record["items"]
    items = evaluate_systems({"run": result.model}, tests, metrics, workers, progress)["run"]
    with atomic_path(file) as temporary:
        temporary.write_text(json.dumps({"key": key, "items": items}, indent=1) + "\n", encoding="utf-8")
    return items


def load_runs(out: str | Path) -> list[SweepRun]:
    """All finished runs in a sweep's folder, whoever made them; ordered by method and seed."""
    runs = []
    for file in sorted(Path(out).glob("*/seed*/evaluation.json")):
        name = file.parent.parent.name
        method, _, rest = name.partition("-")
        items = json.loads(file.read_text(encoding="utf-8"))["items"]
        runs.append(
            SweepRun(f"{method}:{rest.replace('-', ':')}" if rest else method, int(file.parent.name[4:]), items)
        )
    return sorted(runs, key=lambda run: (run.method, run.seed))


def paired_t(differences: Sequence[float], confidence: float = 0.95) -> tuple[float, float, float]:
    """(mean, low, high) of Student's t interval, right for few seeds; (mean, nan, nan) for one.

    low, high = mean -+ t(n - 1) * s / sqrt(n)

    >>> [round(v, 2) for v in paired_t([1.0, 2.0, 3.0])]
    [2.0, -0.48, 4.48]
    """
    from scipy.stats import t

    d = np.asarray(differences, dtype=float)
    mean = float(d.mean())
    if d.size < 2:
        return mean, math.nan, math.nan
    half = float(t.ppf((1 + confidence) / 2, d.size - 1) * d.std(ddof=1) / math.sqrt(d.size))
    return mean, mean - half, mean + half


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
    values: dict[str, dict[int, float]] = {}
    for run in runs:
        values.setdefault(run.method, {})[run.seed] = run.mean(metric)
    if baseline not in values:
        raise ConfigError(f"no run of {baseline!r} to compare with; {nearest_name(baseline, list(values))}")
    rows = []
    for method, by_seed in values.items():
        scores = np.array(list(by_seed.values()))
        row = {"method": method, "seeds": len(by_seed), "mean": float(scores.mean())}
        row["std"] = float(scores.std(ddof=1)) if len(scores) > 1 else None
        common = sorted(by_seed.keys() & values[baseline].keys())
        if method == baseline or not common:
            rows.append({**row, "difference": None, "low": None, "high": None, "verdict": "baseline"})
            continue
        mean, low, high = paired_t([by_seed[s] - values[baseline][s] for s in common])
        if math.isnan(low):
            verdict, low, high = "one seed: no interval", None, None
        else:
            verdict = "not distinguishable" if low <= 0 <= high else "better" if low > 0 else "worse"
        rows.append({**row, "difference": mean, "low": low, "high": high, "verdict": verdict})
    return rows


def _save(out: Path, profile: Profile, corpus: dict[str, str], metrics: Sequence[str]) -> None:
    """``out/sweep.json``: one row a finished run."""
    rows = [
        {"method": run.method, "seed": run.seed, "n": len(run.items), **{m: run.mean(m) for m in metrics}}
        for run in load_runs(out)
    ]
    payload = {"config": {"profile": profile.name}, "seed": sorted({r["seed"] for r in rows}), "rows": rows}
    save_result("sweep", {**payload, "data_hash": data_hash(corpus)}, folder=out)
