"""The built book: every lesson a page, every link to somewhere, nothing loaded from elsewhere."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest

import dccrn_lib
from tests.book import pages

pytestmark = [pytest.mark.book, pytest.mark.slow]


@pytest.fixture(scope="module")
def site(book: Path) -> dict[Path, pages.Page]:
    return pages.read(book)


def notebooks(root: Path) -> list[Path]:
    """The lessons."""
    return sorted((root / "notebooks").glob("[0-9]*.ipynb"))


def test_every_lesson_and_document_is_a_page(book: Path, root: Path):
    sources = [*(root / "notebooks").glob("*.ipynb"), *(root / "docs").glob("*.md"), root / "README.md"]
    missing = [p.name for p in sources if not (book / p.relative_to(root)).with_suffix(".html").is_file()]
    assert missing == [] and len(sources) > 15


def test_links_and_anchors_lead_somewhere(site):
    assert list(pages.broken(site)) == []
    assert sum(len(page.links) for page in site.values()) > 1000


def test_the_check_of_links_sees_a_broken_one(tmp_path: Path):
    (tmp_path / "a.html").write_text(
        '<a href="b.html#there"></a><a href="c.html"></a><img src="d.png"><a href="b.html#x"></a>'
    )
    (tmp_path / "b.html").write_text('<p id="there">')
    names = [line.split(" ")[1] for line in pages.broken(pages.read(tmp_path))]
    assert names == ["c.html", "b.html#x", "d.png"]


def test_no_page_or_style_loads_from_elsewhere(site, book: Path):
    loads = {path.name: [a for a in page.loads if pages.from_elsewhere(a)] for path, page in site.items()}
    sheets = {p.name: pages.css_loads(p.read_text(encoding="utf-8")) for p in book.rglob("*.css")}
    loads |= {name: [a for a in found if pages.from_elsewhere(a)] for name, found in sheets.items()}
    assert {name: found for name, found in loads.items() if found} == {}
    assert sheets and sum(len(page.loads) for page in site.values()) > 500


def test_files_that_styles_name_are_there(book: Path):
    for sheet in book.rglob("*.css"):
        for address in pages.css_loads(sheet.read_text(encoding="utf-8")):
            if not address.startswith(("data:", "#")):
                assert (sheet.parent / re.split(r"[?#]", address)[0]).is_file(), (sheet.name, address)


@pytest.mark.parametrize(
    "html",
    [
        '<script src="https://cdn.example/x.js"></script>',
        '<link rel="stylesheet" href="//cdn.example/x.css">',
        '<img src="x.png" srcset="http://cdn.example/y.png 2x">',
        "<style>@font-face { src: url('https://cdn.example/x.woff2') }</style>",
        '<p style="background: url(https://cdn.example/x.png)">',
    ],
)
def test_the_check_of_loads_sees_another_machine(html: str):
    assert any(map(pages.from_elsewhere, pages.Page(html).loads))


def test_every_player_and_figure_of_the_lessons_is_there(site, book: Path, root: Path):
    total = 0
    for path in notebooks(root):
        outputs = [o for c in json.loads(path.read_text())["cells"] for o in c.get("outputs", ())]
        html = "".join("".join(o.get("data", {}).get("text/html", "")) for o in outputs)
        pictures = sum(len(c.get("attachments", ())) for c in json.loads(path.read_text())["cells"])
        pictures += sum(1 for o in outputs if {"image/png", "image/svg+xml"} & set(o.get("data", {})))
        page = site[book / "notebooks" / f"{path.stem}.html"]
        assert page.counts.get("audio", 0) == html.count("<audio"), path.name
        assert page.counts.get("img", 0) >= pictures > 0, path.name
        assert "](data:" not in (book / "notebooks" / f"{path.stem}.html").read_text(), path.name
        total += html.count("<audio")
    assert total > 20


def test_equations_are_drawn_by_the_mathjax_of_the_site(site, book: Path):
    text = (book / "notebooks" / "04_attention_transfer.html").read_text()
    assert text.count('class="math') > 50
    assert re.search(r'src="../_static/tex-svg-full.js', text)


def test_tables_in_outputs_are_tables(book: Path):
    text = (book / "notebooks" / "06_evaluation.html").read_text()
    assert "| --- |" not in text and "| — |" not in text


def test_every_exercise_has_a_folded_solution(book: Path, root: Path):
    for path in notebooks(root):
        sources = "\n".join(
            "".join(c["source"]) for c in json.loads(path.read_text())["cells"] if c["cell_type"] == "code"
        )
        exercises = set(re.findall(r"\bcheck_(\w+)\(", sources))
        text = (book / "notebooks" / f"{path.stem}.html").read_text()
        folded = re.findall(r'<details class="solution">.*?</details>', text, re.DOTALL)
        named = set(re.findall(r'<span class="nf">solution_(\w+)</span>', "".join(folded)))
        assert exercises and exercises <= named, path.name
        assert "<details open" not in text and "># NBVAL_CHECK_OUTPUT" not in text


def test_lessons_can_be_launched_and_downloaded_as_committed(site, book: Path, root: Path):
    for path in notebooks(root):
        links = site[book / "notebooks" / f"{path.stem}.html"].links
        assert f"https://colab.research.google.com/github/owner/name/blob/main/notebooks/{path.name}" in links
        assert f"https://mybinder.org/v2/gh/owner/name/main?urlpath=lab/tree/notebooks/{path.name}" in links
        assert f"../_sources/notebooks/{path.name}" in links
        assert (book / "_sources" / "notebooks" / path.name).read_bytes() == path.read_bytes()


def test_the_search_index_holds_words_of_the_lessons(book: Path):
    text = (book / "searchindex.js").read_text(encoding="utf-8")
    index = json.loads(text[text.index("{") : text.rindex("}") + 1])
    lessons = {
        index["docnames"][i] for word in ("spectrogram", "distil", "latenc", "phase") for i in _pages(index, word)
    }
    assert len([name for name in lessons if name.startswith("notebooks/")]) > 5


def test_the_search_from_disk_can_quote_every_page(book: Path):
    text = (book / "_static" / "search-texts.js").read_text(encoding="utf-8")
    texts = json.loads(text[text.index("{") : text.rindex("}") + 1])
    assert set(texts) >= {"index", "docs/results", "api/networks", "notebooks/04_attention_transfer"}
    assert "Kullback-Leibler" in texts["notebooks/04_attention_transfer"]
    assert [name for name, words in texts.items() if "base64," in words] == []


def test_a_colon_in_a_docstring_of_a_property_makes_no_type(book: Path):
    text = (book / "api" / "networks.html").read_text(encoding="utf-8")
    assert "Frames of future that an output frame depends on: all of them" in text


def _pages(index: dict, word: str) -> list[int]:
    found = index["terms"].get(word, [])
    return found if isinstance(found, list) else [found]


def test_every_public_name_is_in_the_reference(site, book: Path):
    text = (book / "api" / "index.html").read_text()
    names = [name for name in dccrn_lib.__all__ if name != "__version__"]
    assert [name for name in names if f">{name}<" not in text] == []
    anchors = set().union(*(page.anchors for path, page in site.items() if path.parent.name == "api"))
    for name in ("dccrn_lib.networks.presets.build_model", "dccrn_lib.enhancement.stream.StreamingEnhancer.push"):
        assert name in anchors


def test_the_bibliography_lists_every_paper_that_is_linked(book: Path, root: Path):
    listed = (book / "bibliography.html").read_text()
    papers = re.compile(r"arxiv\.org/abs/(\d{4}\.\d{4,5})")
    cited = {
        n
        for p in [*notebooks(root), *(root / "docs").glob("*.md"), root / "README.md"]
        for n in papers.findall(p.read_text())
    }
    assert len(cited) > 8 and [n for n in sorted(cited) if n not in listed] == []
    assert "Cited in" in listed and 'href="notebooks/02_dccrn.html"' in listed


def test_the_start_page_has_three_entrances_and_every_lesson(site, book: Path, root: Path):
    links = site[book / "index.html"].links
    wanted = ["notebooks/00_start_here.html", "docs/results.html", "docs/guide.html", "try.html", "search.html"]
    assert set(wanted) <= set(links)
    assert {f"notebooks/{p.stem}.html" for p in notebooks(root)} <= set(links)


def test_the_demo_is_copied_and_linked(site, book: Path):
    assert (book / "demo" / "index.html").read_text().endswith("<title>demo</title>")
    assert "demo/index.html" in site[book / "try.html"].links


def test_the_page_for_missing_pages_needs_no_other_file(site, book: Path):
    assert site[book / "404.html"].loads == []
    assert "index.html" in site[book / "404.html"].links
