"""Confidence intervals, paired comparison of systems, and what both say in words.

The unit of a comparison decides the interval: over test items the bootstrap, over the few seeds of an experiment
Student's t. Both give a :class:`Difference`.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from scipy import stats

from dccrn_lib.runtime.errors import MetricError


def bootstrap_ci(
    values: Sequence[float] | np.ndarray, confidence: float = 0.95, seed: int = 0, resamples: int = 10_000
) -> tuple[float, float]:
    """Percentile bootstrap confidence interval of a mean, by ``scipy.stats.bootstrap``.

    Args:
        values: numbers, none of them NaN.
        confidence: in (0, 1).
        seed: of the resampling; the same values and seed give the same interval.
        resamples: number of bootstrap means.

    Returns:
        (low, high); (nan, nan) for a single value, which has no spread.

    Raises:
        MetricError: no value, one that is not finite, or a confidence outside (0, 1).

    >>> bootstrap_ci([1.0, 1.0, 1.0])
    (1.0, 1.0)
    """
    x = _finite_numbers(values, confidence)
    if x.size == 1:
        return math.nan, math.nan
    interval = stats.bootstrap(
        (x,),
        np.mean,
        n_resamples=resamples,
        batch=max(1, 2_000_000 // x.size),  # bounded memory
        confidence_level=confidence,
        method="percentile",
        rng=np.random.default_rng(seed),
    ).confidence_interval
    return float(interval.low), float(interval.high)


def t_interval(values: Sequence[float] | np.ndarray, confidence: float = 0.95) -> tuple[float, float]:
    """Student's t confidence interval of a mean, right for few values: mean -+ t(n - 1) * s / sqrt(n).

    Args:
        values: numbers, none of them NaN.
        confidence: in (0, 1).

    Returns:
        (low, high); (nan, nan) for a single value.

    Raises:
        MetricError: no value, one that is not finite, or a confidence outside (0, 1).

    >>> [round(v, 2) for v in t_interval([1.0, 2.0, 3.0])]
    [-0.48, 4.48]
    """
    x = _finite_numbers(values, confidence)
    if x.size == 1:
        return math.nan, math.nan
    if (x == x[0]).all():  # no spread: t is infinite, and its interval a point
        return float(x[0]), float(x[0])
    interval = stats.ttest_1samp(x, 0.0).confidence_interval(confidence)
    return float(interval.low), float(interval.high)


def _finite_numbers(values: Sequence[float] | np.ndarray, confidence: float) -> np.ndarray:
    """Values as float64 (item,); MetricError unless they and the confidence can give an interval."""
    x = np.asarray(values, dtype=np.float64)
    if x.ndim != 1 or x.size == 0 or not np.isfinite(x).all():
        raise MetricError("a confidence interval needs a list of one or more finite numbers")
    if not 0 < confidence < 1:
        raise MetricError(f"confidence must lie between 0 and 1, got {confidence}")
    return x


@dataclass(frozen=True)
class Difference:
    """How much better one system is than another: the mean of paired differences a - b, higher being better.

    Args:
        mean: None without a pair.
        low, high: of the confidence interval; None for fewer than two pairs.
        n: pairs.
        method: of the interval, "bootstrap" or "t".
        effect_size: Cohen's d of paired data, mean / standard deviation of the differences; None if they do not vary.
        share_better: fraction of pairs with a > b.
    """

    mean: float | None
    low: float | None
    high: float | None
    n: int
    method: str = "bootstrap"
    effect_size: float | None = None
    share_better: float | None = None

    @property
    def verdict(self) -> str:
        """About a: "better" or "worse" where the interval leaves out 0, else "not distinguishable".

        >>> Difference(0.5, 0.1, 0.9, 8).verdict, Difference(0.5, -0.1, 1.1, 8).verdict
        ('better', 'not distinguishable')
        """
        if self.low is None or self.high is None or self.low <= 0 <= self.high:
            return "not distinguishable"
        return "better" if self.low > 0 else "worse"

    def text(self, unit: str = "", form: str = "+.3g") -> str:
        """Mean and interval.

        Args:
            unit: written behind.
            form: format of a number.

        >>> Difference(0.4291, 0.3652, 0.4937, 80).text("dB")
        '+0.429 [+0.365, +0.494] dB'
        """
        if self.mean is None:
            return "no item could be scored for both"
        return f"{self.mean:{form}}{bracketed(self.low, self.high, form)} {unit}".rstrip()

    def in_full(self, unit: str = "", form: str = "+.3g") -> str:
        """:meth:`text` with count, effect size and the fraction of pairs with a > b.

        Args:
            unit, form: as for :meth:`text`.

        >>> Difference(0.5, 0.25, 0.75, 8, effect_size=1.5, share_better=0.875).in_full()
        '+0.5 [+0.25, +0.75] (n = 8, effect size +1.50, higher on 88 %)'
        """
        if self.mean is None:
            return self.text(unit, form)
        parts = [f"n = {self.n}"]
        if self.effect_size is not None:
            parts.append(f"effect size {self.effect_size:+.2f}")
        if self.share_better is not None:
            parts.append(f"higher on {100 * self.share_better:.0f} %")
        return f"{self.text(unit, form)} ({', '.join(parts)})"

    def __str__(self) -> str:
        return f"{self.text()} {self.verdict}"

    def record(self) -> dict[str, Any]:
        """As it stands in a JSON file: {"mean", "ci": [low, high], "n", "effect_size", "share_better"}."""
        return {
            "mean": self.mean,
            "ci": [self.low, self.high],
            "n": self.n,
            "effect_size": self.effect_size,
            "share_better": self.share_better,
        }


def paired_difference(
    a: Sequence[float | None],
    b: Sequence[float | None],
    confidence: float = 0.95,
    seed: int = 0,
    method: str = "bootstrap",
) -> Difference:
    """Mean of a - b over pairs, with its interval and effect size.

    Args:
        a, b: values of two systems on the same items or seeds, in the same order. A pair with None or NaN is left out.
        confidence: of the interval.
        seed: of the bootstrap.
        method: "bootstrap" (many items), or "t" (few seeds).

    Raises:
        MetricError: the lists differ in length, an unknown method, or a confidence outside (0, 1).

    >>> paired_difference([2.0, 3.0, 4.0], [1.0, 1.0, 1.0]).effect_size
    2.0
    """
    if method not in ("bootstrap", "t"):
        raise MetricError(f"unknown interval {method!r}; known: bootstrap, t")
    if len(a) != len(b):
        raise MetricError(f"paired values must have one length, got {len(a)} and {len(b)}")
    both = [(x, y) for x, y in zip(a, b, strict=True) if _is_number(x) and _is_number(y)]
    if not both:
        return Difference(None, None, None, 0, method)
    # ``_is_number`` leaves no None
    d = np.array([x - y for x, y in both], dtype=np.float64)  # pyright: ignore[reportOperatorIssue]
    low, high = bootstrap_ci(d, confidence, seed) if method == "bootstrap" else t_interval(d, confidence)
    spread = float(d.std(ddof=1)) if d.size > 1 else 0.0
    rounding = 1e-12 * float(np.abs(np.array(both, dtype=np.float64)).max())  # of differences that do not vary
    return Difference(
        mean=float(d.mean()),
        low=or_none(low),
        high=or_none(high),
        n=int(d.size),
        method=method,
        # d = mean(a - b) / std(a - b)
        effect_size=float(d.mean() / spread) if spread > rounding else None,
        share_better=float((d > 0).mean()),
    )


def compare_systems(items: Mapping[str, Sequence[Mapping[str, Any]]], a: str, b: str, metric: str) -> Difference:
    """Paired difference a minus b of one metric over the test items, with its bootstrap interval.

    Args:
        items: system -> items with the same order of mixtures, from ``evaluation.systems.evaluate_systems``.
        a, b: names of systems.
        metric: higher is better.
    """
    return paired_difference([i[metric] for i in items[a]], [i[metric] for i in items[b]])


def means_of_pairs(
    first: Sequence[Mapping[str, Any]], second: Sequence[Mapping[str, Any]], metric: str
) -> tuple[float, float]:
    """Means of two systems over the mixtures that both have a score of, as their difference is taken; NaN without any.

    Args:
        first, second: one mapping per mixture, the same mixtures in the same order.
        metric: a score, None where the mixture could not be scored.

    Raises:
        MetricError: another number of mixtures.
    """
    if len(first) != len(second):
        raise MetricError(f"paired scores must be of the same mixtures, got {len(first)} and {len(second)}")
    pairs = [(a[metric], b[metric]) for a, b in zip(first, second, strict=True) if None not in (a[metric], b[metric])]
    if not pairs:
        return math.nan, math.nan
    return sum(a for a, _ in pairs) / len(pairs), sum(b for _, b in pairs) / len(pairs)


def summarise(items: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """Count, means and 95 % confidence intervals (bootstrap of the mean) of per-item metrics.

    Args:
        items: one mapping per item; numbers are metrics, None means that it could not be scored.

    Returns:
        {"n", "n_metric": {metric: count}, "mean": {metric: value}, "ci95": {metric: [low, high]}}; None
        stands for a mean of no value and an interval of fewer than two.

    >>> summarise([{"stoi": 1.0}, {"stoi": 1.0}, {"stoi": None}])
    {'n': 3, 'n_metric': {'stoi': 2}, 'mean': {'stoi': 1.0}, 'ci95': {'stoi': [1.0, 1.0]}}
    """
    values: dict[str, list[float]] = {}
    for item in items:
        for key, value in item.items():
            if value is None:
                values.setdefault(key, [])
            elif isinstance(value, int | float) and not isinstance(value, bool):
                values.setdefault(key, []).append(float(value))
    return {
        "n": len(items),
        "n_metric": {key: len(v) for key, v in values.items()},
        "mean": {key: sum(v) / len(v) if v else None for key, v in values.items()},
        "ci95": {key: list(bootstrap_ci(v)) if len(v) > 1 else None for key, v in values.items()},
    }


def bracketed(low: float | None, high: float | None, form: str) -> str:
    """An interval with a blank in front, " [0.1, 0.9]"; "" where there is none."""
    return "" if low is None or high is None else f" [{low:{form}}, {high:{form}}]"


def _is_number(value: float | None) -> bool:
    return value is not None and math.isfinite(value)


def or_none(value: float) -> float | None:
    """The value, or None (JSON's null) where it is NaN or infinite."""
    return float(value) if math.isfinite(value) else None
