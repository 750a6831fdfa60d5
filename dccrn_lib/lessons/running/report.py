"""One HTML file out of executed notebooks: the outcome of the run first, then a table of contents and the lessons.

The outcome is what the lessons marked by ``lesson.outcome``: what was trained, one sentence, one table, one figure and
the players. The lessons follow with their figures, players and equations.
It needs nothing else: styles are inside, equations become MathML (which browsers draw themselves), pictures
and sounds are embedded, no script runs and nothing is fetched. Code is folded away, results stand open.
"""

from __future__ import annotations

import html
import json
import os
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from urllib.parse import quote, unquote

import nbformat
from nbconvert.filters.ansi import ansi2html
from nbconvert.filters.markdown_mistune import IPythonRenderer, MarkdownWithMath
from pygments import highlight
from pygments.formatters import HtmlFormatter
from pygments.lexers import PythonLexer

from dccrn_lib.lessons.lesson import OUTCOMES
from dccrn_lib.lessons.running.execution import NotebookRun
from dccrn_lib.lessons.running.notebook_file import read_notebook
from dccrn_lib.runtime.files import atomic_path
from dccrn_lib.runtime.paths import PathLike, project_root

_PICTURES = {"image/png": "png", "image/jpeg": "jpeg"}

_STYLE = """
:root { color-scheme: light dark; --ink: #1c2733; --dim: #5b6875; --line: #d8dee4; --paper: #fff;
  --shade: #f4f6f8; --link: #0b62a4; --bad: #b42318; --edge: #1c27334d; }
@media (prefers-color-scheme: dark) { :root { --ink: #e3e8ed; --dim: #9aa7b3; --line: #36414c;
  --paper: #14191f; --shade: #1d242c; --link: #6db8f2; --bad: #ff8a7a; --edge: #000000b3; }
  img { background: #fff; } pre { color: var(--ink); } }
* { box-sizing: border-box; }
html { scroll-behavior: smooth; -webkit-text-size-adjust: 100%; }
body { margin: 0 auto; max-width: 54rem; padding: 1rem 1.1rem 4rem; overflow-wrap: break-word;
  background: var(--paper); color: var(--ink);
  font: 1rem/1.6 system-ui, -apple-system, "Segoe UI", Roboto, sans-serif; }
h1, h2, h3, h4 { line-height: 1.25; margin: 2em 0 .6em; }
section > h1, section > h2.title { border-top: 2px solid var(--line); padding-top: 1.2em; }
a { color: var(--link); }
img, svg, video { max-width: 100%; height: auto; }
.figure { display: block; margin: 1em 0; overflow-x: auto; }
.figure input { position: absolute; opacity: 0; pointer-events: none; }
.figure :focus-visible + img { outline: 2px solid var(--link); }
audio { width: min(100%, 26rem); height: 2.4rem; display: block; }
pre { padding: .7rem .8rem; overflow-x: auto; font-size: .84rem; line-height: 1.45;
  border-radius: 4px; margin: .5em 0; --back: var(--shade); }
pre.words { white-space: pre-wrap; }
code { font-size: .9em; }
.scroll { overflow-x: auto; --back: var(--paper); }
/* a shadow at the edge behind which there is more: it is covered by the content's own ends */
pre, .scroll { background: linear-gradient(to right, var(--back) 50%, transparent) 0 0 / 2rem 100% local,
  linear-gradient(to left, var(--back) 50%, transparent) 100% 0 / 2rem 100% local,
  linear-gradient(to right, var(--edge), transparent) 0 0 / .8rem 100% scroll,
  linear-gradient(to left, var(--edge), transparent) 100% 0 / .8rem 100% scroll, var(--back);
  background-repeat: no-repeat; }
table { border-collapse: collapse; font-size: .92rem; margin: .8em 0; }
th, td { border-bottom: 1px solid var(--line); padding: .3rem .7rem .3rem 0; text-align: left; }
details > summary { color: var(--dim); font-size: .8rem; cursor: pointer; padding: .2rem 0; }
nav ol { padding-left: 1.4rem; } nav ul { padding-left: 1.1rem; }
nav ul { columns: 16rem; font-size: .88rem; }
.outcome { border: 1px solid var(--line); border-radius: 6px; padding: 0 1.1rem .6rem; margin: 1.2em 0 2em; }
.outcome h2 { margin: .7em 0 .3em; } .outcome .sentence { font-size: 1.15rem; font-weight: 600; }
.players { display: grid; grid-template-columns: repeat(auto-fit, minmax(11rem, 1fr)); gap: .2rem 1rem; }
.dim { color: var(--dim); font-size: .9rem; } .bad { color: var(--bad); }
.out { margin: .4em 0 1em; }
math { font-family: "STIX Two Math", "Cambria Math", "Latin Modern Math", "DejaVu Math TeX Gyre", math; }
math[display=block] { overflow-x: auto; overflow-y: hidden; padding: .4em 0; }
code.tex { background: var(--shade); padding: .1em .3em; }
.small { display: none; }
@media (max-width: 40rem) {
  .small { display: inline; }
  .figure { margin: 1em -1.1rem; } /* edge to edge; a tap shows it at its own size, to be moved sideways */
  .figure img { cursor: zoom-in; }
  .figure input:checked + img { max-width: none; cursor: zoom-out; }
  h1 { font-size: 1.6rem; } pre { font-size: .78rem; } table { font-size: .86rem; } td, th { line-height: 1.4; }
  details > summary { padding: .5rem 0; overflow: hidden; text-overflow: ellipsis; white-space: nowrap; }
}
@media print { details { display: none; } }
"""


class _Links:
    """Where the links of lessons lead from the report: into it, or to a file of the project as seen from its folder.

    Args:
        folder: of the report.
        lessons: name -> notebook, of all that stand in it.
    """

    def __init__(self, folder: Path, lessons: Mapping[str, nbformat.NotebookNode]) -> None:
        self._folder, self._anchors = folder.resolve(), {name: _anchors(nb, name) for name, nb in lessons.items()}

    def target(self, url: str, name: str) -> str | None:
        """A link of the lesson ``name``; None where there is nothing that it could lead to."""
        path, _, fragment = url.partition("#")
        scheme, colon, _ = path.split("/")[0].partition(":")
        if colon:
            return url if scheme.lower() in ("http", "https", "mailto") else None
        lesson = path.rpartition("/")[2].removesuffix(".ipynb") if path else name
        if lesson in self._anchors:
            return f"#{quote(self._anchors[lesson].get(_slug(unquote(fragment)), lesson))}"
        root = project_root().resolve()
        try:
            file = (root / "notebooks" / unquote(path)).resolve()
            if not path or not file.is_relative_to(root) or not file.exists():
                return None
            relative = Path(os.path.relpath(file, self._folder)).as_posix()
        except (OSError, ValueError):  # a name too long, or another drive
            return None
        return quote(relative) + (f"#{fragment}" if fragment else "")


def _anchors(notebook: nbformat.NotebookNode, name: str) -> dict[str, str]:
    """What Jupyter calls the headings of a notebook, as slugs -> their anchors in the report."""
    anchors: dict[str, str] = {}
    for index, cell in enumerate(notebook.cells):
        if cell.cell_type == "markdown":
            renderer = _Renderer(f"{name}-{index}", _Links(Path(), {}), cell.get("attachments", {}), ".")
            MarkdownWithMath(renderer=renderer).render(cell.source)
            for _, text, anchor in renderer.headings:
                anchors.setdefault(_slug(text), anchor)
    return anchors


class _Renderer(IPythonRenderer):
    """Markdown as HTML with MathML equations, anchored headings and links inside the report."""

    def __init__(self, prefix: str, links: _Links, attachments: dict, folder: str) -> None:
        super().__init__(escape=False, attachments=attachments, embed_images=True, path=folder)
        self.prefix, self.links = prefix, links
        self.headings: list[tuple[int, str, str]] = []

    def heading(self, text: str, level: int, **attrs: object) -> str:
        anchor = f"{self.prefix}-{len(self.headings)}-{_slug(text)}"
        self.headings.append((level, text, anchor))
        level = min(level + 1, 5)
        return f'<h{level} id="{html.escape(anchor)}">{text}</h{level}>\n'

    def link(self, text: str, url: str, title: str | None = None) -> str:
        target = self.links.target(url, self.prefix.rpartition("-")[0])
        return text if target is None else super().link(text, target, title)

    def table(self, text: str) -> str:
        return f'<div class="scroll"><table>{text}</table></div>\n'

    def block_math(self, body: str) -> str:
        return equation(body, block=True)

    def inline_math(self, body: str) -> str:
        return equation(body, block=False)

    def latex_environment(self, name: str, body: str) -> str:
        return equation(f"\\begin{{{name}}}{body}\\end{{{name}}}", block=True)


def equation(tex: str, block: bool) -> str:
    """An equation as MathML; as its LaTeX source where the converter refuses it or is not installed.

    Args:
        tex: LaTeX without the dollar signs.
        block: displayed on its own line.
    """
    try:
        from latex2mathml import exceptions
        from latex2mathml.converter import convert
    except ModuleNotFoundError:
        return _source(tex, block)
    # the converter's errors have no common base
    refusals = tuple(k for k in vars(exceptions).values() if isinstance(k, type) and issubclass(k, BaseException))
    tex = re.sub(r"\\arg(?![a-zA-Z])", r"\\operatorname{arg}", tex)  # the converter does not know it
    try:
        return convert(tex.strip(), display="block" if block else "inline")
    except (*refusals, IndexError, KeyError, ValueError):
        return _source(tex, block)


def write_report(
    path: PathLike, folder: PathLike, runs: Sequence[NotebookRun], title: str = "Run", seconds: float | None = None
) -> Path:
    """Write the report of a run.

    Args:
        path: the HTML file.
        folder: where the executed notebooks lie (``NotebookRun.path`` is relative to it).
        runs: what became of each notebook.
        title: first heading.
        seconds: wall time of the run in s; the sum over its notebooks when None (they may have run side by side).

    Returns:
        The file written.
    """
    path, folder = Path(path), Path(folder)
    lessons = {run.name: read_notebook(folder / run.path) for run in runs if _has_run(run, folder)}
    links = _Links(path.parent, lessons)
    sections, contents = [], []
    outcome: dict[str, list[str]] = {kind: [] for kind in OUTCOMES}
    for run in runs:
        name, status = html.escape(run.name), html.escape(run.status)
        heading, body, entries = name, "", []
        if run.name in lessons:
            notebook = lessons[run.name]
            heading, body, entries = _section(notebook, run.name, links, (folder / run.path).parent)
            for kind, thing in _marked(notebook, links):
                outcome[kind].append(thing)
        state = f'<p class="bad">{html.escape(run.error)}</p>' if run.error else ""
        facts = ", ".join(f"{k} = {json.dumps(v)}" for k, v in run.parameters.items() if k != "out")
        sections.append(
            f'<section id="{name}"><h2 class="title">{heading}</h2>\n'
            f'<p class="dim">{name}, {status}, {run.seconds:.0f} s. {html.escape(facts)}</p>'
            f"{state}{body}</section>"
        )
        inner = "".join(f'<li><a href="#{quote(anchor)}">{text}</a></li>' for text, anchor in entries)
        if entries:
            inner = f"<details><summary>parts: {len(entries)}</summary><ul>{inner}</ul></details>"
        mark = "" if run.status == "ok" else f' <span class="bad">{status}</span>'
        contents.append(f'<li><a href="#{quote(run.name)}">{heading}</a>{mark}{inner}</li>')
    done = sum(run.status == "ok" for run in runs)
    seconds = sum(run.seconds for run in runs) if seconds is None else seconds
    broken = [run for run in runs if run.status != "ok"]
    document = (
        '<!doctype html>\n<html lang="en"><head><meta charset="utf-8">\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        f"<title>{html.escape(title)}</title>\n"
        f"<style>{_STYLE}{HtmlFormatter().get_style_defs('.highlight')}</style>\n"
        f"</head><body>\n<h1>{html.escape(title)}</h1>\n"
        f'<p class="dim">{done} of {len(runs)} notebooks ran to the end, in {seconds:.0f} s. '
        "Code is folded; players and figures are part of this file."
        '<span class="small"> Tap a figure to see it large.</span></p>\n'
        f"{_outcome(outcome, broken)}"
        f"<nav><ol>{''.join(contents)}</ol></nav>\n{''.join(sections)}\n</body></html>\n"
    )
    with atomic_path(path) as temporary:
        temporary.write_text(document, encoding="utf-8")
    return path


def _has_run(run: NotebookRun, folder: Path) -> bool:
    return run.status != "skipped" and run.written and (folder / run.path).is_file()


def _marked(notebook: nbformat.NotebookNode, links: _Links) -> list[tuple[str, str]]:
    """(kind, HTML) of every output that the notebook marked as an outcome."""
    outputs = [output for cell in notebook.cells for output in cell.get("outputs", [])]
    return [
        (o.metadata["outcome"], _output(o, links)) for o in outputs if o.get("metadata", {}).get("outcome") in OUTCOMES
    ]


def _outcome(outcome: dict[str, list[str]], broken: Sequence[NotebookRun]) -> str:
    """The opening of the report; where nothing is marked, it says why."""
    missing = [kind for kind, things in outcome.items() if not things]
    errors = "".join(
        f'<p class="bad">{html.escape(f"{run.name} {run.status}")}: {html.escape(run.error or "no reason is known")}</p>'
        for run in broken
    )
    if missing == list(outcome):
        empty = "" if broken else "<p>This run trained no networks: none of its lessons has an outcome to show.</p>"
        return f'<section class="outcome" id="outcome"><h2>Outcome</h2>{errors}{empty}</section>\n'
    wrapped = {kind: f'<div class="{kind}">{"".join(things)}</div>' for kind, things in outcome.items() if things}
    if outcome["player"]:
        wrapped["player"] = f'<div class="players">{"".join(outcome["player"])}</div>'
    gap = f'<p class="bad">The run left no {", ".join(missing)}.</p>' if missing else ""
    return f'<section class="outcome" id="outcome"><h2>Outcome</h2>{"".join(wrapped.values())}{gap}{errors}</section>\n'


def _section(
    notebook: nbformat.NotebookNode, name: str, links: _Links, folder: Path
) -> tuple[str, str, list[tuple[str, str]]]:
    """Title, HTML body and table-of-contents entries (text, anchor) of one notebook."""
    title, parts, entries = "", [], []
    for index, cell in enumerate(notebook.cells):
        if cell.cell_type == "markdown":
            renderer = _Renderer(f"{name}-{index}", links, cell.get("attachments", {}), str(folder))
            text = MarkdownWithMath(renderer=renderer).render(cell.source)
            text = text.replace(
                "papermill-error-cell", f"{quote(name)}-papermill-error-cell"
            )  # one in each that failed
            if not title and renderer.headings and renderer.headings[0][0] == 1:
                title = renderer.headings[0][1]
                text = re.sub(r"<h2 id=.*?</h2>\n", "", text, count=1, flags=re.DOTALL)
            entries += [(text_, anchor) for level, text_, anchor in renderer.headings if level == 2]
            parts.append(text)
        elif cell.cell_type == "code" and cell.source.strip():
            code = highlight(cell.source, PythonLexer(), HtmlFormatter())
            outputs = "".join(_output(output, links) for output in cell.outputs)
            lines = [line for line in cell.source.strip().splitlines() if not line.startswith("# NBVAL")]
            first = html.escape("".join(lines[:1])[:70])
            parts.append(f"<details><summary>code: {first}</summary>{code}</details>")
            if outputs:
                parts.append(f'<div class="out">{outputs}</div>\n')
    return title or html.escape(name), "\n".join(parts), entries


def _output(output: nbformat.NotebookNode, links: _Links) -> str:
    """One output of a code cell as HTML. Progress bars (stderr) and bare widgets are left out."""
    if output.output_type == "stream":
        return "" if output.name == "stderr" else _printed(output.text)
    if output.output_type == "error":
        return f'<pre class="bad">{ansi2html(chr(10).join(output.traceback))}</pre>'
    data = output.get("data", {})
    if "application/vnd.jupyter.widget-view+json" in data:
        return '<p class="dim">(interactive in JupyterLab)</p>'
    for kind, subtype in _PICTURES.items():
        if kind in data:
            picture = data[kind].replace("\n", "")
            return (
                '<label class="figure"><input type="checkbox" aria-label="show the figure large">'
                f'<img alt="figure" loading="lazy" src="data:image/{subtype};base64,{picture}"></label>'
            )
    if "image/svg+xml" in data:
        return data["image/svg+xml"]
    if "text/html" in data:
        return f'<div class="scroll">{data["text/html"]}</div>'
    if "text/markdown" in data:
        return MarkdownWithMath(renderer=_Renderer("out-0", links, {}, ".")).render(data["text/markdown"])
    if "text/latex" in data:
        return equation(data["text/latex"].strip().strip("$"), block=True)
    return _printed(data["text/plain"]) if "text/plain" in data else ""


def _printed(text: str) -> str:
    """Printed text: sentences may be broken into lines, columns (two blanks within a line) keep theirs and scroll."""
    columns = any(re.search(r"\S {2,}\S", line) or line.startswith("  ") for line in text.splitlines())
    return f"<pre>{html.escape(text)}</pre>" if columns else f'<pre class="words">{html.escape(text)}</pre>'


def _source(tex: str, block: bool) -> str:
    tag = "pre" if block else "code"
    return f'<{tag} class="tex">{html.escape(tex.strip())}</{tag}>'


def _slug(text: str) -> str:
    return re.sub(r"[\W_]+", "-", re.sub(r"<[^>]+>", "", text).lower()).strip("-")
