"""How sure is a difference when mixtures share speakers and noises, and seeds share mixtures?

    python -m dccrn_lib experiment shared-sources --speech speech.jsonl --noise noise.jsonl \\
        equal_hours_over_seeds teacher_long_test:teacher_long:student_alone

Test mixtures are not independent: a voice or a noise comes in several of them, so that the spread over the mixtures, each
taken for one of its own, understates what other recordings would change. The spread over seeds, in turn, holds the
mixtures fixed. Here the mixtures are drawn again, which tells who speaks and what sounds in each, and the differences of
scores kept by ``experiment shipped-weights`` get three intervals:

    over seeds     Student's t on the seeds' means, n - 1 degrees of freedom; these mixtures fixed
    over sources   mixtures in clusters by speaker and by noise recording; these seeds fixed
    both           variances of the two added, degrees of freedom by Satterthwaite; a little too wide, since what a seed
                   does on one mixture counts in both

Source: ours; the variance in two ways of clusters is that of Cameron, Gelbach and Miller (2011), equation 2.3.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
from scipy import stats

from dccrn_lib.corpus.mixing import MixtureDataset
from dccrn_lib.corpus.plan import MixturePlan
from dccrn_lib.evaluation.intervals import bracketed
from dccrn_lib.evaluation.metrics import METRICS
from dccrn_lib.experiments.paper import TEST_SEED, data_hash
from dccrn_lib.experiments.shipped_weights import real_mixtures
from dccrn_lib.results.records import load_result, save_result
from dccrn_lib.runtime.errors import ConfigError

#: What the paper claims a gain in (SI-SNR and PESQ, in both its forms), or none (DNSMOS).
SCORES = ("si_snr_db", "pesq_wb", "pesq_nb", "dnsmos_ovrl")
_CONFIDENCE = 0.975


def clustered_variance(values: Sequence[float], clusters: Sequence[Sequence[str]]) -> float:
    """Variance of a mean whose values are alike within clusters of two kinds.

    Args:
        values: (item,).
        clusters: two lists, the cluster of every item in each.

    Returns:
        V(first) + V(second) - V(both at once), at least that of independent items; V sums the residuals of a cluster,
        squares the sums, adds them up, and divides by n^2; a factor G / (G - 1) for G clusters is for their small number.

    >>> clustered_variance([0.0, 2.0], [["a", "b"], ["c", "d"]]) == np.var([0.0, 2.0], ddof=1) / 2
    True
    """
    x = np.asarray(values, dtype=np.float64)
    residuals = x - x.mean()

    def variance(names: Sequence) -> float:
        groups: dict = {}
        for name, residual in zip(names, residuals, strict=True):
            groups[name] = groups.get(name, 0.0) + residual
        count = len(groups)
        return sum(total**2 for total in groups.values()) / len(x) ** 2 * count / max(count - 1, 1)

    first, second = clusters
    both = variance(first) + variance(second) - variance(list(zip(first, second, strict=True)))
    return max(both, variance(range(len(x))))


def difference(values: np.ndarray, speakers: Sequence[str], noises: Sequence[str]) -> dict:
    """A difference with its three intervals.

    Args:
        values: of one system minus another, (seed, mixture).
        speakers, noises: of the mixtures.

    Returns:
        {"mean", "median" over the mixtures, "ahead": fraction of them, "over_seeds", "over_sources", "both": [low, high];
        None where there is one seed}.
    """
    seeds, by_mixture = values.mean(axis=1), values.mean(axis=0)
    mean = float(values.mean())
    of_sources = clustered_variance(by_mixture.tolist(), [speakers, noises])
    freedom = min(len(set(speakers)), len(set(noises))) - 1
    found = {
        "mean": mean,
        "median": float(np.median(by_mixture)),
        "ahead": float((by_mixture > 0).mean()),
        "over_seeds": None,
        "over_sources": _interval(mean, of_sources, freedom),
        "both": None,
    }
    if len(seeds) > 1:
        of_seeds, free = float(seeds.var(ddof=1)) / len(seeds), len(seeds) - 1
        total = of_seeds + of_sources
        joint = total**2 / (of_seeds**2 / free + of_sources**2 / freedom) if total else freedom
        found |= {"over_seeds": _interval(mean, of_seeds, free), "both": _interval(mean, total, joint)}
    return found


def _interval(mean: float, variance: float, freedom: float) -> list[float]:
    half = float(stats.t.ppf(_CONFIDENCE, freedom)) * math.sqrt(variance)
    return [mean - half, mean + half]


def sources(plans: Sequence[MixturePlan], mixtures: MixtureDataset) -> tuple[list[str], list[str]]:
    """Who speaks in each mixture, and which noise recording sounds in it (the first one of two)."""
    entries = mixtures.planner.entries
    noises = [entries[plan.noises[0].cuts[0].recording].group for plan in plans]
    return [plan.speaker for plan in plans], noises


def publish(
    comparisons: Sequence[str],
    corpus: Mapping[str, str],
    name: str = "shared_sources",
    folder: str | Path | None = None,
) -> Path:
    """Write ``<folder>/<name>.json``: a row for each comparison and metric.

    Args:
        comparisons: names of results of ``experiment over-seeds``, or RESULT:SYSTEM:MINUS for scores of one seed.
        corpus: {"speech", "noise"}: the manifests that the test mixtures were drawn from.
        name: of the result to write.
        folder: results/ of the project when None; the scores are read from there, too.

    Raises:
        ConfigError: no such result or system, or scores of other mixtures than these manifests give.
    """
    chosen = {text: _results(text, folder) for text in comparisons}
    records = {result: load_result(result, folder) for results, *_ in chosen.values() for result in results}
    counts = {len(system["items"]) for record in records.values() for system in record["systems"].values()}
    if len(counts) != 1:
        raise ConfigError(f"the results hold scores of {sorted(counts)} mixtures; compare those of the same mixtures")
    mixtures = real_mixtures(corpus, counts.pop())
    plans = [mixtures.plan(i) for i in range(len(mixtures))]
    wanted = data_hash({"speech": corpus["speech"], "noise": corpus["noise"], "rir": ""})
    for result, record in records.items():
        items = next(iter(record["systems"].values()))["items"]
        same = all(i["id"] == p.id and i["snr_db_in"] == p.snr_db for i, p in zip(items, plans, strict=True))
        if record["data_hash"] != wanted or not same:
            raise ConfigError(f"{result}: scored on other mixtures than those of {corpus['speech']}, {corpus['noise']}")
    speakers, noises = sources(plans, mixtures)
    rows = []
    for results, system, minus in chosen.values():
        systems = [records[result]["systems"] for result in results]
        if missing := [s for s in (system, minus) if any(s not in held for held in systems)]:
            raise ConfigError(f"{', '.join(results)}: no system {missing[0]!r} in each of them")
        for metric in SCORES:
            both = [
                [
                    (a.get(metric), b.get(metric))
                    for a, b in zip(held[system]["items"], held[minus]["items"], strict=True)
                ]
                for held in systems
            ]
            scored = [k for k in range(len(plans)) if all(None not in seed[k] for seed in both)]
            if not scored:
                continue
            values = np.array([[seed[k][0] - seed[k][1] for k in scored] for seed in both])
            found = difference(values, [speakers[k] for k in scored], [noises[k] for k in scored])
            shown = {key: _text(value) for key, value in found.items() if key not in ("mean", "median", "ahead")}
            head = {
                "record": results[0],
                "system": system,
                "minus": minus,
                "results": list(results),
                "seeds": len(results),
            }
            numbers = {"mean": f"{found['mean']:+.3f}", "median": f"{found['median']:+.3f}"}
            rows.append(
                {**head, "metric": METRICS[metric].column, **numbers, "ahead": f"{found['ahead']:.0%}", **shown}
                | {"n": len(scored), "values": found}
            )
    utterances = {mixtures.planner.entries[cut.recording].path for plan in plans for cut in plan.speech.cuts}
    payload = {
        "title": f"Differences on {len(plans)} test mixtures that share speakers, noises and seeds",
        "note": "95 % intervals. Over seeds: Student's t, mixtures fixed. Over sources: mixtures in clusters by speaker "
        "and by noise recording, seeds fixed. Both: the variances added; read the widest of the three. Ahead: on how many "
        "mixtures, means over the seeds.",
        "config": {
            "comparisons": list(comparisons),
            "mixtures": len(plans),
            "speakers": len(set(speakers)),
            "utterances": len(utterances),
            "noise recordings": len(set(noises)),
            "most mixtures of a speaker": max(speakers.count(s) for s in speakers),
            "most mixtures of a noise recording": max(noises.count(s) for s in noises),
        },
        "seed": TEST_SEED,
        "data_hash": wanted,
        "columns": [
            "record",
            "system",
            "minus",
            "seeds",
            "metric",
            "mean",
            "median",
            "ahead",
            "over_seeds",
            "over_sources",
            "both",
        ],
        "rows": rows,
    }
    return save_result(name, payload, folder)


def _text(interval: list[float] | None) -> str:
    return "-" if interval is None else bracketed(interval[0], interval[1], "+.3f").strip()


def _results(text: str, folder: str | Path | None) -> tuple[tuple[str, ...], str, str]:
    """Names of results by seed, and the two systems."""
    result, *systems = text.split(":")
    if len(systems) == 2:
        return (result,), systems[0], systems[1]
    config = load_result(result, folder)["config"]
    if systems or not isinstance(config, Mapping) or not {"results", "system", "minus"} <= config.keys():
        raise ConfigError(f"{text}: name a result of `experiment over-seeds`, or write RESULT:SYSTEM:MINUS")
    return tuple(config["results"].values()), config["system"], config["minus"]
