"""How notebooks and documents become sources of the book, without sphinx."""

from __future__ import annotations

import importlib.util
import json
from pathlib import Path

import pytest

from dccrn_lib.lessons.attention_transfer import exercises
from dccrn_lib.runtime.paths import project_root

pytestmark = pytest.mark.filterwarnings("error")


@pytest.fixture(scope="module")
def sources():
    spec = importlib.util.spec_from_file_location("book_sources", project_root() / "docs/book/sources.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def cell(source: str, kind: str = "code", tags: tuple[str, ...] = ()) -> dict:
    return {"cell_type": kind, "source": source.splitlines(keepends=True), "metadata": {"tags": list(tags)}}


def test_a_folded_solution_follows_its_exercise(sources):
    graded = "from dccrn_lib.lessons.attention_transfer.exercises import check_kl\ncheck_kl(None)"
    notebook = {"cells": [cell(graded), cell("1 + 1")], "metadata": {}}
    added = sources.lesson(notebook)["cells"]
    assert [c["cell_type"] for c in added] == ["code", "markdown", "code"]
    assert added[1]["source"].startswith('<details class="solution">') and "def solution_kl(" in added[1]["source"]
    assert len(notebook["cells"]) == 2


def test_the_last_import_of_graders_counts(sources):
    first = "from dccrn_lib.lessons.distillation.exercises import check_hours, check_rate"
    second = "from dccrn_lib.lessons.gpu import exercises, figures"
    cells = [cell(first), cell(second), cell("exercises.check_hours(None)")]
    text = sources.lesson({"cells": cells, "metadata": {}})["cells"][-1]["source"]
    from dccrn_lib.lessons.gpu import exercises as gpu

    assert sources.solution(gpu, "hours") == text


def test_worked_answers_are_folded_where_they_stand(sources):
    graded = "from dccrn_lib.lessons.attention_transfer.exercises import check_kl\ncheck_kl(None)"
    new = sources.lesson({"cells": [cell(graded), cell("1 + 1")], "metadata": {}}, answers=True)["cells"]
    assert [c["metadata"]["tags"] for c in new] == [["hide-input"], []]


def test_an_exercise_without_a_solution_stays_alone(sources):
    assert sources.solution(exercises, "no_such_name") is None


def test_cells_are_folded_and_marks_of_tests_left_out(sources):
    cells = [
        cell("# Solution of exercise 1\nx = 1"),
        cell("x = 1", tags=("solution",)),
        cell('import importlib.util\nif importlib.util.find_spec("dccrn_lib") is None: ...'),
        cell("# NBVAL_CHECK_OUTPUT\nprint(1)", tags=("parameters",)),
    ]
    new = sources.lesson({"cells": cells, "metadata": {}})["cells"]
    assert [c["metadata"]["tags"][-1] for c in new] == ["hide-cell", "hide-cell", "hide-input", "parameters"]
    assert new[3]["source"] == "print(1)"


def test_anchors_of_jupyter_become_those_of_the_book(sources):
    (new,) = sources.lesson({"cells": [cell("see [it](#Recap-and-quiz)", "markdown")], "metadata": {}})["cells"]
    assert new["source"] == "see [it](#recap-and-quiz)"
    assert (
        sources.slug("6. The Kullback-Leibler divergence, and AT-KL") == "6-the-kullback-leibler-divergence-and-at-kl"
    )


def test_intervals_stay_in_one_line(sources):
    assert sources.unbroken("| +0.5 [-0.1, +1e-05] |") == "| +0.5 [-0.1,\u00a0+1e-05] |"
    for other in ("see [1, 2](#there)", "`x[0, 1]`", "[a, b]"):
        assert sources.unbroken(other) == other


@pytest.mark.parametrize("content", ["PHN2Zy8+", ["PHN2\n", "Zy8+\n"], "<svg/>"])
def test_attached_pictures_are_in_the_page(sources, content):
    picture = cell("![two < three](attachment:a.svg)", "markdown") | {
        "attachments": {"a.svg": {"image/svg+xml": content}}
    }
    (new,) = sources.lesson({"cells": [picture], "metadata": {}})["cells"]
    assert new["source"] == '<img alt="two &lt; three" src="data:image/svg+xml;base64,PHN2Zy8+">'


def test_contents_leave_out_what_is_not_there(sources, tmp_path: Path):
    text = "docs/glossary\ndocs/notation\nbibliography\n"
    assert sources.without_absent(text, tmp_path) == "bibliography\n"
    (tmp_path / "docs").mkdir()
    (tmp_path / "docs" / "notation.md").write_text("# Notation")
    assert sources.without_absent(text, tmp_path) == "docs/notation\nbibliography\n"


def test_the_bibliography_names_the_pages_that_cite(sources, tmp_path: Path):
    page = tmp_path / "02_lesson.ipynb"
    page.write_text(json.dumps({"cells": [cell("[a](https://arxiv.org/abs/1234.56789)", "markdown")]}))
    cited = sources.citations(tmp_path, [page])
    assert cited == {"1234.56789": [Path("02_lesson.ipynb")]}
    entries = "- A, [arXiv](https://arxiv.org/abs/1234.56789): a.\n- B, [arXiv](https://arxiv.org/abs/9999.00000).\n"
    text = f"# B\n\n## One\n\n{entries}\n## Two\n"
    assert sources.bibliography(text, cited) == text.replace(
        ": a.\n", ": a. *Cited in* [lesson 02](02_lesson.ipynb).\n"
    )


def test_linked_files_that_are_no_pages_come_along(sources, tmp_path: Path):
    (tmp_path / "docs").mkdir()
    (tmp_path / "docs" / "x.png").write_bytes(b"")
    (tmp_path / "LICENSE").write_text("")
    page = tmp_path / "README.md"
    page.write_text("[a](LICENSE) ![b](docs/x.png) [c](https://x.y/z) [d](README.md) [e](missing.txt) [f](../outside)")
    assert sources.linked_files(tmp_path, [page]) == [Path("LICENSE"), Path("docs/x.png")]


@pytest.mark.parametrize(
    "badge", ["https://colab.research.google.com/github/owner/name/blob/main/x.ipynb", "https://github.com/owner/name"]
)
def test_the_address_comes_from_the_environment_or_the_readme(sources, badge, tmp_path: Path, monkeypatch):
    (tmp_path / "README.md").write_text("no address")
    monkeypatch.delenv("GITHUB_REPOSITORY", raising=False)
    assert sources.repository_address(tmp_path) is None
    (tmp_path / "README.md").write_text(f"[badge]({badge})")
    assert sources.repository_address(tmp_path) == "owner/name"
    monkeypatch.setenv("GITHUB_REPOSITORY", "other/one")
    assert sources.repository_address(tmp_path) == "other/one"


def test_checkpoints_of_jupyterlab_are_no_pages(sources, tmp_path: Path):
    root = tmp_path / "root"
    (root / "notebooks" / ".ipynb_checkpoints").mkdir(parents=True)
    for name in ("README.md", "CONTRIBUTING.md", "CHANGELOG.md", "weights", "docs"):
        (root / name).symlink_to(project_root() / name)
    text = (project_root() / "notebooks" / "solutions.ipynb").read_bytes()
    for name in ("notebooks/05_a.ipynb", "notebooks/.ipynb_checkpoints/05_a-checkpoint.ipynb"):
        (root / name).write_bytes(text)
    assert [p.name for p in sources.lay_out(root, tmp_path / "out").rglob("*.ipynb")] == ["05_a.ipynb"]
