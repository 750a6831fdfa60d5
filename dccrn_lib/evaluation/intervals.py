"""Confidence intervals and paired comparison of per-file metrics."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np

from dccrn_lib.runtime.errors import MetricError


def bootstrap_ci(
    values: Sequence[float], confidence: float = 0.95, seed: int = 0, resamples: int = 10_000
) -> tuple[float, float]:
    """Percentile bootstrap confidence interval of a mean.

    Args:
        values: numbers, none of them NaN.
        confidence: in (0, 1).
        seed: of the resampling; the same values and seed give the same interval.
        resamples: number of bootstrap means.

    Returns:
        (low, high); (nan, nan) for a single value, which has no spread.

    Raises:
        MetricError: no value, or one is not finite.

    >>> bootstrap_ci([1.0, 1.0, 1.0])
    (1.0, 1.0)
    """
    x = np.asarray(values, dtype=np.float64)
    if x.ndim != 1 or x.size == 0 or not np.isfinite(x).all():
        raise MetricError("a confidence interval needs a list of one or more finite numbers")
    if not 0 < confidence < 1:
        raise MetricError(f"confidence must lie between 0 and 1, got {confidence}")
    if x.size == 1:
        return math.nan, math.nan
    generator = np.random.default_rng(seed)
    rows = max(1, 2_000_000 // x.size)  # bounded memory
    means = np.concatenate(
        [
            x[generator.integers(0, x.size, (min(rows, resamples - start), x.size))].mean(axis=1)
            for start in range(0, resamples, rows)
        ]
    )
    low, high = np.quantile(means, [(1 - confidence) / 2, (1 + confidence) / 2])
    return float(low), float(high)


def paired_difference(
    a: Sequence[float | None], b: Sequence[float | None], confidence: float = 0.95, seed: int = 0
) -> dict:
    """Mean of a - b over pairs, with its bootstrap interval and effect size.

    Args:
        a, b: values of two systems on the same items, in the same order. A pair with None or NaN is left out.
        confidence: of the interval.
        seed: of the bootstrap.

    Returns:
        {"mean", "ci": [low, high], "n", "effect_size", "share_better"}: effect_size is Cohen's d of paired
        data, mean / standard deviation of the differences (None if they do not vary); share_better is the
        fraction of pairs with a > b. Without a pair, mean and ci are None.

    Raises:
        MetricError: the lists differ in length.

    >>> paired_difference([2.0, 3.0, 4.0], [1.0, 1.0, 1.0])["effect_size"]
    2.0
    """
    if len(a) != len(b):
        raise MetricError(f"paired values must have one length, got {len(a)} and {len(b)}")
    both = [(x, y) for x, y in zip(a, b, strict=True) if _is_number(x) and _is_number(y)]
    if not both:
        return {"mean": None, "ci": [None, None], "n": 0, "effect_size": None, "share_better": None}
    d = np.array([x - y for x, y in both], dtype=np.float64)
    spread = float(d.std(ddof=1)) if d.size > 1 else 0.0
    return {
        "mean": float(d.mean()),
        "ci": [or_none(v) for v in bootstrap_ci(d, confidence, seed)],
        "n": int(d.size),
        # d = mean(a - b) / std(a - b)
        "effect_size": float(d.mean() / spread) if spread > 0 else None,
        "share_better": float((d > 0).mean()),
    }


def _is_number(value: float | None) -> bool:
    return value is not None and math.isfinite(value)


def or_none(value: float) -> float | None:
    """The value, or None (JSON's null) where it is NaN or infinite."""
    return float(value) if math.isfinite(value) else None
