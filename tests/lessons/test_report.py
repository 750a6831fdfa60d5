"""What the HTML report makes of single outputs; the whole of it is looked at in tests/browser."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

nbformat = pytest.importorskip("nbformat", reason="the extra notebooks is not installed")
pytest.importorskip("nbconvert", reason="the extra notebooks is not installed")

from dccrn_lib.lessons.lesson import outcome  # noqa: E402
from dccrn_lib.lessons.running.execution import NotebookRun  # noqa: E402
from dccrn_lib.lessons.running.report import write_report  # noqa: E402
from dccrn_lib.runtime.errors import ConfigError  # noqa: E402
from dccrn_lib.runtime.paths import notebooks_dir, project_root  # noqa: E402


def report_of(tmp_path: Path, *outputs) -> str:
    """The report's text for one notebook of one code cell with these outputs."""
    v4 = nbformat.v4
    notebook = v4.new_notebook(cells=[v4.new_markdown_cell("# Title"), v4.new_code_cell("1", outputs=list(outputs))])
    nbformat.write(notebook, tmp_path / "01_a.ipynb")
    path = write_report(tmp_path / "report.html", tmp_path, [NotebookRun("01_a", "ok", 1.0, "01_a.ipynb")])
    return path.read_text(encoding="utf-8")


@pytest.mark.parametrize(
    ("text", "wraps"),
    [
        ("SI-SNR 7.12 dB (n = 8)\nSTOI 0.81 (n = 8)", True),
        ("noisy    1.09\nteacher  1.21", False),
        ("a table\n    1 2\n   10 20", False),
    ],
)
def test_sentences_wrap_and_columns_do_not(tmp_path: Path, text: str, wraps: bool):
    page = report_of(tmp_path, nbformat.v4.new_output("stream", name="stdout", text=text))
    assert (f'<pre class="words">{text}</pre>' in page) == wraps
    assert (f"<pre>{text}</pre>" in page) != wraps


def test_a_figure_can_be_enlarged_without_a_script(tmp_path: Path):
    page = report_of(tmp_path, nbformat.v4.new_output("display_data", data={"image/png": "iVBORw0KGgo=\n"}))
    assert '<label class="figure"><input type="checkbox"' in page and 'base64,iVBORw0KGgo="' in page
    assert "<script" not in page


def test_standard_error_is_left_out(tmp_path: Path):
    page = report_of(tmp_path, nbformat.v4.new_output("stream", name="stderr", text="12%|#   |"))
    assert "12%" not in page


def test_time_of_the_run_is_wall_time_where_it_is_known(tmp_path):
    run = NotebookRun("01_a", "skipped", 7.0, "01_a.ipynb", "needs another")
    path = tmp_path / "report.html"
    assert "in 14 s" in write_report(path, tmp_path, [run, run]).read_text(encoding="utf-8")
    assert "in 9 s" in write_report(path, tmp_path, [run, run], seconds=9.0).read_text(encoding="utf-8")


def marked(kind: str, text: str):
    """An output that a lesson marked as an outcome of its run."""
    return nbformat.v4.new_output("display_data", data={"text/html": text}, metadata={"outcome": kind})


def page_of(folder: Path, notebooks: dict[str, list], **states: str) -> str:
    """A report of notebooks: name -> outputs of its one code cell; ``states`` other than ok by name."""
    runs = []
    for name, outputs in notebooks.items():
        cells = [nbformat.v4.new_markdown_cell(f"# Lesson {name}"), nbformat.v4.new_code_cell("1", outputs=outputs)]
        nbformat.write(nbformat.v4.new_notebook(cells=cells), folder / f"{name}.ipynb")
        state = states.get(name, "ok")
        error = None if state == "ok" else "cell 3: it broke"
        runs.append(NotebookRun(name, state, 1.0, f"{name}.ipynb", error))
    return write_report(folder / "report.html", folder, runs).read_text(encoding="utf-8")


def test_a_report_opens_with_the_outcome_then_the_lessons(tmp_path):
    things = [("player", "NOISY"), ("player", "CLEAN"), ("figure", "FIGURE"), ("table", "TABLE")]
    things += [("trained", "NETWORKS"), ("sentence", "SENTENCE")]
    page = page_of(tmp_path, {"a01": [], "b05": [marked(*thing) for thing in things]})
    places = [page.index(word) for word in ("NETWORKS", "SENTENCE", "TABLE", "FIGURE", "NOISY", "CLEAN", "<nav>")]
    assert places == sorted(places)
    assert page.index("</h1>") < places[0] and "left no" not in page
    assert page.count("TABLE") == 2  # once as the outcome, once in its lesson


def test_a_report_says_what_of_its_outcome_is_missing(tmp_path):
    page = page_of(tmp_path, {"b05": [marked("table", "TABLE")]}, b05="failed")
    opening = page[: page.index("<nav>")]
    assert "The run left no trained, sentence, figure, player." in opening
    assert "b05 failed: cell 3: it broke" in opening


def test_what_an_earlier_run_left_is_not_this_ones_outcome(tmp_path):
    page_of(tmp_path, {"b05": [marked("sentence", "OLD")]})
    run = NotebookRun("b05", "failed", 1.0, "b05.ipynb", "No space left on device", written=False)
    page = write_report(tmp_path / "report.html", tmp_path, [run]).read_text(encoding="utf-8")
    assert "OLD" not in page and "No space left on device" in page


def test_a_run_that_trains_nothing_says_so(tmp_path):
    page = page_of(tmp_path, {"a01": []})
    assert "trained no networks" in page[: page.index("<nav>")]


def test_a_failed_run_without_outcome_names_the_failure_instead(tmp_path):
    opening = page_of(tmp_path, {"a01": []}, a01="failed").partition("<nav>")[0]
    assert "a01 failed" in opening and "trained no networks" not in opening


def test_the_distillation_lesson_marks_a_whole_outcome():
    lesson = nbformat.read(notebooks_dir() / "05_distillation.ipynb", as_version=4)
    outputs = [output for cell in lesson.cells for output in cell.get("outputs", [])]
    kinds = [output.metadata["outcome"] for output in outputs if "outcome" in output.get("metadata", {})]
    assert {kind: kinds.count(kind) for kind in kinds} == {
        "trained": 1, "sentence": 1, "table": 1, "figure": 1, "player": 5
    }  # fmt: skip


def test_an_unknown_outcome_is_refused():
    with pytest.raises(ConfigError, match="did you mean figure"):
        outcome("figur", "text")


def lessons_in(tmp_path: Path, **sources: list) -> str:
    """The report's text for notebooks of these cells, in a folder of its own in the project's."""
    for name, cells in sources.items():
        nbformat.write(nbformat.v4.new_notebook(cells=cells), tmp_path / f"{name}.ipynb")
    runs = [NotebookRun(name, "ok", 1.0, f"{name}.ipynb") for name in sources]
    return write_report(tmp_path / "report.html", tmp_path, runs).read_text(encoding="utf-8")


def test_links_lead_into_the_report_or_to_the_projects_files(tmp_path: Path):
    words = nbformat.v4.new_markdown_cell
    links = {
        "[a](#What-we-saw)": '<a href="#first-1-0-what-we-saw">a</a>',
        "[b](second.ipynb)": '<a href="#second">b</a>',
        "[c](second.ipynb#2.-Masks-%C2%B7-core)": '<a href="#second-0-1-2-masks-core">c</a>',
        "[d](https://arxiv.org/abs/2408.04267)": '<a href="https://arxiv.org/abs/2408.04267">d</a>',
        "[e](../docs/nothing.md)": "<p>e</p>",
        "[f](#Nowhere)": '<a href="#first">f</a>',
        "[g](javascript:alert(1))": "<p>g</p>",
        "[h](/etc/passwd)": "<p>h</p>",
        "[i](../../../../../../etc/passwd)": "<p>i</p>",
        f"[j]({'x' * 300}.md)": "<p>j</p>",
    }
    page = lessons_in(
        tmp_path,
        first=[words("# First\n\n" + "\n\n".join(links)), words("## What we saw")],
        second=[words("# Second\n\n## 2. Masks · core")],
    )
    for link, expected in links.items():
        assert expected in page, link
    assert 'id="first-1-0-what-we-saw"' in page and 'id="second-0-1-2-masks-core"' in page


def test_links_to_documents_are_relative_to_the_report(tmp_path: Path):
    page = lessons_in(tmp_path, first=[nbformat.v4.new_markdown_cell("# First\n\n[words](../docs/glossary.md#nll)")])
    link = re.search(r'href="([^"]+glossary.md)#nll">words', page)
    assert link and (tmp_path / link[1]).resolve() == (notebooks_dir().parent / "docs/glossary.md").resolve()


def test_phases_are_words_in_equations_and_marks_for_tests_are_no_labels(tmp_path: Path):
    v4 = nbformat.v4
    cells = [
        v4.new_markdown_cell(r"# A" + "\n\n" + r"$\arg z + \argmax$"),
        v4.new_code_cell("# NBVAL_CHECK_OUTPUT\nx = 1"),
    ]
    page = lessons_in(tmp_path, first=cells)
    assert r"\arg z" not in page and "<mi>arg</mi>" in page.replace("<mo>arg</mo>", "<mi>arg</mi>")
    assert "<summary>code: x = 1</summary>" in page


def test_each_failed_lesson_leads_to_its_own_error(tmp_path: Path):
    words = nbformat.v4.new_markdown_cell
    for name in ("01_a", "02_b"):
        cells = [
            words('<a href="#papermill-error-cell">In [2]</a>'),
            words('<span id="papermill-error-cell">here</span>'),
        ]
        nbformat.write(nbformat.v4.new_notebook(cells=cells), tmp_path / f"{name}.ipynb")
    runs = [NotebookRun(name, "failed", 1.0, f"{name}.ipynb", "cell 2: it broke") for name in ("01_a", "02_b")]
    page = write_report(tmp_path / "report.html", tmp_path, runs).read_text(encoding="utf-8")
    for name in ("01_a", "02_b"):
        assert (
            page.count(f'href="#{name}-papermill-error-cell"') == page.count(f'id="{name}-papermill-error-cell"') == 1
        )


def test_links_of_what_a_cell_displays_lead_where_those_of_the_text_do(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    v4 = nbformat.v4
    text = "[words](../docs/glossary.md) and [second](02_b.ipynb)"
    shown = v4.new_output("display_data", data={"text/markdown": text})
    nbformat.write(
        v4.new_notebook(cells=[v4.new_markdown_cell(text), v4.new_code_cell("1", outputs=[shown])]),
        tmp_path / "01_a.ipynb",
    )
    nbformat.write(v4.new_notebook(), tmp_path / "02_b.ipynb")
    runs = [NotebookRun(name, "ok", 1.0, f"{name}.ipynb") for name in ("01_a", "02_b")]
    monkeypatch.chdir(project_root())  # where `make tutorial` is called
    page = write_report(tmp_path / "report.html", tmp_path, runs).read_text(encoding="utf-8")
    first, second = re.findall(r'href="([^"]*glossary\.md)"', page)
    assert first == second and page.count('<a href="#02_b">second</a>') == 2
