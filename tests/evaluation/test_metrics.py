"""The metrics by name are those that are computed, and tables and figures know each of them."""

from __future__ import annotations

import numpy as np

from dccrn_lib.evaluation.metrics import ALL_METRICS, COMPARED_METRICS, METRICS, REFERENCE_METRICS
from dccrn_lib.evaluation.scores import metric_names, score_pair
from dccrn_lib.results.tables import table


def test_every_reference_metric_is_computed_in_the_order_of_the_table():
    x = np.random.default_rng(0).normal(0, 0.1, 16000)
    scores = score_pair(x, x, metrics=REFERENCE_METRICS)
    assert [key for key in scores if key != "reasons"] == list(REFERENCE_METRICS)
    assert metric_names(list(reversed(ALL_METRICS))) == ALL_METRICS
    assert {m for m in COMPARED_METRICS if METRICS[m].quality and METRICS[m].reference} == set(COMPARED_METRICS)


def test_a_table_shows_qualities_with_their_units_and_no_description():
    summary = {metric: 1.0 for metric in reversed(ALL_METRICS)}
    system = {"n": 2, "mean": summary, "ci95": {}, "n_metric": dict.fromkeys(summary, 2)}
    head = table({"systems": {"noisy": system}}).splitlines()[0]
    assert head == ("| system | n | WB-PESQ | NB-PESQ | STOI | SI-SNR dB | DNSMOS OVRL | DNSMOS SIG | DNSMOS BAK |")
