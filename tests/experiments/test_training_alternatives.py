"""What the rows of ``bench alternatives`` are called."""

from __future__ import annotations

from dccrn_lib.experiments.training_alternatives import muon_pairs, step_pairs


def test_a_row_names_the_network_that_was_timed():
    rows = [what for pairs in (muon_pairs(True), step_pairs(True)) for what, _, _ in pairs]
    assert len(rows) == 8 and all("_mini" in what for what in rows)
