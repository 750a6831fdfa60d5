"""The book opened from disk in a browser: equations, search, phone width, and not one request that leaves the machine."""

from __future__ import annotations

from pathlib import Path

import pytest

pytestmark = [pytest.mark.browser, pytest.mark.book, pytest.mark.slow]
PAGES = [
    "index",
    "notebooks/00_start_here",
    "notebooks/04_attention_transfer",
    "docs/results",
    "api/networks",
    "api/training",
    "genindex",
    "bibliography",
    "try",
]
SIZES = {"desktop": (1280, 900), "phone": (390, 844)}


@pytest.fixture
def requests(browser):
    """Opens a page: (address, size) -> page; keeps every address asked for (``seen``) and every error (``errors``)."""
    contexts = []

    def visit(address: str, size: str = "desktop"):
        width, height = SIZES[size]
        context = browser.new_context(viewport={"width": width, "height": height})
        contexts.append(context)
        page = context.new_page()
        page.on("request", lambda request: visit.seen.append(request.url))
        page.on("pageerror", lambda error: visit.errors.append(str(error)))
        page.goto(address, wait_until="load", timeout=180_000)
        return page

    visit.seen, visit.errors = [], []
    yield visit
    for context in contexts:
        context.close()


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("name", PAGES)
def test_pages_work_from_disk_and_send_nothing(name: str, size: str, book: Path, requests, screenshots: Path):
    page = requests((book / f"{name}.html").as_uri(), size)
    if "04_" in name:
        page.wait_for_selector("mjx-container svg", state="attached", timeout=180_000)
        assert page.locator("mjx-container").count() > 50
        assert page.locator("mjx-merror").count() == 0
    assert page.evaluate("document.documentElement.scrollWidth") <= SIZES[size][0]
    assert requests.seen and [url for url in requests.seen if not url.startswith(("file:", "data:"))] == []
    assert requests.errors == []
    page.screenshot(path=screenshots / f"book-{name.replace('/', '-')}-{size}.png")


@pytest.mark.parametrize("size", SIZES)
def test_search_works_from_disk(size: str, book: Path, requests):
    page = requests((book / "search.html").as_uri() + "?q=divergence", size)
    page.wait_for_selector("#search-results li a", timeout=180_000)
    targets = page.locator("#search-results li a").evaluate_all("links => links.map(a => a.href)")
    assert any("04_attention_transfer" in target for target in targets)
    page.wait_for_function("document.querySelectorAll('#search-results li p.context').length > 5")
    assert "divergence" in page.locator("#search-results li p.context").first.inner_text().lower()
    assert requests.errors == []
    assert page.evaluate("document.documentElement.scrollWidth") <= SIZES[size][0]
    assert [url for url in requests.seen if not url.startswith(("file:", "data:"))] == []


def test_equations_that_are_wider_than_a_phone_are_drawn_smaller(book: Path, requests):
    """Inline ones fit; what is still too wide as a line of its own scrolls."""
    page = requests((book / "notebooks" / "02_dccrn.html").as_uri(), "phone")
    page.wait_for_function(
        "document.querySelector('mjx-container > svg')?.style.width || document.querySelector('.scrolls')"
    )
    drawings = page.locator("mjx-container:not([display], .scrolls) > svg:not(td *)")
    wide = drawings.evaluate_all("found => found.filter(d => d.getBoundingClientRect().right > innerWidth).length")
    assert wide == 0
    assert page.locator("mjx-container > svg[style*=width]").count() > 0


def test_the_contents_of_a_page_open_where_there_is_no_room_beside_it(book: Path, requests):
    page = requests((book / "notebooks" / "02_dccrn.html").as_uri())
    assert not page.locator("#pst-secondary-sidebar").is_visible()
    page.click("button.secondary-toggle")
    page.click("dialog[open] a >> text=You need")
    page.wait_for_function("location.hash === '#you-need' && !document.querySelector('dialog[open]')")


def test_players_play(book: Path, requests):
    page = requests((book / "notebooks" / "00_start_here.html").as_uri())
    seconds = page.evaluate(
        "() => new Promise((done, fail) => { const a = document.querySelector('audio');"
        " a.onloadedmetadata = () => done(a.duration); a.onerror = () => fail(a.error.message);"
        " a.preload = 'metadata'; a.load(); })"
    )
    assert 0.5 < seconds < 5


def test_a_missing_page_at_any_depth_leads_back(book: Path, requests):
    """A server answers with 404.html under the address that was asked for."""
    page = requests((book / "404.html").as_uri())
    home = page.evaluate("document.links[0].href")
    assert home == (book / "index.html").as_uri()
    context = page.context
    wrong = (book / "notebooks" / "deeper" / "mistyped.html").as_uri()
    context.route(wrong, lambda route: route.fulfill(path=book / "404.html", content_type="text/html"))
    page.goto(wrong)
    assert page.evaluate("document.links[0].href") == home
