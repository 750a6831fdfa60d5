"""Boxes and arrows of the concept figures, and the one that a lesson carries as an attachment."""

from __future__ import annotations

import base64

import pytest

from dccrn_lib.lessons.diagrams import arrow, box, canvas
from dccrn_lib.lessons.evaluation.figures import chain_of_evidence
from dccrn_lib.lessons.plotting import drawing
from dccrn_lib.lessons.running.report import write_report
from dccrn_lib.runtime.paths import notebooks_dir


def test_a_box_is_centred_and_says_its_text():
    figure, axis = canvas(2.0, 50)
    box(axis, 30, 20, 10, 6, "#0072b2", "here")
    arrow(axis, (35, 20), (60, 20), "#8c8c8c")
    patch = axis.patches[0].get_path().get_extents(axis.patches[0].get_patch_transform())
    assert (patch.x0, patch.x1, patch.y0, patch.y1) == pytest.approx((25, 35, 17, 23))
    assert axis.texts[0].get_text() == "here" and len(axis.patches) == 2
    assert axis.get_xlim() == (0, 100) and not axis.axison and len(figure.axes) == 1


def test_chain_of_evidence_has_a_doubt_for_every_step():
    axis = chain_of_evidence().axes[0]
    titles = [t for t in axis.texts if t.get_weight() == "bold"]
    doubts = [t for t in axis.texts if t.get_text().endswith("?")]
    assert [t.get_position()[0] for t in titles] == [t.get_position()[0] for t in doubts] and len(titles) == 5


def test_lesson_06_carries_the_drawing_as_it_is_drawn_today():
    import nbformat

    notebook = nbformat.read(notebooks_dir() / "06_evaluation.ipynb", as_version=4)
    (attached,) = [c.attachments["evidence.svg"] for c in notebook.cells if "attachments" in c]
    assert base64.b64decode(attached["image/svg+xml"]).decode() == drawing(chain_of_evidence())


def test_an_attached_drawing_is_part_of_the_report(tmp_path):
    import nbformat

    from dccrn_lib.lessons.running.execution import NotebookRun

    svg = base64.b64encode(b"<svg xmlns='http://www.w3.org/2000/svg'/>").decode()
    cell = nbformat.v4.new_markdown_cell("![a chain](attachment:chain.svg)")
    cell["attachments"] = {"chain.svg": {"image/svg+xml": svg}}
    nbformat.write(nbformat.v4.new_notebook(cells=[cell]), tmp_path / "one.ipynb")
    run = NotebookRun(name="one", status="ok", seconds=1.0, path="one.ipynb", parameters={}, error="")
    page = write_report(tmp_path / "report.html", tmp_path, [run]).read_text()
    assert f"data:image/svg+xml;base64,{svg}" in page
