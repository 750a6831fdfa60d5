"""The notebook runner: strict parameters, honest failures, a report that needs nothing else."""

from __future__ import annotations

import errno
import json
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

pytest.importorskip("papermill", reason="the extra notebooks is not installed")

import nbformat

from dccrn_lib.lessons.running import execution
from dccrn_lib.lessons.running.cleaning import clean_notebook
from dccrn_lib.lessons.running.execution import Job, Schedule
from dccrn_lib.lessons.running.notebooks import describe_parameters, execute_in_place, find_notebooks, run_notebooks
from dccrn_lib.lessons.running.parameters import INTERVALS, assign, parse_cell, read_parameters
from dccrn_lib.lessons.running.report import equation
from dccrn_lib.lessons.running.texts import choices
from dccrn_lib.results.records import load_result
from dccrn_lib.runtime import files
from dccrn_lib.runtime.errors import ConfigError, DccrnError
from dccrn_lib.runtime.settings import Parameter, split_assignments

EMPTY = {"nbformat": 4, "nbformat_minor": 5, "metadata": {}, "cells": []}
CELL = """profile: str = "smoke"  # size of the run
seed: int = 0  # of everything drawn
rate: float = 0.5  # learning rate
plot: bool = True  # draw figures
steps: list[int] = [1, 2]  # sizes to try
methods: list[str] = ["none"]  # what to compare
speech: str = ""  # manifest of clean speech, empty for generated
out: str = ""  # where results go
"""


# ---- reading the cell


def test_parameters_are_read_with_type_default_and_help():
    parameters = {p.name: p for p in parse_cell(CELL)}
    assert parameters["rate"] == Parameter("rate", "float", 0.5, "learning rate")
    assert parameters["steps"].default == [1, 2]
    assert [p.name for p in parameters.values() if p.is_path] == ["speech", "out"]


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("seed = 0  # help", "write it as"),
        ("seed: int  # help", "write it as"),
        ("import os", "write it as"),
        ("seed: int = 1 + 1  # help", "literal"),
        ("seed: int | None = None  # help", "known: int"),
        ("seed: int = 1.5  # help", "is not an int"),
        ("seed: int = True  # help", "is not an int"),
        ("seed: int = 0", "no help"),
        ("seed: int = 0  # a\nseed: int = 1  # b", "twice"),
        ("seed: int = (", "not Python"),
    ],
)
def test_a_careless_parameters_cell_is_refused(line: str, message: str):
    with pytest.raises(ConfigError, match=re.escape(message)):
        parse_cell(line)


# ---- values


@pytest.mark.parametrize(
    ("name", "text", "value"),
    [
        ("seed", "7", 7),
        ("rate", "1e-3", 0.001),
        ("rate", "2", 2.0),
        ("plot", "false", False),
        ("plot", "True", True),
        ("steps", "3, 4", [3, 4]),
        ("steps", "[3]", [3]),
        ("steps", "", []),
        ("methods", "none,at_kl", ["none", "at_kl"]),
        ("profile", "5", "5"),
        ("plot", False, False),
        ("steps", [5], [5]),
    ],
)
def test_values_get_their_type(name: str, text: object, value: object):
    parameter = {p.name: p for p in parse_cell(CELL)}[name]
    parsed = parameter.parse(text)
    assert parsed == value
    assert type(parsed) is type(value)


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("seed", "1.5"),
        ("seed", "1e3"),
        ("seed", True),
        ("seed", 1.0),
        ("rate", "fast"),
        ("rate", "nan"),
        ("plot", "no"),
        ("plot", "1"),
        ("plot", 1),
        ("steps", "a,b"),
        ("steps", [1.5]),
        ("methods", "[1, 2]"),
        ("profile", 5),
    ],
)
def test_values_of_the_wrong_type_are_refused(name: str, value: object):
    parameter = {p.name: p for p in parse_cell(CELL)}[name]
    with pytest.raises(ConfigError, match=name):
        parameter.parse(value)


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("seed", "-1"), ("seed", str(2**32)), ("sweep_seeds", "0,-1"), ("sweep_seeds", ""), ("training_steps", "0"),
        ("descent_steps", "-3"), ("train_steps", "-1"), ("mixtures", "0"), ("trials", str(10**10)), ("frame", "-1"),
        ("output_weight", "1.5"), ("device_tflops", "0"), ("watts", "-1"), ("wanted", "0"), ("snr_db", "1e4"),
    ],
)  # fmt: skip
def test_a_number_out_of_range_is_refused_with_its_notebook_and_name(name: str, text: str):
    kind = {"sweep_seeds": "list[int]", "output_weight": "float", "device_tflops": "float", "watts": "float"}.get(
        name, "float" if name in ("wanted", "snr_db") else "int"
    )
    known = {"01_a": [], "02_b": [Parameter(name, kind, None, "")]}
    with pytest.raises(ConfigError, match=f"^parameter {name} of 02_b must [^\n]*, got [^\n]*$"):
        assign({name: text}, known, Path("."))
    with pytest.raises(ConfigError, match=f"^parameter {name}: 'nan' is not .*; give"):
        assign({name: "nan"}, known, Path("."))


def test_every_number_of_the_lessons_has_an_interval_that_holds_its_default():
    for path in find_notebooks():
        parameters = read_parameters(path)
        numbers = {p.name: p.default for p in parameters if p.type in ("int", "float", "list[int]")}
        assert numbers.keys() <= INTERVALS.keys(), path.name
        assert assign(numbers, {path.stem: parameters}, Path("."))[path.stem] == numbers


TEXTS = [
    ("00_start_here", "clip", "fan_5db", "did you mean fan_5db_en"),
    ("05_distillation", "method", "atkl", "did you mean at_kl"),
    ("05_distillation", "method", "none", "known: output"),
    ("05_distillation", "method", "", "known: output"),
    ("05_distillation", "reading", "time", "known: frequency"),
    ("05_distillation", "normalisation", "soft", "did you mean softmax"),
    ("05_distillation", "sweep_methods", "none,at_lk", "did you mean at_kl"),
    ("05_distillation", "sweep_methods", "", "is empty"),
    ("05_distillation", "sweep_profile", "quik", "did you mean quick"),
    ("05_distillation", "sweep_share", "2/2", "0 <= I < N"),
    ("05_distillation", "sweep_share", "1", "0 <= I < N"),
    ("05_distillation", "device", "gpu", "give cpu, cuda"),
    ("05_distillation", "speech", "absent.jsonl", "absent.jsonl' is no file"),
    ("05b_full_size_on_a_gpu", "device", "cuda:x", "give cpu, cuda"),
    ("03_uformer", "noisy_file", ".", "is no file"),
    ("03_uformer", "systems_folder", "absent", "absent' is no folder"),
    ("07_streaming_and_export", "own_file", "absent.wav", "absent.wav' is no file"),
    ("07_streaming_and_export", "own_file", f"{'a' * 100}/b.wav", f"{'a' * 100}/b.wav' is no file"),
    ("07_streaming_and_export", "own_file", "a" * 5000, "a' is no file"),
]


@pytest.mark.parametrize(("lesson", "name", "text", "message"), TEXTS)
def test_a_text_that_a_lesson_cannot_take_is_refused_before_it_runs(
    lesson: str, name: str, text: str, message: str, tmp_path: Path
):
    known = {path.stem: read_parameters(path) for path in find_notebooks([lesson])}
    with pytest.raises(ConfigError, match=f"^parameter {name} of {lesson}[^\n]*{re.escape(message)}[^\n]*$"):
        assign({name: text}, known, tmp_path)


def test_every_choice_and_every_default_of_the_lessons_is_taken(tmp_path: Path):
    for path in find_notebooks():
        parameters = read_parameters(path)
        defaults = {p.name: p.default for p in parameters}
        assert assign(defaults, {path.stem: parameters}, tmp_path)[path.stem] == defaults
        for parameter in parameters:
            for text in choices(parameter.name):
                assign({parameter.name: text}, {path.stem: parameters}, tmp_path)
            for text in ("cpu", "cuda", "cuda:1", "auto") if parameter.name == "device" else ():
                assign({parameter.name: text}, {path.stem: parameters}, tmp_path)


def test_a_notebook_of_ones_own_may_use_a_name_for_something_else(tmp_path: Path):
    known = {"09_mine": parse_cell('method: str = "bisection"  # of the search\nclip: float = 1.0  # of gradients')}
    assert assign({"method": "newton", "clip": "2"}, known, tmp_path) == {"09_mine": {"method": "newton", "clip": 2.0}}


def test_relative_paths_are_taken_from_the_callers_folder(tmp_path: Path):
    known = {"05_x": parse_cell(CELL)}
    (tmp_path / "a").mkdir()
    (tmp_path / "a" / "speech.jsonl").touch()
    values = assign({"speech": "a/speech.jsonl", "profile": "a/b"}, known, tmp_path)["05_x"]
    assert values == {"speech": str((tmp_path / "a/speech.jsonl").resolve()), "profile": "a/b"}
    assert assign({"speech": ""}, known, tmp_path)["05_x"] == {"speech": ""}
    with pytest.raises(ConfigError, match="~nobody-of-this-name/x.jsonl' is no file"):
        assign({"speech": "~nobody-of-this-name/x.jsonl"}, known, tmp_path)


@pytest.mark.parametrize("name", ["model_name", "extra"])
def test_weights_are_found_from_the_callers_folder_or_refused(name: str, tmp_path: Path):
    known = {"00_x": parse_cell(f'{name}: str = ""  # weights: a shipped name, or a path')}
    (tmp_path / "mine").mkdir()
    file = tmp_path / "mine" / "best.safetensors"
    file.write_bytes(b"")
    for given, value in (("mine/best.safetensors", str(file.resolve())), ("mine", str(file.resolve())), ("", "")):
        assert assign({name: given}, known, tmp_path)["00_x"] == {name: value}
    assert assign({name: "distil_dccrn"}, known, tmp_path)["00_x"] == {name: "distil_dccrn"}
    for absent in ("yours/best.safetensors", "distil_dcrn", "a" * 5000, "~nobody-of-this-name/best"):
        with pytest.raises(ConfigError, match=f"parameter {name}: no weights"):
            assign({name: absent}, known, tmp_path)


def test_no_notebook_at_all_is_no_choice(write_notebook: Callable[..., Path]):
    folder = write_notebook("01_a", None, "1")
    with pytest.raises(ConfigError, match="no notebook is named"):
        find_notebooks([], folder)


def test_an_unknown_name_is_refused_with_the_nearest_and_who_has_it():
    known = {"04_x": [], "05_x": parse_cell(CELL)}
    with pytest.raises(ConfigError, match=r"'sed'.*seed.*in 05_x"):
        assign({"sed": "1"}, known, Path("."))
    assert assign({"seed": "1"}, known, Path(".")) == {"04_x": {}, "05_x": {"seed": 1}}


@pytest.mark.parametrize("texts", [["seed"], ["=1"], ["seed=1", "seed=2"], ["\n=1"], ["a\nb=1", "a\nb=2"]])
def test_assignments_must_be_name_equals_value_once(texts: list[str]):
    with pytest.raises(ConfigError, match=r"^[^\n]*$"):  # in one line, whatever the text holds
        split_assignments(texts)


def test_assignments_keep_later_equals_signs():
    assert split_assignments(["speech=a=b.jsonl", "flag="]) == {"speech": "a=b.jsonl", "flag": ""}


# ---- choosing notebooks


def test_notebooks_are_chosen_by_number_or_name(write_notebook: Callable[..., Path]):
    for name in ("00_a", "05_b", "05b_d", "06_c"):
        folder = write_notebook(name, None)
    assert [p.stem for p in find_notebooks(None, folder)] == ["00_a", "05_b", "05b_d", "06_c"]
    assert [p.stem for p in find_notebooks(["6", "05_b"], folder)] == ["05_b", "06_c"]
    for number, stem in (("5", "05_b"), ("05", "05_b"), ("05b", "05b_d"), ("5b", "05b_d")):
        assert [p.stem for p in find_notebooks([number], folder)] == [stem]
    with pytest.raises(ConfigError, match="05_b"):
        find_notebooks(["05_bb"], folder)
    with pytest.raises(ConfigError, match="no notebooks there"):
        find_notebooks(None, folder / "none")


def test_parameters_are_listed_with_help(write_notebook: Callable[..., Path]):
    text = describe_parameters(None, write_notebook("05_b", CELL))
    assert "05_b" in text and "rate: float" in text and "learning rate" in text


# ---- running


@pytest.fixture
def three_lessons(write_notebook: Callable[..., Path]) -> Path:
    """A good lesson with picture and sound, one that fails, one that needs it, one that does not."""
    write_notebook(
        "01_good",
        CELL,
        "import os, sys, dccrn_lib\nprint(profile, seed, plot, os.path.basename(os.getcwd()), sys.executable)",
        "import base64\nfrom IPython.display import Image, display\n"
        "display(Image(base64.b64decode('iVBORw0KGgo='), format='png'))",
        "from IPython.display import Audio\nAudio([0.0] * 800, rate=8000, normalize=False)",
    )
    write_notebook("02_broken", CELL, "x = 1", "raise ValueError('no\\nbread')", "print('never')")
    write_notebook("03_needs", None, "print('never')", needs=["02_broken"])
    return write_notebook("04_alone", None, "print('alone')")


def printed(path: Path) -> str:
    notebook = nbformat.read(path, as_version=4)
    return "".join(o.get("text", "") for c in notebook.cells if c.cell_type == "code" for o in c.outputs)


@pytest.mark.parametrize("jobs", [1, 2])
def test_a_run_keeps_going_and_tells_what_failed(
    three_lessons: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, jobs: int
):
    # a kernel of the same name that would fail, as a user may have installed it
    fake = tmp_path / "jupyter" / "kernels" / "python3"
    fake.mkdir(parents=True)
    spec = {"argv": ["/nonexistent/python"], "display_name": "Python 3", "language": "python"}
    (fake / "kernel.json").write_text(json.dumps(spec))
    monkeypatch.setenv("JUPYTER_PATH", str(tmp_path / "jupyter"))
    monkeypatch.setenv("JUPYTER_PREFER_ENV_PATH", "0")
    environment = dict(os.environ)

    out = tmp_path / "out"
    report = run_notebooks(
        "smoke",
        out=out,
        parameters={"seed": "3", "plot": "false"},
        notebooks_dir=three_lessons,
        progress=False,
        jobs=jobs,
    )

    assert [(r.name, r.status) for r in report.notebooks] == [
        ("01_good", "ok"),
        ("02_broken", "failed"),
        ("03_needs", "skipped"),
        ("04_alone", "ok"),
    ]
    assert not report.ok
    assert report.errors[0] == "02_broken: cell 4: ValueError: no bread"
    assert "02_broken" in report.errors[1]
    assert dict(os.environ) == environment
    # the values arrived with their types, in the notebooks' folder, under this interpreter
    assert printed(out / "01_good.ipynb") == f"smoke 3 False notebooks {sys.executable}\n"
    # what a failing notebook had done is kept
    partial = nbformat.read(out / "02_broken.ipynb", as_version=4)
    assert any(o.output_type == "error" for c in partial.cells for o in c.get("outputs", []))
    assert not (out / "03_needs.ipynb").exists()

    record = json.loads((out / "run.json").read_text())
    assert record["ok"] is False and record["profile"] == "smoke"
    assert record["notebooks"][0]["parameters"] == {
        "profile": "smoke",
        "out": str(out.resolve()),
        "seed": 3,
        "plot": False,
    }
    assert record["environment"]["versions"]["torch"]

    html = (out / "report.html").read_text()
    assert '<meta name="viewport"' in html
    assert "data:image/png;base64," in html and "<audio" in html and "<math" in html
    assert "ValueError" in html and 'href="#04_alone"' in html
    assert not re.search(r"""<script|(?:src|href)=["']https?:|url\(\s*["']?https?:|@import""", html)


def test_two_lessons_run_side_by_side_and_a_needed_one_comes_first(write_notebook: Callable[..., Path], tmp_path: Path):
    # each waits for the other's file: one after the other, neither would end
    meet = "import pathlib, time\nwhile not pathlib.Path({other!r}).exists(): time.sleep(0.05)"
    for name, other in (("01_a", "b"), ("02_b", "a")):
        mine = str(tmp_path / name[-1])
        folder = write_notebook(name, None, f"open({mine!r}, 'w').close()\n" + meet.format(other=str(tmp_path / other)))
    report = run_notebooks("smoke", out=tmp_path / "o", notebooks_dir=folder, progress=False, jobs=2, timeout=60)
    assert report.ok, report.errors
    # run.json was written a little before the run ended, and rounds to 0.1 s
    assert json.loads((tmp_path / "o" / "run.json").read_text())["seconds"] <= report.seconds + 0.1
    times = load_result("tutorial_times", tmp_path / "o" / "results")["rows"]
    assert [row["notebook"] for row in times] == ["01_a", "02_b", "all, side by side"]
    assert times[-1]["seconds"] == round(report.seconds)


def a_plan(needs: dict[str, list[str]], folder: Path) -> dict[str, Job]:
    for name, names in needs.items():
        (folder / f"{name}.ipynb").write_text(json.dumps({**EMPTY, "metadata": {"dccrn": {"needs": names}}}))
    return {name: Job(folder / f"{name}.ipynb", folder / "out" / name, {}, None) for name in needs}


def test_the_order_is_needed_ones_first_then_by_number(tmp_path: Path):
    plan = a_plan({"01": [], "02": ["03", "99"], "03": [], "04": ["02"]}, tmp_path)  # 99 is not in this run
    heard = []
    schedule = Schedule(plan, lambda runs: heard.append([run.name for run in runs]))
    first, second = schedule.next_job(), schedule.next_job()
    assert (first.name, first.low_priority) == ("03", False) and (second.name, second.low_priority) == ("01", True)
    assert schedule.next_job() is None  # 02 waits for 03
    schedule.record(first.result("ok"))
    assert schedule.next_job().name == "02"
    schedule.record(plan["02"].result("failed"))
    assert schedule.next_job() is None and schedule.results["04"].error == "skipped, because it needs 02"
    schedule.record(second.result("ok"))
    assert heard[-1] == ["01", "02", "03", "04"]


def test_notebooks_that_need_each_other_are_named_before_anything_runs(tmp_path: Path):
    with pytest.raises(DccrnError, match="02, 03 need each other"):
        Schedule(a_plan({"01": [], "02": ["03"], "03": ["02"]}, tmp_path), print)


def test_jobs_must_be_positive(three_lessons: Path, tmp_path: Path):
    with pytest.raises(ConfigError, match="jobs"):
        run_notebooks("smoke", out=tmp_path / "o", notebooks_dir=three_lessons, jobs=0)
    assert not (tmp_path / "o").exists()


def test_the_lessons_themselves_are_no_place_for_a_run(three_lessons: Path):
    before = {path: path.read_bytes() for path in three_lessons.iterdir()}
    with pytest.raises(ConfigError, match="holds the notebooks themselves; choose another --out"):
        run_notebooks("smoke", out=three_lessons, notebooks_dir=three_lessons)
    assert {path: path.read_bytes() for path in three_lessons.iterdir()} == before


def test_nothing_runs_when_a_parameter_is_wrong(three_lessons: Path, tmp_path: Path):
    for parameters in ({"sead": "1"}, {"seed": "one"}, {"seed": "-1"}):
        with pytest.raises(ConfigError):
            run_notebooks("smoke", out=tmp_path / "out", parameters=parameters, notebooks_dir=three_lessons)
    with pytest.raises(ConfigError, match="quick"):
        run_notebooks("quik", out=tmp_path / "out", notebooks_dir=three_lessons)
    assert not (tmp_path / "out").exists()


def test_a_cell_that_takes_too_long_fails(write_notebook: Callable[..., Path], tmp_path: Path):
    folder = write_notebook("01_slow", None, "import time; time.sleep(60)")
    report = run_notebooks("smoke", out=tmp_path / "o", timeout=1, notebooks_dir=folder, progress=False)
    assert "CellTimeoutError" in report.errors[0]
    assert report.notebooks[0].seconds < 50


def test_relative_folders_of_the_environment_are_those_of_the_caller(
    write_notebook: Callable[..., Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("DCCRN_GENERATED", "corpora")
    wanted = str(tmp_path / "corpora")
    cell = f"from dccrn_lib.runtime.paths import generated_dir\nassert str(generated_dir()) == {wanted!r}"
    report = run_notebooks(
        "smoke", out=tmp_path / "o", notebooks_dir=write_notebook("01_a", None, cell), progress=False
    )
    assert report.errors == []


@pytest.mark.parametrize("in_place", [False, True])
def test_no_start_up_file_of_the_user_changes_a_lesson_and_the_home_folder_stays_as_it_was(
    in_place: bool, write_notebook: Callable[..., Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    startup = tmp_path / "home" / ".ipython" / "profile_default" / "startup" / "00-mine.py"
    startup.parent.mkdir(parents=True)
    startup.write_text("print = lambda *words: None\nmine = 1\n")
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    monkeypatch.delenv("IPYTHONDIR", raising=False)
    monkeypatch.setenv("PYTHONSTARTUP", str(startup))
    folder = write_notebook("01_a", None, "assert 'mine' not in globals()")
    if in_place:
        report = execute_in_place(None, notebooks_dir=folder, progress=False)
    else:
        report = run_notebooks("smoke", out=tmp_path / "o", notebooks_dir=folder, progress=False)
    assert report.errors == []
    assert [path for path in (tmp_path / "home").rglob("*") if path.is_file()] == [startup]


# ---- executing in place and cleaning


def test_in_place_keeps_outputs_and_nothing_of_this_machine(write_notebook: Callable[..., Path]):
    folder = write_notebook("01_a", CELL, "import sys; print(seed); print('note', file=sys.stderr)", "1 + 1")
    assert execute_in_place(None, notebooks_dir=folder, progress=False).ok
    notebook = nbformat.read(folder / "01_a.ipynb", as_version=4)
    code = [cell for cell in notebook.cells if cell.cell_type == "code"]
    assert [cell.execution_count for cell in code] == [1, 2, 3]
    assert [o.output_type for cell in code for o in cell.outputs] == ["stream", "execute_result"]
    assert [dict(cell.metadata) for cell in code] == [{"tags": ["parameters"]}, {}, {}]
    assert set(notebook.metadata) == {"kernelspec", "language_info"}


@pytest.mark.parametrize("source", ["print('/home' + '/someone/x')", "print(object())"])
def test_in_place_refuses_a_machine_path_or_address(source: str, write_notebook: Callable[..., Path]):
    folder = write_notebook("01_a", None, source)
    before = (folder / "01_a.ipynb").read_bytes()
    report = execute_in_place(None, notebooks_dir=folder, progress=False)
    assert "differs between machines" in report.errors[0]
    assert (folder / "01_a.ipynb").read_bytes() == before


def test_in_place_leaves_a_failing_notebook_as_it_was(write_notebook: Callable[..., Path]):
    folder = write_notebook("01_a", None, "1 / 0")
    before = (folder / "01_a.ipynb").read_bytes()
    report = execute_in_place(["01"], notebooks_dir=folder, progress=False)
    assert report.errors == ["01_a: cell 1: ZeroDivisionError: division by zero"]
    assert (folder / "01_a.ipynb").read_bytes() == before


def test_cleaning_refuses_what_the_format_does_not_know_and_leaves_the_file(write_notebook: Callable[..., Path]):
    path = write_notebook("01_a", None, "1 + 1") / "01_a.ipynb"
    path.write_text(json.dumps({**json.loads(path.read_text()), "mine": {}}))
    before = path.read_bytes()
    with pytest.raises(
        DccrnError, match=r"^01_a\.ipynb: Additional properties .*'mine'.*; take out what is not of the format$"
    ):
        clean_notebook(path)
    assert path.read_bytes() == before


def test_cleaning_makes_project_paths_relative(write_notebook: Callable[..., Path], root: Path):
    path = write_notebook("01_a", None, "x") / "01_a.ipynb"
    notebook = nbformat.read(path, as_version=4)
    text = f"{root.resolve()}/weights/a.json\n"
    notebook.cells[1].outputs = [nbformat.v4.new_output("stream", name="stdout", text=text)]
    nbformat.write(notebook, path)
    clean_notebook(path)
    assert printed(path) == "weights/a.json\n"
    notebook.cells[1].outputs[0].text = "/home" + "/someone/file"
    nbformat.write(notebook, path)
    with pytest.raises(DccrnError, match="cell 1"):
        clean_notebook(path)


# ---- the report's equations


def test_equations_become_mathml_and_a_bad_one_stays_readable():
    assert equation(r"\frac{a}{b}", block=True).startswith("<math")
    assert equation("x_1_2", block=False) == '<code class="tex">x_1_2</code>'


# ---- what ends a run


_TICKING = """
import os, pathlib, time
folder = pathlib.Path({folder!r})
while True:
    (folder / f"kernel{{os.getpid()}}").touch()
    (folder / f"keeper{{os.getppid()}}").touch()
    time.sleep(0.1)
"""

_RUN = """
import sys
if __name__ == "__main__":
    from dccrn_lib.lessons.running import notebooks
    from dccrn_lib.runtime.interrupts import tidy_ending
    with tidy_ending():
        notebooks.run_notebooks("smoke", out=sys.argv[1], notebooks_dir=sys.argv[2], jobs=int(sys.argv[3]), progress=False)
"""


def _runs(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except FileNotFoundError:
        return False


def _until(true: Callable[[], bool], seconds: float) -> bool:
    end = time.monotonic() + seconds
    while not true() and time.monotonic() < end:
        time.sleep(0.05)
    return true()


@pytest.mark.skipif(not Path("/proc/self/stat").exists(), reason="looks at processes as Linux shows them")
@pytest.mark.parametrize(
    ("number", "jobs"), [(signal.SIGKILL, 2), (signal.SIGTERM, 2), (signal.SIGTERM, 1), (signal.SIGINT, 2)]
)
def test_kernels_end_with_the_run_and_the_notebooks_of_an_earlier_one_stay(
    write_notebook: Callable[..., Path], tmp_path: Path, number: signal.Signals, jobs: int
):
    (tmp_path / "seen").mkdir()
    for name in ("01_a", "02_b"):
        folder = write_notebook(name, None, _TICKING.format(folder=str(tmp_path / "seen")))
    out = tmp_path / "out"
    out.mkdir()
    (out / "01_a.ipynb").write_text("earlier")
    (tmp_path / "run.py").write_text(_RUN)
    command = [sys.executable, str(tmp_path / "run.py"), str(out), str(folder), str(jobs)]
    (tmp_path / "temporary").mkdir()
    with open(tmp_path / "said", "w") as said:
        environment = {**os.environ, "TMPDIR": str(tmp_path / "temporary")}
        process = subprocess.Popen(command, stderr=said, cwd=tmp_path, env=environment, start_new_session=True)
    try:
        assert _until(lambda: len(list((tmp_path / "seen").glob("keeper*"))) == jobs, 400)
        pids = [int(re.sub(r"\D", "", path.name)) for path in (tmp_path / "seen").iterdir()]
        assert len(pids) == 2 * jobs and all(map(_runs, pids))
        if number == signal.SIGINT:  # Ctrl-C is heard by all that the terminal started
            os.killpg(process.pid, number)
        else:
            process.send_signal(number)
        process.wait(240)  # seconds on an idle machine: the limits are for one that does other work
    finally:
        process.kill()
    assert _until(lambda: not any(map(_runs, pids)), 120)
    assert (out / "01_a.ipynb").read_text() == "earlier" and not (out / "02_b.ipynb").exists()
    files.remove_stale(out)
    assert [path.name for path in out.iterdir()] == ["01_a.ipynb"]
    if number != signal.SIGKILL:
        assert list((tmp_path / "temporary").glob("dccrn-*")) == []
        assert (tmp_path / "said").read_text().count("Traceback") <= 1  # that of this script, not of its kernels


def test_a_kernel_that_cannot_start_says_why(
    write_notebook: Callable[..., Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    (tmp_path / "bad").mkdir()
    (tmp_path / "bad" / "ipykernel_launcher.py").write_text("raise ImportError('no kernel of that kind')")
    folder = write_notebook("01_a", None, "1")
    monkeypatch.setattr(execution, "__file__", str(tmp_path / "bad/a/b/c/d.py"))  # bad/ comes first on its path
    monkeypatch.setattr(execution.ThisInterpreter, "shared_folder", str(tmp_path))
    run = execution._execute(Job(folder / "01_a.ipynb", tmp_path / "o.ipynb", {}, None), lambda **_: None)
    assert run.status == "failed" and run.error.endswith("(ImportError: no kernel of that kind)")


def test_a_full_disk_keeps_the_notebook_of_an_earlier_run(
    write_notebook: Callable[..., Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    def full(source, target, **_):
        Path(target).write_text("half")
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr("papermill.execute_notebook", full)
    source = write_notebook("01_a", None, "1") / "01_a.ipynb"
    target = tmp_path / "01_a.ipynb"
    target.write_text("earlier")
    run = execution._execute(Job(source, target, {}, None), lambda **_: None)
    assert (run.status, run.error, run.written) == ("failed", f"{target}: No space left on device", False)
    assert target.read_text() == "earlier" and not list(tmp_path.glob(".*"))


def test_a_name_with_braces_is_a_name(write_notebook: Callable[..., Path], tmp_path: Path):
    source = write_notebook("01_{a}", CELL, "print(seed)") / "01_{a}.ipynb"
    target = tmp_path / "r{x}" / "01_{a}.ipynb"
    run = execution._execute(Job(source, target, {"seed": 3}, None), lambda **_: None)
    assert run.status == "ok", run.error
    assert printed(target) == "3\n"
    assert nbformat.read(target, as_version=4).metadata.papermill.output_path == str(target)


def test_in_place_leaves_what_was_saved_meanwhile(write_notebook: Callable[..., Path]):
    """A reader saves the lesson in JupyterLab while it runs: what is typed in there is not replaced by what was read."""
    folder = write_notebook("01_a", None, "")
    path = folder / "01_a.ipynb"
    notebook = nbformat.read(path, as_version=4)
    save = (
        f"import pathlib\np = pathlib.Path({str(path)!r})\np.write_text(p.read_text().replace('ANS' + 'WER', 'mine'))"
    )
    notebook.cells = [nbformat.v4.new_code_cell(save), nbformat.v4.new_markdown_cell("ANSWER")]
    nbformat.write(notebook, path)
    report = execute_in_place(None, notebooks_dir=folder, progress=False)
    assert report.errors == [
        "01_a: DccrnError: 01_a.ipynb was saved while it ran, and stays as it was saved; run it again"
    ]
    assert nbformat.read(path, as_version=4).cells[1].source == "mine"


def test_a_readers_own_notebook_is_not_replaced_by_a_run(write_notebook: Callable[..., Path], tmp_path: Path):
    folder = write_notebook("01_a", None, "1")
    out = tmp_path / "study"
    out.mkdir()
    (out / "01_a.ipynb").write_bytes((folder / "01_a.ipynb").read_bytes())
    before = (out / "01_a.ipynb").read_bytes()
    with pytest.raises(ConfigError, match="01_a.ipynb is a notebook that no run left there; move it away"):
        run_notebooks("smoke", out=out, notebooks_dir=folder, progress=False)
    assert (out / "01_a.ipynb").read_bytes() == before and len(list(out.iterdir())) == 1


def test_a_duplicate_of_jupyterlab_runs_where_it_is_named(write_notebook: Callable[..., Path]):
    for name in ("05_a", "05_a-Copy1", "06_b", "Untitled1"):
        folder = write_notebook(name, None)
    assert [p.stem for p in find_notebooks(["5"], folder)] == ["05_a"]
    assert [p.stem for p in find_notebooks(None, folder)] == ["05_a", "06_b"]
    assert [p.stem for p in find_notebooks(["05_a-Copy1", "Untitled1"], folder)] == ["05_a-Copy1", "Untitled1"]
