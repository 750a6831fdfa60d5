"""Intervals for mixtures that share speakers, noises and seeds."""

from __future__ import annotations

import json
import shlex
from pathlib import Path

import numpy as np
import pytest

from dccrn_lib.cli import main as cli
from dccrn_lib.experiments import shared_sources
from dccrn_lib.experiments.paper import data_hash
from dccrn_lib.experiments.shipped_weights import real_mixtures
from dccrn_lib.results.records import save_result


def test_what_is_alike_within_a_cluster_counts_once():
    rng = np.random.default_rng(0)
    voices = [f"s{k // 10}" for k in range(200)]
    alone = [f"n{k}" for k in range(200)]
    each = np.repeat(rng.standard_normal(20), 10)  # ten mixtures of a voice, all equal
    as_independent = each.var(ddof=1) / 200
    clustered = shared_sources.clustered_variance(each.tolist(), [voices, alone])
    assert clustered == pytest.approx(each[::10].var(ddof=1) / 20, rel=0.01)
    assert clustered > 8 * as_independent
    white = rng.standard_normal(200)
    assert shared_sources.clustered_variance(white.tolist(), [alone, alone]) == pytest.approx(white.var(ddof=1) / 200)


def test_three_intervals_of_a_difference():
    rng = np.random.default_rng(1)
    by_seed, by_mixture = np.array([[0.4], [0.5], [0.6]]), 0.1 * rng.standard_normal(40)
    names = [f"a{k}" for k in range(40)]
    found = shared_sources.difference(by_seed + by_mixture - by_mixture.mean(), names, names)
    assert found["mean"] == pytest.approx(0.5)
    assert found["over_seeds"] == pytest.approx([0.5 - 4.303 * 0.1 / 3**0.5, 0.5 + 4.303 * 0.1 / 3**0.5], abs=1e-3)
    half = 2.023 * by_mixture.std(ddof=1) / 40**0.5
    assert found["over_sources"] == pytest.approx([0.5 - half, 0.5 + half], abs=1e-3)
    assert found["both"][1] - found["both"][0] > 2 * half
    assert found["widening"] == pytest.approx(1.0) and found["detectable"] == pytest.approx(0.33, abs=0.01)
    few = [name for name in "abcde" for _ in range(8)]
    wide = shared_sources.difference(by_mixture[None], few, few)
    low, high = wide["over_sources"]
    assert wide["widening"] == pytest.approx((high - low) / (2 * half), rel=1e-3) != pytest.approx(1.0, abs=0.1)
    one = shared_sources.difference(by_mixture[None] + 1.0, names, names)
    assert one["over_seeds"] is None and one["both"] is None and one["ahead"] == 1.0


@pytest.fixture
def scored(tmp_path, corpus):
    """Results of two seeds on eight mixtures of the generated corpus, and the command that compares them."""
    mixtures = real_mixtures(corpus, 8)
    plans = [mixtures.plan(k) for k in range(8)]
    kept = {"config": {}, "seed": 0, "data_hash": data_hash({**corpus, "rir": ""})}
    for seed, gain in ((0, 0.5), (1, 0.7)):
        heads = [{"id": p.id, "snr_db_in": p.snr_db, "label": p.label} for p in plans]
        alone = [{**head, "si_snr_db": 10.0, "pesq_wb": None} for head in heads]
        taught = [{**head, "si_snr_db": 10.0 + gain, "pesq_wb": 2.0} for head in heads]
        systems = {"alone": {"items": alone}, "taught": {"items": taught}}
        save_result(f"seed{seed}", {**kept, "systems": systems}, tmp_path)
    config = {"system": "taught", "minus": "alone", "results": {"0": "seed0", "1": "seed1"}}
    save_result("over", {**kept, "config": config, "rows": []}, tmp_path)
    given = ["--speech", corpus["speech"], "--noise", corpus["noise"], "--results-folder", str(tmp_path)]
    return tmp_path, ["experiment", "shared-sources", *given], plans


def test_a_record_over_seeds_and_one_of_a_seed(scored, corpus, monkeypatch):
    folder, command, plans = scored
    assert cli.main([*command, "over", "seed1:taught:alone"]) == 0
    record = json.loads((folder / "shared_sources.json").read_text())
    assert [(row["metric"], row["seeds"], row["mean"], row["n"]) for row in record["rows"]] == [
        ("SI-SNR dB", 2, "+0.600", 8),
        ("SI-SNR dB", 1, "+0.700", 8),
    ]
    assert record["rows"][0]["over_sources"] == "[+0.600, +0.600]" and record["rows"][1]["over_seeds"] == "-"
    assert record["config"]["speakers"] == len({plan.speaker for plan in plans}) and record["config"]["mixtures"] == 8
    monkeypatch.chdir(Path(corpus["speech"]).parent)  # the manifests stand in the command by their names
    assert cli.main([*shlex.split(record["command"])[3:], "--results-folder", str(folder)]) == 0
    assert json.loads((folder / "shared_sources.json").read_text()) == record


@pytest.mark.parametrize(
    "comparison, words",
    [
        ("seed0", "name a result of `experiment over-seeds`, or write RESULT:SYSTEM:MINUS"),
        ("seed0:taught", "or write RESULT:SYSTEM:MINUS"),
        ("seed0:taught:teacher", "seed0: no system 'teacher'"),
        ("rows:taught:alone", "rows: holds no scores of systems"),
        ("moved:taught:alone", "moved: scored on other mixtures than those of"),
    ],
)
def test_what_cannot_be_compared_is_refused(scored, capsys, comparison, words):
    folder, command, _ = scored
    record = json.loads((folder / "seed0.json").read_text())
    record["systems"]["alone"]["items"][3]["snr_db_in"] += 1.0
    (folder / "moved.json").write_text(json.dumps(record))
    save_result("rows", {"config": {}, "seed": 0, "data_hash": "", "rows": []}, folder)
    assert cli.main([*command, comparison]) == 2
    assert words in capsys.readouterr().err and not (folder / "shared_sources.json").exists()


def test_two_noises_of_a_mixture_both_tie_it_to_others():
    """Ten mixtures share one of their two noises, and all of their difference with it."""
    each = np.repeat(np.random.default_rng(0).standard_normal(20), 10)
    voices = [f"s{k}" for k in range(200)]
    shared = [(f"n{k}", f"m{k // 10}") for k in range(200)]
    got = shared_sources.clustered_variance(each.tolist(), [voices, shared])
    assert got == pytest.approx(each[::10].var(ddof=1) / 20, rel=0.06)


@pytest.mark.parametrize("name, comparison", [("over", "over"), ("seed0", "over"), ("seed1", "seed1:taught:alone")])
def test_scores_that_are_read_are_not_written_over(scored, capsys, name, comparison):
    folder, command, _ = scored
    before = (folder / f"{name}.json").read_bytes()
    assert cli.main([*command, comparison, "--name", name]) == 2
    assert f"{name}: one of the results that are compared" in capsys.readouterr().err
    assert (folder / f"{name}.json").read_bytes() == before
