"""Configuration of sphinx for the book; ``docs/book/make.py`` lays out its sources and calls sphinx with it.

Nothing that a reader's browser loads lies outside the book: MathJax comes from a wheel and draws with SVG, so that no
font is fetched, and the theme ships its own fonts and icons.
"""

from __future__ import annotations

import json
import re
import sys
from pathlib import Path

import docutils.nodes
import mathjax

HERE = Path(__file__).resolve().parent
ROOT = HERE.parents[1]
sys.path[:0] = [str(HERE), str(ROOT)]

import sources  # noqa: E402

import dccrn_lib  # noqa: E402

project = "Distil-DCCRN, step by step"
author = "The Distil-DCCRN step-by-step contributors"
project_copyright = "the Distil-DCCRN step-by-step contributors, Apache-2.0"
release = dccrn_lib.__version__
language = "en"

extensions = [
    "myst_nb",
    "sphinx.ext.autodoc",
    "sphinx.ext.napoleon",
    "sphinx.ext.mathjax",
    "sphinx_design",
    "sphinx_copybutton",
]
root_doc = "index"
templates_path = [str(HERE / "templates")]

# Lessons: as committed, never executed.
nb_execution_mode = "off"
nb_merge_streams = True
nb_render_markdown_format = "myst"  # tables in outputs
nb_code_prompt_show = "Show the code"
nb_code_prompt_hide = "Hide the code"
myst_enable_extensions = ["dollarmath", "amsmath", "colon_fence", "deflist", "html_image"]
myst_heading_anchors = 4
myst_links_external_new_tab = False

# Reference.
autodoc_typehints = "signature"
autodoc_member_order = "bysource"
autodoc_default_options = {"undoc-members": False}
add_module_names = False
python_use_unqualified_type_names = True
python_maximum_signature_line_length = 100
toc_object_entries = False
napoleon_google_docstring = True
napoleon_numpy_docstring = False
napoleon_custom_sections = ["Shapes", "Source"]
# a type in a signature that is also the name of attributes of several classes (samples): no link is better than a guess
suppress_warnings = ["ref.python"]

# Equations.
MATHJAX = Path(mathjax.__file__).parent / "static" / "mathjax" / "es5" / "tex-svg-full.js"
html_static_path = [str(HERE / "static"), str(MATHJAX)]
mathjax_path = "tex-svg-full.js"
mathjax3_config = {"options": {"enableMenu": False}, "svg": {"fontCache": "local"}}

# Look.
html_theme = "sphinx_book_theme"
html_title = project
html_short_title = "Start"
html_css_files = ["book.css"]
html_js_files = [("book.js", {"defer": "defer"}), ("search.js", {"defer": "defer"})]
html_context = {"default_mode": "auto"}
html_copy_source = True
html_show_sourcelink = False
html_sourcelink_suffix = ""
html_last_updated_fmt = None
html_additional_pages = {"404": "404.html"}
copybutton_exclude = ".linenos, .gp, .go"
html_theme_options = {
    "use_download_button": True,
    "use_fullscreen_button": False,
    "show_toc_level": 2,
    "show_navbar_depth": 1,
    "home_page_in_toc": False,  # the title above the contents leads there
    "navbar_persistent": [],
    "footer_content_items": ["copyright.html"],
    "pygments_light_style": "a11y-high-contrast-light",
    "pygments_dark_style": "a11y-high-contrast-dark",
}

address = sources.repository_address(ROOT)
if address:
    tags.add("address")  # noqa: F821  (sphinx hands it in)
    html_theme_options |= {
        "repository_url": f"https://github.com/{address}",
        "repository_branch": "main",
        "path_to_docs": "",  # the sources are laid out as the repository is
        "use_repository_button": True,
        "launch_buttons": {
            "colab_url": "https://colab.research.google.com",
            "binderhub_url": "https://mybinder.org",
            "notebook_interface": "jupyterlab",
        },
    }

# External links, `make.py --builder linkcheck`.
linkcheck_timeout = 30
linkcheck_retries = 2
linkcheck_workers = 4
linkcheck_anchors = False


COLON = "\ue000"  # stands for a colon in a property's first line: napoleon takes what is before it for the type


def _plain(app, what, name, obj, options, lines: list[str]) -> None:
    """Docstrings are plain text: a star, a bar or a trailing underline outside of code is no markup."""
    example = False
    for i, line in enumerate(lines):
        example = line.lstrip().startswith(">>>") or (example and bool(line.strip()))
        if not example:
            parts = re.split(r"(:\w+:`[^`]*`|``.*?``)", line)
            parts[::2] = [re.sub(r"([|*]|(?<=\w)_(?!\w))", r"\\\1", part) for part in parts[::2]]
            lines[i] = "".join(parts)
    if what == "property" and lines:
        lines[0] = lines[0].replace(":", COLON)


def _colon(app, what, name, obj, options, lines: list[str]) -> None:
    lines[:] = [line.replace(COLON, ":") for line in lines]


def _describe(app, doctree) -> None:
    """A figure that a cell drew is described by the first sentence below it."""
    for output in doctree.findall(
        lambda node: "cell_output" in node.get("classes", ()) if hasattr(node, "get") else False
    ):
        below = output.parent.next_node(docutils.nodes.paragraph, descend=False, siblings=True)
        text = re.split(r"(?<=[.:?!])\s", below.astext().replace("\n", " "))[0] if below else "Drawn by the code above."
        for image in output.findall(docutils.nodes.image):
            image["alt"] = f"Figure: {text}"


def _keep_texts(app, doctree, name: str) -> None:
    """Keep the words of each page, without its outputs in HTML, for the search from disk."""
    blocks = (
        block.astext()
        for block in doctree.findall(docutils.nodes.TextElement)
        if not isinstance(block, docutils.nodes.raw) and not isinstance(block.parent, docutils.nodes.TextElement)
    )
    app.book_texts[name] = " ".join(" ".join(blocks).split())


def _write_texts(app, error: Exception | None) -> None:
    if error is None and app.builder.name == "html":
        code = f"globalThis.searchTexts = {json.dumps(app.book_texts, ensure_ascii=False)};\n"
        (Path(app.outdir) / "_static" / "search-texts.js").write_text(code, encoding="utf-8")


def setup(app) -> None:
    app.book_texts = {}
    app.connect("doctree-resolved", _keep_texts)
    app.connect("build-finished", _write_texts)
    app.connect("doctree-read", _describe)
    app.connect("autodoc-process-docstring", _plain, priority=400)  # before napoleon
    app.connect("autodoc-process-docstring", _colon, priority=600)  # after it
