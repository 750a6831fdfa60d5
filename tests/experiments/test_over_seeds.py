"""Two systems over several seeds: each seed by its mixtures, their mean by the seeds."""

from __future__ import annotations

import json
import shlex

import pytest

from dccrn_lib.cli import main as cli
from dccrn_lib.evaluation.intervals import t_interval
from dccrn_lib.results.records import save_result


def scores(folder, name, gains, ids="abcd", base=10.0):
    """A result in which the taught system is ahead by one gain for each mixture."""

    def items(more):
        return [
            {"id": i, "si_snr_db": base + k + g, "pesq_wb": None, "stoi": 0.5 + g / 10}
            for k, (i, g) in enumerate(zip(ids, more, strict=True))
        ]

    systems = {"alone": {"items": items([0.0] * 4)}, "taught": {"items": items(gains)}}
    save_result(name, {"config": {}, "seed": 0, "data_hash": "x", "systems": systems}, folder)


def run(folder, *results, system="taught"):
    given = ["--system", system, "--minus", "alone", "--name", "over", "--results-folder", str(folder)]
    return cli.main(["experiment", "over-seeds", *results, *given])


def test_the_mean_is_over_seeds_and_each_seed_over_its_mixtures(tmp_path):
    scores(tmp_path, "a", [0.4, 0.5, 0.6, 0.5])
    scores(tmp_path, "b", [0.1, 0.2, 0.3, 0.2], base=11.0)
    scores(tmp_path, "c", [-0.1, 0.0, 0.1, 0.0])
    assert run(tmp_path, "2=c", "0=a", "1=b") == 0
    record = json.loads((tmp_path / "over.json").read_text())
    assert record["columns"] == ["seed", "stoi", "si_snr_db"]  # no PESQ was scored
    assert [row["seed"] for row in record["rows"]] == ["0", "1", "2", "mean of 3"]
    assert record["rows"][0]["si_snr_db"].startswith("+0.5 [+0.4") and "better" in record["rows"][0]["si_snr_db"]
    low, high = t_interval([0.5, 0.2, 0.0])
    text = f"+0.233 [{low:+.3g}, {high:+.3g}] not distinguishable"
    assert record["rows"][3]["si_snr_db"] == text
    assert record["rows"][1]["si_snr_db of both"] == pytest.approx([12.7, 12.5])
    assert cli.main([*shlex.split(record["command"])[3:], "--results-folder", str(tmp_path)]) == 0
    assert json.loads((tmp_path / "over.json").read_text()) == record  # its own command makes it again


def test_a_mixture_that_one_of_both_has_no_score_of_counts_for_neither(tmp_path):
    for name in ("a", "b"):
        scores(tmp_path, name, [1.0, 1.0, 1.0, 1.0])
        record = json.loads((tmp_path / f"{name}.json").read_text())
        record["systems"]["taught"]["items"][3]["si_snr_db"] = None
        (tmp_path / f"{name}.json").write_text(json.dumps(record))
    assert run(tmp_path, "0=a", "1=b") == 0
    rows = json.loads((tmp_path / "over.json").read_text())["rows"]
    assert all(row["si_snr_db"].startswith("+1 [+1, +1]") for row in rows[:2])
    assert rows[2]["si_snr_db of both"] == pytest.approx([12.0, 11.0])
    assert rows[2]["si_snr_db"].startswith("+1 ")


@pytest.mark.parametrize("change", ["corpus", "mixing"])
def test_the_same_names_of_mixtures_from_another_corpus_are_refused(tmp_path, capsys, change):
    for name in ("a", "b"):
        scores(tmp_path, name, [0.4, 0.5, 0.6, 0.5])
    record = json.loads((tmp_path / "b.json").read_text())
    if change == "corpus":
        record["data_hash"] = "y"
    else:
        record["systems"]["alone"]["items"][0]["snr_db_in"] = 3.0
    (tmp_path / "b.json").write_text(json.dumps(record))
    assert run(tmp_path, "0=a", "1=b") == 2
    assert "b was scored on other mixtures than a" in capsys.readouterr().err


@pytest.mark.parametrize(
    "results, system, words",
    [
        (["0=a"], "taught", "at least two"),
        (["0=a", "1=other"], "taught", "other mixtures"),
        (["0=a", "1=b"], "teacher", "no system 'teacher'"),
        (["x=a", "1=b"], "taught", "whole number"),
        (["0=a", "1=nowhere"], "taught", "no readable result"),
        (["0=a", "1=a"], "taught", "a: given for more than one seed"),
        (["0=a", "0=b"], "taught", "seed 0 is given twice"),
        (["0=a", "1=empty"], "taught", "empty: holds no scores"),
        (["0=a", "1=over"], "taught", "over: one of the results that are compared"),
    ],
)
def test_what_cannot_be_compared_is_refused(tmp_path, capsys, results, system, words):
    scores(tmp_path, "a", [0.4, 0.5, 0.6, 0.5])
    scores(tmp_path, "b", [0.1, 0.2, 0.3, 0.2])
    scores(tmp_path, "other", [0.1, 0.2, 0.3, 0.2], ids="abcx")
    save_result("empty", {"config": {}, "seed": 0, "data_hash": "x", "rows": []}, tmp_path)
    assert run(tmp_path, *results, system=system) in (1, 2)
    assert words in capsys.readouterr().err and not (tmp_path / "over.json").exists()


def test_the_same_weights_are_no_second_seed(tmp_path, capsys):
    """A copied command that still names the weights of the first seed makes an interval of no width."""
    for name in ("a", "b"):
        scores(tmp_path, name, [0.4, 0.5, 0.6, 0.5])
        record = json.loads((tmp_path / f"{name}.json").read_text())
        record["config"] = {"models": {"alone": "0", "taught": "1"}}
        (tmp_path / f"{name}.json").write_text(json.dumps(record))
    assert run(tmp_path, "0=a", "1=b") == 2
    assert "b: scores of the same weights as a" in capsys.readouterr().err
    record["config"]["models"]["taught"] = "2"  # another training beside the same baseline
    (tmp_path / "b.json").write_text(json.dumps(record))
    assert run(tmp_path, "0=a", "1=b") == 0
