"""How sure is a difference when mixtures share speakers and noises, and seeds share mixtures?

    python -m dccrn_lib experiment shared-sources --speech speech.jsonl --noise noise.jsonl \\
        equal_hours_over_seeds teacher_long_test:teacher_long:student_alone

Test mixtures are not independent: a voice or a noise comes in several of them, so that the spread over the mixtures, each
taken for one of its own, understates what other recordings would change. The spread over seeds, in turn, holds the
mixtures fixed. Here the mixtures are drawn again, which tells who speaks and what sounds in each, and the differences of
scores kept by ``experiment shipped-weights`` get three intervals:

    over seeds     Student's t on the seeds' means, n - 1 degrees of freedom; these mixtures fixed
    over sources   mixtures that share a speaker or a noise recording; these seeds fixed
    both           variances of the two added, degrees of freedom by Satterthwaite; a little too wide, since what a seed
                   does on one mixture counts in both

Beside them stand how many times as wide the clusters make the interval over the mixtures, and the smallest difference that
as many seeds would find in four experiments of five, the scatter between them taken as known. No interval says what another
training of the teacher, or other training recordings, would change.

Source: ours; the variance in two ways of clusters is that of Cameron, Gelbach and Miller (2011).
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path

import numpy as np
from scipy import optimize, stats

from dccrn_lib.corpus.mixing import MixtureDataset
from dccrn_lib.corpus.plan import MixturePlan
from dccrn_lib.evaluation.intervals import bracketed
from dccrn_lib.evaluation.metrics import METRICS
from dccrn_lib.experiments.paper import TEST_SEED, data_hash
from dccrn_lib.experiments.recipe import called, manifest_options
from dccrn_lib.experiments.shipped_weights import real_mixtures
from dccrn_lib.results.records import load_result, save_result
from dccrn_lib.runtime.errors import ConfigError

#: What the paper claims a gain in (SI-SNR and PESQ, in both its forms), or none (DNSMOS).
SCORES = ("si_snr_db", "pesq_wb", "pesq_nb", "dnsmos_ovrl")
_COLUMNS = ("mean", "median", "ahead", "over_seeds", "over_sources", "both")
_CONFIDENCE, _POWER = 0.975, 0.8


def clustered_variance(values: Sequence[float], clusters: Sequence[Sequence[str | Collection[str]]]) -> float:
    """Variance of a mean whose values are alike where they share a source of one of two kinds.

    Args:
        values: (item,).
        clusters: two lists, the source of every item in each, or all of its sources: a mixture can hold two noises.

    Returns:
        V(first) + V(second) - V(both at once), at least that of independent items; V adds up the products of the residuals
        of all pairs of items that share a source (with one source each: the squared sums of the clusters) and divides by
        n^2; a factor G / (G - 1) for G sources is for their small number.

    >>> clustered_variance([0.0, 2.0], [["a", "b"], ["c", "d"]])
    1.0
    """
    x = np.asarray(values, dtype=np.float64)
    first, second = ([_sources(names) for names in kind] for kind in clusters)
    alike = [_alike(kind) for kind in (first, second)]
    both = _variance(x, alike[0], len(_all(first))) + _variance(x, alike[1], len(_all(second)))
    both -= _variance(x, alike[0] & alike[1], len(set(zip(first, second, strict=True))))
    return max(both, _independent(x))


def _sources(names: str | Collection[str]) -> frozenset[str]:
    return frozenset((names,) if isinstance(names, str) else names)


def _all(kind: Sequence[str | Collection[str]]) -> frozenset[str]:
    """The sources of all items together."""
    return frozenset().union(*map(_sources, kind))


def _alike(kind: Sequence[frozenset[str]]) -> np.ndarray:
    """(item, item): whether the two share a source."""
    return np.array([[bool(a & b) for b in kind] for a in kind])


def _variance(x: np.ndarray, alike: np.ndarray, count: int) -> float:
    """V of :func:`clustered_variance`."""
    residual = x - x.mean()
    return float(residual @ alike @ residual) / len(x) ** 2 * count / max(count - 1, 1)


def _independent(x: np.ndarray) -> float:
    return _variance(x, np.eye(len(x), dtype=bool), len(x))


def detectable(deviation: float, seeds: int) -> float:
    """The smallest difference that Student's t over so many seeds finds (two-sided, 5 %) in four experiments of five.

    Args:
        deviation: standard deviation of the difference from seed to seed, taken as known.
        seeds: at least 2.

    >>> round(detectable(0.15, 3), 2), round(detectable(0.15, 7), 2)
    (0.49, 0.19)
    """
    critical, root = stats.t.ppf(_CONFIDENCE, seeds - 1), math.sqrt(seeds)
    found = optimize.root_scalar(lambda d: stats.nct.sf(critical, seeds - 1, d) - _POWER, bracket=(0.0, 100.0))
    return float(found.root) * deviation / root


def difference(values: np.ndarray, speakers: Sequence[str], noises: Sequence[str | Collection[str]]) -> dict:
    """A difference with its three intervals.

    Args:
        values: of one system minus another, (seed, mixture).
        speakers, noises: of the mixtures, one or several noises in each; at least two in all of either kind.

    Returns:
        {"mean", "median" over the mixtures, "ahead": fraction of them, "over_seeds", "over_sources", "both": [low, high],
        "widening": how many times as wide as over independent mixtures "over_sources" is, "detectable": see
        :func:`detectable`}; None where there is one seed.
    """
    seeds, by_mixture = values.mean(axis=1), values.mean(axis=0)
    mean = float(values.mean())
    of_sources = clustered_variance(by_mixture.tolist(), [speakers, noises])
    independent = _independent(by_mixture)
    freedom = min(len(_all(speakers)), len(_all(noises))) - 1
    found = {
        "mean": mean,
        "median": float(np.median(by_mixture)),
        "ahead": float((by_mixture > 0).mean()),
        "over_seeds": None,
        "over_sources": _interval(mean, of_sources, freedom),
        "both": None,
        "widening": _half_width(of_sources, freedom) / _half_width(independent, len(by_mixture) - 1)
        if independent
        else 1.0,
        "detectable": None,
    }
    if len(seeds) > 1:
        of_seeds, free = float(seeds.var(ddof=1)) / len(seeds), len(seeds) - 1
        total = of_seeds + of_sources
        joint = total**2 / (of_seeds**2 / free + of_sources**2 / freedom) if total else freedom
        found |= {"over_seeds": _interval(mean, of_seeds, free), "both": _interval(mean, total, joint)}
        found["detectable"] = detectable(float(seeds.std(ddof=1)), len(seeds))
    return found


def _half_width(variance: float, freedom: float) -> float:
    return float(stats.t.ppf(_CONFIDENCE, freedom)) * math.sqrt(variance)


def _interval(mean: float, variance: float, freedom: float) -> list[float]:
    half = _half_width(variance, freedom)
    return [mean - half, mean + half]


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
        ConfigError: no such result or system, one that is compared named as the one to write, scores of other mixtures
            than these manifests give, or mixtures of one speaker or one noise recording.
    """
    chosen = [_results(text, folder) for text in comparisons]
    records = {result: load_result(result, folder) for results, *_ in chosen for result in results}
    if name in records or name in comparisons:
        raise ConfigError(f"{name}: one of the results that are compared; write to another name")
    mixtures = _test_mixtures(records, corpus)
    entries, plans = mixtures.planner.entries, [mixtures.plan(i) for i in range(len(mixtures))]
    _require_scores_of(records, plans, corpus)
    speakers = [plan.speaker for plan in plans]
    noises = [_sources([entries[c.recording].group for sound in plan.noises for c in sound.cuts]) for plan in plans]
    if min(len(set(speakers)), len(_all(noises))) < 2:
        raise ConfigError(
            f"{len(plans)} mixtures of one speaker or one noise recording: nothing varies between sources"
        )
    rows = []
    for results, system, minus in chosen:
        systems = [records[result]["systems"] for result in results]
        if missing := [s for s in (system, minus) if any(s not in held for held in systems)]:
            raise ConfigError(f"{', '.join(results)}: no system {missing[0]!r} in each of them")
        head = {"record": results[0], "results": list(results), "system": system, "minus": minus, "seeds": len(results)}
        for metric in SCORES:
            values, scored = _differences(systems, system, minus, metric)
            if scored:
                found = difference(values, [speakers[k] for k in scored], [noises[k] for k in scored])
                rows.append(
                    {**head, "metric": METRICS[metric].column, **_shown(found), "n": len(scored), "values": found}
                )
    widening = [row["values"]["widening"] for row in rows]
    payload = {
        "title": f"Differences on {len(plans)} test mixtures that share speakers, noises and seeds",
        "note": "95 % intervals. Over seeds: Student's t, mixtures fixed. Over sources: mixtures in clusters by speaker "
        "and by noise recording, seeds fixed. Both: the variances added; read the widest of the three. Ahead: on how many "
        "mixtures, means over the seeds.",
        "command": called("shared-sources", [*comparisons, *manifest_options(corpus)], name),
        "config": {
            "comparisons": list(comparisons),
            "mixtures": len(plans),
            "speakers": len(set(speakers)),
            "utterances": len({entries[cut.recording].path for plan in plans for cut in plan.speech.cuts}),
            "noise recordings": len(_all(noises)),
            "most mixtures of a speaker": max(Counter(speakers).values()),
            "most mixtures of a noise recording": max(Counter(name for names in noises for name in names).values()),
            "widening by the clusters: least, median, most": [min(widening), float(np.median(widening)), max(widening)],
        },
        "seed": TEST_SEED,
        "data_hash": _hash(corpus),
        "columns": ["record", "system", "minus", "seeds", "metric", *_COLUMNS],
        "rows": rows,
    }
    return save_result(name, payload, folder)


def _results(text: str, folder: str | Path | None) -> tuple[tuple[str, ...], str, str]:
    """Names of results by seed, and the two systems."""
    result, *systems = text.split(":")
    if len(systems) == 2:
        return (result,), systems[0], systems[1]
    config = load_result(result, folder)["config"]
    if systems or not isinstance(config, Mapping) or not {"results", "system", "minus"} <= config.keys():
        raise ConfigError(f"{text}: name a result of `experiment over-seeds`, or write RESULT:SYSTEM:MINUS")
    return tuple(config["results"].values()), config["system"], config["minus"]


def _hash(corpus: Mapping[str, str]) -> str:
    return data_hash({"speech": corpus["speech"], "noise": corpus["noise"], "rir": ""})


def _test_mixtures(records: Mapping[str, Mapping], corpus: Mapping[str, str]) -> MixtureDataset:
    """As many as were scored."""
    if none := [result for result, record in records.items() if not record.get("systems")]:
        raise ConfigError(f"{none[0]}: holds no scores of systems; name a result as shipped-weights writes it")
    counts = {len(system["items"]) for record in records.values() for system in record["systems"].values()}
    if len(counts) != 1:
        raise ConfigError(f"the results hold scores of {sorted(counts)} mixtures; compare those of the same mixtures")
    return real_mixtures(corpus, counts.pop())


def _require_scores_of(records: Mapping[str, Mapping], plans: Sequence[MixturePlan], corpus: Mapping[str, str]) -> None:
    """ConfigError unless each record holds scores of these mixtures."""
    for result, record in records.items():
        items = next(iter(record["systems"].values()))["items"]
        same = all(i["id"] == p.id and i["snr_db_in"] == p.snr_db for i, p in zip(items, plans, strict=True))
        if record["data_hash"] != _hash(corpus) or not same:
            raise ConfigError(f"{result}: scored on other mixtures than those of {corpus['speech']}, {corpus['noise']}")


def _differences(systems: Sequence[Mapping], system: str, minus: str, metric: str) -> tuple[np.ndarray, list[int]]:
    """(seed, mixture) of the mixtures that both systems have a score of with each seed, and their numbers."""
    pairs = [
        [(a.get(metric), b.get(metric)) for a, b in zip(held[system]["items"], held[minus]["items"], strict=True)]
        for held in systems
    ]
    scored = [k for k in range(len(pairs[0])) if all(None not in seed[k] for seed in pairs)]
    return np.array([[seed[k][0] - seed[k][1] for k in scored] for seed in pairs]), scored


def _shown(found: Mapping) -> dict[str, str]:
    """A difference as text for a table."""
    numbers = {"mean": f"{found['mean']:+.3f}", "median": f"{found['median']:+.3f}", "ahead": f"{found['ahead']:.0%}"}
    for key in ("over_seeds", "over_sources", "both"):
        interval = found[key]
        numbers[key] = "-" if interval is None else bracketed(interval[0], interval[1], "+.3f").strip()
    return numbers
