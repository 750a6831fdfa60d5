"""What the HTML report makes of single outputs; the whole of it is looked at in tests/browser."""

from __future__ import annotations

from pathlib import Path

import pytest

nbformat = pytest.importorskip("nbformat", reason="the extra notebooks is not installed")
pytest.importorskip("nbconvert", reason="the extra notebooks is not installed")

from dccrn_lib.lessons.running.execution import NotebookRun  # noqa: E402
from dccrn_lib.lessons.running.report import write_report  # noqa: E402


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
