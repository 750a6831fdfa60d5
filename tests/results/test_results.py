"""Results: summaries, atomic records, tables, markers."""

from __future__ import annotations

import json
import re
import subprocess
from pathlib import Path

import pytest

from dccrn_lib.evaluation.intervals import summarise
from dccrn_lib.results.records import load_result, save_result
from dccrn_lib.results.tables import inject_tables, stale_tables, table, with_tables
from dccrn_lib.runtime import environment
from dccrn_lib.runtime.environment import environment_record
from dccrn_lib.runtime.errors import ConfigError
from dccrn_lib.runtime.files import hash_files

BASE = {"config": {"model": "x"}, "seed": 1, "data_hash": "abc"}


def items(*values: float | None) -> list[dict]:
    return [{"file": f"{i}.wav", "pesq_wb": value, "good": True} for i, value in enumerate(values)]


def test_summarise_counts_what_was_scored_and_leaves_out_what_is_no_metric():
    summary = summarise(items(1.0, 2.0, 3.0, None))
    assert summary["n"] == 4
    assert summary["n_metric"] == {"pesq_wb": 3}
    assert summary["mean"] == {"pesq_wb": 2.0}
    low, high = summary["ci95"]["pesq_wb"]
    assert 1.0 <= low < 2.0 < high <= 3.0


def test_summarise_of_nothing_scored():
    summary = summarise(items(None))
    assert summary["mean"] == {"pesq_wb": None}
    assert summary["ci95"] == {"pesq_wb": None}


def test_environment_names_versions_threads_and_commit():
    record = environment_record()
    assert record["versions"]["torch"].startswith("2.")
    assert record["threads"] >= 1
    assert set(record) >= {"git_commit", "platform", "cores", "gpu"}


def test_save_result_adds_environment_and_summary(tmp_path: Path):
    path = save_result("one", {**BASE, "items": items(1.0, 2.0)}, tmp_path)
    record = load_result("one", tmp_path)
    assert path == tmp_path / "one.json"
    assert record["mean"]["pesq_wb"] == 1.5
    assert record["environment"]["versions"]["python"]
    assert [p.name for p in tmp_path.iterdir()] == ["one.json"]


@pytest.mark.parametrize("missing", ["config", "seed", "data_hash"])
def test_save_result_refuses_a_record_without(missing: str, tmp_path: Path):
    payload = {**BASE, "items": items(1.0)}
    del payload[missing]
    with pytest.raises(ConfigError, match=missing):
        save_result("one", payload, tmp_path)


def test_save_result_refuses_nan_and_keeps_the_old_file(tmp_path: Path):
    save_result("one", {**BASE, "items": items(1.0)}, tmp_path)
    with pytest.raises(ConfigError):
        save_result("one", {**BASE, "rows": [{"a": float("nan")}]}, tmp_path)
    with pytest.raises(ConfigError, match="result one"):
        save_result("one", {**BASE, "items": [{"si_snr_db": float("nan")}, {"si_snr_db": 1.0}]}, tmp_path)
    assert load_result("one", tmp_path)["mean"]["pesq_wb"] == 1.0


def test_save_result_needs_something_to_show(tmp_path: Path):
    with pytest.raises(ConfigError, match="items, systems or rows"):
        save_result("one", BASE, tmp_path)


def test_table_of_systems_and_rows(tmp_path: Path):
    systems = {"noisy": {"items": items(1.0, 1.0)}, "ours": {"items": items(2.0, None)}}
    save_result("two", {**BASE, "systems": systems}, tmp_path)
    text = table(load_result("two", tmp_path))
    assert text.splitlines() == [
        "| system | n | WB-PESQ |",
        "| --- | --- | --- |",
        "| noisy | 2 | 1 [1, 1] |",
        "| ours | 2 | 2 (n = 1) |",
    ]
    rows = [{"preset": "a", "parameters": 1126413, "share": 0.30123}, {"preset": "b|c"}]
    assert table({"name": "r", "rows": rows}).splitlines()[2:] == ["| a | 1,126,413 | 0.3012 |", "| b/c | - | - |"]


def test_tables_are_injected_and_a_stale_one_is_found(tmp_path: Path):
    save_result("two", {**BASE, "rows": [{"a": 1}]}, tmp_path)
    readme = tmp_path / "README.md"
    readme.write_text("# T\n<!-- table:two -->\n<!-- /table:two -->\nend\n", encoding="utf-8")
    assert stale_tables(readme, tmp_path) == ["two"]
    assert inject_tables(readme, tmp_path)
    assert "| a |\n| --- |\n| 1 |\n<!-- /table:two -->\nend" in readme.read_text(encoding="utf-8")
    assert stale_tables(readme, tmp_path) == []
    assert not inject_tables(readme, tmp_path)
    record = json.loads((tmp_path / "two.json").read_text())
    (tmp_path / "two.json").write_text(json.dumps({**record, "rows": [{"a": 2}]}))
    assert stale_tables(readme, tmp_path) == ["two"]


@pytest.mark.parametrize("end", ["\n", "\r\n"])
def test_the_lines_of_a_document_keep_their_ends(end: str, tmp_path: Path):
    save_result("two", {**BASE, "rows": [{"a": 1}]}, tmp_path)
    readme = tmp_path / "README.md"
    lines = ["# T", "<!-- table:two -->", "| old |", "<!-- /table:two -->", "end", ""]
    readme.write_bytes(end.join(lines).encode())
    assert stale_tables(readme, tmp_path) == ["two"]
    assert inject_tables(readme, tmp_path)
    lines[2:3] = ["| a |", "| --- |", "| 1 |"]
    assert readme.read_bytes() == end.join(lines).encode()
    assert stale_tables(readme, tmp_path) == [] and not inject_tables(readme, tmp_path)


def test_a_marker_chooses_columns(tmp_path: Path):
    save_result("two", {**BASE, "rows": [{"a": 1, "b": 2, "c": 3}]}, tmp_path)
    readme = tmp_path / "README.md"
    readme.write_text("<!-- table:two columns=c,a -->\n<!-- /table:two -->\n", encoding="utf-8")
    assert inject_tables(readme, tmp_path)
    assert "| c | a |\n| --- | --- |\n| 3 | 1 |\n<!-- /table:two -->" in readme.read_text(encoding="utf-8")
    assert stale_tables(readme, tmp_path) == []


def test_what_a_marker_cannot_have_is_named(tmp_path: Path):
    save_result("pairs", {**BASE, "rows": [{"system": "a", "n": 1}]}, tmp_path)
    (tmp_path / "history.json").write_text('{"train": []}', encoding="utf-8")
    readme = tmp_path / "README.md"
    for marker, problem in (
        ("pairs columns=m", "result pairs has no column m; it has system, n"),
        ("history", "result history holds no table"),
        ("pair", f"no readable result 'pair' in {tmp_path}: there is no pair.json; did you mean pairs?"),
    ):
        readme.write_text(f"# Title\n<!-- table:{marker} -->\n<!-- /table:{marker.split()[0]} -->\n", encoding="utf-8")
        with pytest.raises(ConfigError, match=re.escape(f"README.md: line 2: {problem}")):
            inject_tables(readme, tmp_path)
    readme.write_bytes("gr\u00fc\u00df".encode("latin-1"))
    with pytest.raises(ConfigError, match="is not UTF-8"):
        inject_tables(readme, tmp_path)


@pytest.mark.parametrize(
    ("lines", "number"),
    [
        (["<!-- table:two -->", "| old |"], 1),  # no end
        (["| old |", "<!-- /table:two -->"], 2),  # no beginning
        (["<!-- table:two -->", "| old |", "<!-- /table:tow -->"], 1),
        (["<!-- table:two --> ", "| old |", "<!-- /table:two -->"], 1),  # something behind it
        (["<!-- table: two -->", "| old |", "<!-- /table: two -->"], 1),
        (["<!-- table:two column=a -->", "| old |", "<!-- /table:two -->"], 1),
        (["<!--table:two-->", "| old |", "<!--/table:two-->"], 1),
        (["<!-- table:two -->", "<!-- table:two -->", "<!-- /table:two -->"], 1),
    ],
)
def test_a_marker_without_its_other_half_is_named_with_its_line(lines: list[str], number: int, tmp_path: Path):
    save_result("two", {**BASE, "rows": [{"a": 1}]}, tmp_path)
    readme = tmp_path / "README.md"
    readme.write_text("\n".join(lines) + "\n", encoding="utf-8")
    before = readme.read_bytes()
    with pytest.raises(ConfigError, match=rf"^\S*README.md: line {number}: .* marks no table; write"):
        inject_tables(readme, tmp_path)
    assert readme.read_bytes() == before


def test_a_marker_chooses_the_rows_of_systems(tmp_path: Path):
    rows = [{"system": system, "minus": minus, "n": n} for n, (system, minus) in enumerate(("ba", "ca", "cb"))]
    save_result("pairs", {**BASE, "rows": rows}, tmp_path)
    readme = tmp_path / "README.md"
    readme.write_text("<!-- table:pairs columns=minus,n systems=c -->\n<!-- /table:pairs -->\n", encoding="utf-8")
    assert inject_tables(readme, tmp_path)
    assert "| a | 1 |\n| b | 2 |\n<!--" in readme.read_text(encoding="utf-8") and "| a | 0 |" not in readme.read_text()
    readme.write_text("<!-- table:pairs systems=d -->\n<!-- /table:pairs -->\n", encoding="utf-8")
    with pytest.raises(ConfigError, match="result pairs has no rows of system d"):
        inject_tables(readme, tmp_path)


def test_a_marker_chooses_systems_and_means_alone(tmp_path: Path):
    systems = {name: {"items": items(2.0, 3.0)} for name in "abc"}
    save_result("two", {**BASE, "systems": systems}, tmp_path)
    readme = tmp_path / "README.md"
    readme.write_text("<!-- table:two columns=pesq_wb systems=c,a means -->\n<!-- /table:two -->\n", encoding="utf-8")
    assert inject_tables(readme, tmp_path)
    assert "-->\n| system | WB-PESQ |\n| --- | --- |\n| c | 2.5 |\n| a | 2.5 |\n<!--" in readme.read_text(
        encoding="utf-8"
    )
    readme.write_text("<!-- table:two systems=d -->\n<!-- /table:two -->\n", encoding="utf-8")
    with pytest.raises(ConfigError, match="no system d; it has a, b, c"):
        inject_tables(readme, tmp_path)


def test_rows_without_a_system_are_left_out():
    record = {"name": "speed", "rows": [{"system": "a", "ms": 1}, {"ms": 2}, {"system": "b", "ms": 3}]}
    assert table(record, systems=["b"]).splitlines()[2:] == ["| b | 3 |"]


def test_a_marker_calls_systems_by_words(tmp_path: Path):
    systems = {name: {"items": items(2.0, 3.0)} for name in ("noisy", "student_at_kl")}
    save_result("two", {**BASE, "systems": systems}, tmp_path)
    readme = tmp_path / "README.md"
    readme.write_text("<!-- table:two columns=pesq_wb means names -->\n<!-- /table:two -->\n", encoding="utf-8")
    assert inject_tables(readme, tmp_path)
    assert "| noisy | 2.50 |\n| student taught by AT-KL | 2.50 |\n<!--" in readme.read_text(encoding="utf-8")


def test_a_record_of_evaluate_has_a_table_and_no_object_is_named(tmp_path: Path):
    mean = {"mean": {"stoi": 0.5}, "ci95": {"stoi": [0.4, 0.6]}, "n_metric": {"stoi": 3}, "n": 3}
    (tmp_path / "mine.json").write_text(json.dumps(mean))
    text = with_tables("<!-- table:mine -->\n<!-- /table:mine -->\n", tmp_path)
    assert "| mine | 3 | 0.5" in text
    (tmp_path / "mine.json").write_text("[1]")
    with pytest.raises(ConfigError, match="mine.json: no readable result .expected a JSON object"):
        with_tables("<!-- table:mine -->\n<!-- /table:mine -->\n", tmp_path)


def test_a_marker_without_a_result_names_the_file(tmp_path: Path):
    readme = tmp_path / "README.md"
    readme.write_text("<!-- table:none -->\n<!-- /table:none -->\n", encoding="utf-8")
    with pytest.raises(ConfigError, match="none.json"):
        stale_tables(readme, tmp_path)


def test_hash_depends_on_content_and_order(tmp_path: Path):
    (tmp_path / "a").write_text("1")
    (tmp_path / "b").write_text("2")
    assert hash_files([tmp_path / "a", tmp_path / "b"]) != hash_files([tmp_path / "b", tmp_path / "a"])


def test_for_readers_systems_have_labels_and_columns_equal_decimals():
    text = table(
        load_result("real_test"), ["stoi", "si_snr_db"], ["noisy", "student_alone"], labels={"noisy": "untouched"}
    )
    first, second = text.splitlines()[2:]
    assert first == "| untouched | 120 | 0.831 [0.807, 0.853] | 7.92 [6.62, 9.22] |"
    assert second.startswith("| student_alone | 120 | 0.869 [")


TRAININGS = [
    f"{name}_training"
    for name in ("equal_hours", "equal_hours_seeds", "equal_hours_7h", "equal_hours_7h_seeds", "equal_hours_20h")
]


@pytest.mark.parametrize("name", TRAININGS)
def test_records_of_trainings_hold_the_steps_that_were_made_and_commands_that_run(name: str):
    record = load_result(name)
    for system in (record.get("systems_trained") or record["systems"]).values():
        assert system["config"]["steps"] == system["history"]["valid"][-1]["step"]
    commands = record["command"] if isinstance(record["command"], list) else [record["command"]]
    folders = [match[1] for command in commands if (match := re.search(r"--out[= ](\S+)", command))]
    assert len(set(folders)) == len(folders) == len(commands)  # a finished stage refuses other systems


def test_the_commit_of_a_record_is_the_codes_own(monkeypatch, tmp_path: Path):
    """Not that of a repository in which one stands, or whose folders DCCRN_ROOT names."""
    before = environment._git_commit()
    git = ["git", "-C", str(tmp_path), "-c", "user.name=a", "-c", "user.email=a@b"]
    subprocess.run([*git, "init", "-q"], check=True)
    subprocess.run([*git, "commit", "-q", "--allow-empty", "-m", "theirs"], check=True)
    monkeypatch.setenv("DCCRN_ROOT", str(tmp_path))
    assert environment._git_commit() == before
    (tmp_path / "environment.py").touch()  # an installed copy below it, which it does not track
    monkeypatch.setattr(environment, "__file__", str(tmp_path / "environment.py"))
    assert environment._git_commit() is None
