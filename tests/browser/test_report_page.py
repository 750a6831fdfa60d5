"""The HTML report in a real browser: on a phone nothing is wider than the screen but what scrolls in its own box."""

from __future__ import annotations

from pathlib import Path

import pytest

from dccrn_lib.runtime.paths import project_root

pytestmark = pytest.mark.browser

_WIDER = """
() => {
  const width = document.documentElement.clientWidth, found = [];
  const boxed = (e) => {
    for (let p = e.parentElement; p; p = p.parentElement)
      if (p !== document.body && ['auto', 'scroll'].includes(getComputedStyle(p).overflowX)) return true;
    return false;
  };
  for (const e of document.querySelectorAll('body *'))
    if (e.getBoundingClientRect().right > width + 1 && !boxed(e)) found.push(e.tagName + ' ' + e.textContent.slice(0, 50));
  return found;
}
"""
_SIZES = """
() => {
  const sizes = {}, texts = document.createTreeWalker(document.body, NodeFilter.SHOW_TEXT);
  while (texts.nextNode()) {
    const parent = texts.currentNode.parentElement;
    if (texts.currentNode.textContent.trim() && !parent.closest('math'))
      sizes[parseFloat(getComputedStyle(parent).fontSize)] = parent.tagName;
  }
  return Math.min(...Object.keys(sizes).map(Number));
}
"""
_PAGE_WIDTH = "document.documentElement.scrollWidth"


@pytest.fixture(scope="module")
def report(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The report of the committed lessons, as if they had just run."""
    from dccrn_lib.lessons.running.execution import NotebookRun
    from dccrn_lib.lessons.running.report import write_report

    root = project_root()
    lessons = sorted((root / "notebooks").glob("0*.ipynb"))
    runs = [NotebookRun(path.stem, "ok", 30.0, path.name, parameters={"profile": "quick"}) for path in lessons]
    return write_report(tmp_path_factory.mktemp("report") / "report.html", root / "notebooks", runs, title="Run")


@pytest.mark.parametrize("width", [390, 1280])
def test_report_fits_the_screen(browser, report: Path, screenshots: Path, width: int):
    phone = width < 500
    context = browser.new_context(
        viewport={"width": width, "height": 844}, device_scale_factor=2, is_mobile=phone, has_touch=phone
    )
    page = context.new_page()
    page.goto(report.as_uri())
    for folded in ("folded", "open"):
        if folded == "open":  # the code too
            page.evaluate("document.querySelectorAll('details').forEach((d) => { d.open = true; })")
        assert page.evaluate(_PAGE_WIDTH) <= width
        assert page.evaluate(_WIDER) == []
    assert page.evaluate(_SIZES) >= 11  # CSS pixels
    assert (
        page.locator("img, svg").count() > 50
        and page.locator("audio").count() > 10
        and page.locator("math").count() > 50
    )
    figure = page.locator(".figure").nth(3)
    figure.scroll_into_view_if_needed()
    page.screenshot(path=screenshots / f"report_{width}.png")
    before = figure.locator("img").bounding_box()["width"]
    assert before <= width
    if phone:
        figure.click()
        assert figure.locator("img").bounding_box()["width"] > 1.5 * before
        assert page.evaluate(_PAGE_WIDTH) <= width
        page.screenshot(path=screenshots / f"report_{width}_large.png")
    context.close()
