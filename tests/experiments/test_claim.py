"""The table of who is ahead of whom after how many hours."""

from __future__ import annotations

import json

import pytest

from dccrn_lib.cli import main as cli
from dccrn_lib.results.records import load_result, save_result


def _values(mean, over_seeds, over_sources, both):
    return {"mean": mean, "over_seeds": over_seeds, "over_sources": over_sources, "both": both}


@pytest.fixture
def command(tmp_path):
    head = {"record": "short", "system": "student_at_kl", "minus": "dccrn_e", "seeds": 3, "n": 8}
    one = {"record": "long", "system": "student_at_kl", "minus": "other", "seeds": 1, "n": 8}
    rows = [
        {**head, "metric": "SI-SNR dB", "values": _values(0.2047, [0.1, 0.3], [-0.1, 0.5], [0.0, 0.4])},
        {**head, "metric": "WB-PESQ", "values": _values(0.05, [0.01, 0.09], [0.03, 0.07], [0.02, 0.08])},
        {**head, "metric": "NB-PESQ", "values": _values(0.5, [0.4, 0.6], [0.4, 0.6], [0.4, 0.6])},
        {**one, "metric": "SI-SNR dB", "values": _values(-0.3, None, [-0.4, -0.2], None)},
    ]
    save_result("shared_sources", {"config": {}, "seed": 7, "data_hash": "h", "rows": rows}, tmp_path)
    return ["experiment", "claim", "--results-folder", str(tmp_path)]


def test_the_widest_interval_decides(command, tmp_path):
    assert cli.main([*command, "1.70=short", "30=long"]) == 0
    record = json.loads((tmp_path / "claim.json").read_text())
    assert record["command"] == "python -m dccrn_lib experiment claim 1.70=short 30=long --name=claim"
    assert record["rows"] == [
        {
            "hours each": "1.70",
            "system": "student taught by AT-KL",
            "minus": "DCCRN-E",
            "seeds": 3,
            "SI-SNR dB": "+0.20 [-0.10, +0.50] unclear",
            "WB-PESQ": "+0.050 [+0.010, +0.090] better",
            "DNSMOS OVRL": "-",
        },
        {
            "hours each": "30",
            "system": "student taught by AT-KL",
            "minus": "other",
            "seeds": 1,
            "SI-SNR dB": "-0.30 [-0.40, -0.20] worse (one seed)",
            "WB-PESQ": "-",
            "DNSMOS OVRL": "-",
        },
    ]
    assert (record["seed"], record["data_hash"]) == (7, "h")


@pytest.mark.parametrize(
    "given, words",
    [("short", "write HOURS=RECORD"), ("=short", "write HOURS=RECORD"), ("7=none", "which has short, long")],
)
def test_what_was_not_compared_is_refused(command, tmp_path, capsys, given, words):
    assert cli.main([*command, given]) == 2
    assert words in capsys.readouterr().err and not (tmp_path / "claim.json").exists()


def test_the_committed_table_is_what_the_command_writes(tmp_path):
    kept = load_result("claim")
    save_result("shared_sources", load_result("shared_sources"), tmp_path)
    given = [f"{hours}={record}" for hours, record in kept["config"]["hours"]]
    assert cli.main(["experiment", "claim", "--results-folder", str(tmp_path), *given]) == 0
    assert load_result("claim", tmp_path)["rows"] == kept["rows"]


def test_one_seed_and_three_of_a_pair_are_two_rows(command, tmp_path):
    record = load_result("shared_sources", tmp_path)
    more = {**record["rows"][0], "seeds": 1, "values": _values(0.4, None, [0.3, 0.5], None)}
    save_result(
        "shared_sources", {"config": {}, "seed": 7, "data_hash": "h", "rows": [*record["rows"], more]}, tmp_path
    )
    assert cli.main([*command, "1.70=short"]) == 0
    assert [(r["seeds"], r["SI-SNR dB"], r["WB-PESQ"]) for r in load_result("claim", tmp_path)["rows"]] == [
        (3, "+0.20 [-0.10, +0.50] unclear", "+0.050 [+0.010, +0.090] better"),
        (1, "+0.40 [+0.30, +0.50] better (one seed)", "-"),
    ]


def test_the_result_that_is_read_is_not_written_over(command, tmp_path, capsys):
    before = (tmp_path / "shared_sources.json").read_bytes()
    assert cli.main([*command, "1.70=short", "--name", "shared_sources"]) == 2
    assert "write to another name" in capsys.readouterr().err
    assert (tmp_path / "shared_sources.json").read_bytes() == before
