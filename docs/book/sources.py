"""What the book is made of: the committed notebooks and documents, laid out as sphinx wants to read them.

The folder that :func:`lay_out` writes has the repository's own layout (``notebooks/``, ``docs/``, ``weights/``), so that
every relative link between documents and notebooks holds in the book too. No notebook is executed: outputs are those
that are committed. What is added on the way: a folded solution below each exercise, the pages of ``docs/book/pages``,
the lessons that cite each entry of the bibliography, and the reference of the public names.
"""

from __future__ import annotations

import base64
import html
import importlib
import inspect
import json
import os
import pkgutil
import re
import shutil
import subprocess
from collections.abc import Iterable
from pathlib import Path

DOCUMENTS = ("README.md", "CONTRIBUTING.md", "CHANGELOG.md", "weights/README.md")
# entries of the contents that are left out while there is no such document
OPTIONAL = ("docs/glossary", "docs/notation")
CHECK = re.compile(r"\bcheck_(\w+)\(")
GRADERS = re.compile(r"from (dccrn_lib\.lessons\.\w+)(?:\.exercises import|.* import .*\bexercises\b)")
WORK = re.compile(r"arxiv\.org/abs/(\d{4}\.\d{4,5})|doi\.org/(10\.[^\s)]+)")
LINK = re.compile(r"\]\(([^)#\s:]+)(?:#[^)\s]*)?\)")
INTERVAL = re.compile(r"(?<= )\[([-+]?\d[\d.e+-]*), ([-+]?\d[\d.e+-]*)\](?!\()")
OWN_ANCHOR = re.compile(r"\]\(#([^)\s]+)\)")

# Packages that have a page of the reference.
PACKAGES = (
    "audio", "corpus", "networks", "distillation", "losses", "training", "enhancement", "evaluation", "results",
    "runtime.errors",
)  # fmt: skip


def repository_address(root: Path) -> str | None:
    """ "owner/name" on GitHub: from GITHUB_REPOSITORY, the remote ``origin`` or a badge of the README; None if unknown.

    Args:
        root: the project's root folder.
    """
    named = os.environ.get("GITHUB_REPOSITORY", "")
    if re.fullmatch(r"[\w.-]+/[\w.-]+", named):
        return named
    command = ["git", "-C", str(root), "remote", "get-url", "origin"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    readme = (root / "README.md").read_text(encoding="utf-8")
    for text in (done.stdout.strip(), readme):
        match = re.search(
            r"(?:github\.com[/:]|colab\.research\.google\.com/github/)([\w.-]+/[\w.-]+?)(?:\.git|/|\)|$)", text
        )
        if match:
            return match[1]
    return None


def lay_out(root: Path, target: Path) -> Path:
    """Write the sources of the book into ``target``, which is emptied first.

    Args:
        root: the project's root folder.
        target: a folder for sphinx to read.

    Returns:
        ``target``.
    """
    shutil.rmtree(target, ignore_errors=True)
    target.mkdir(parents=True)
    documents = [root / name for name in DOCUMENTS] + sorted((root / "docs").glob("*.md"))
    notebooks = sorted((root / "notebooks").glob("*.ipynb"))  # not JupyterLab's .ipynb_checkpoints
    for document in documents:
        _write(target / document.relative_to(root), unbroken(document.read_text(encoding="utf-8")))
    for path in notebooks:
        notebook = json.loads(path.read_text(encoding="utf-8"))
        _write(
            target / path.relative_to(root),
            json.dumps(lesson(notebook, answers=path.stem == "solutions"), ensure_ascii=False),
        )
    for file in linked_files(root, [*documents, *notebooks]):
        (target / file).parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(root / file, target / file)
    for page in sorted((root / "docs" / "book" / "pages").glob("*.md")):
        text = page.read_text(encoding="utf-8")
        if page.name == "index.md":
            text = without_absent(text, target)
        elif page.name == "bibliography.md":
            text = bibliography(text, citations(root, [*documents, *notebooks]))
        _write(target / page.name, text)
    for name, text in reference().items():
        _write(target / "api" / name, text)
    return target


def without_absent(text: str, target: Path) -> str:
    """The start page without the entries of its contents that have no document (yet) in ``target``."""
    absent = [f"{name}\n" for name in OPTIONAL if not (target / f"{name}.md").is_file()]
    return "".join(line for line in text.splitlines(keepends=True) if line not in absent)


def lesson(notebook: dict, answers: bool = False) -> dict:
    """A notebook as a page: solutions folded in, the check for the installation folded, no marks of tests, new anchors.

    A cell tagged ``solution``, or that begins with the comment ``# Solution``, is folded whole.

    Args:
        notebook: the notebook's JSON, which is left as it is.
        answers: it is the notebook of worked answers: their code is folded, and nothing is added.

    Returns:
        The JSON of a new notebook.
    """
    cells, graders = [], None
    for cell in notebook["cells"]:
        source, tags = "".join(cell["source"]), list(cell["metadata"].get("tags", []))
        if cell["cell_type"] == "markdown":
            source = OWN_ANCHOR.sub(lambda m: f"](#{slug(m[1].replace('-', ' '))})", source)
            source = with_attachments(source, cell.get("attachments", {}))
        source = source.removeprefix("# NBVAL_CHECK_OUTPUT\n")
        if "importlib.util.find_spec" in source:
            tags.append("hide-input")
        elif "solution" in tags or source.startswith("# Solution"):
            tags.append("hide-cell")
        elif answers and cell["cell_type"] == "code" and CHECK.search(source):
            tags.append("hide-input")
        cells.append(cell | {"source": source, "metadata": cell["metadata"] | {"tags": tags}})
        if cell["cell_type"] != "code" or answers:
            continue
        if found := GRADERS.search(source):
            graders = importlib.import_module(f"{found[1]}.exercises")
        for name in CHECK.findall(source) if graders else []:
            if (text := solution(graders, name)) is not None:
                cells.append({"cell_type": "markdown", "id": f"solution-{name}"[:64], "metadata": {}, "source": text})
    return notebook | {"cells": cells}


def solution(module, name: str) -> str | None:
    """Markdown that folds the source of ``solution_<name>`` of a module; None if it has no such function."""
    function = getattr(module, f"solution_{name}", None)
    if function is None:
        return None
    code = inspect.getsource(function).rstrip()
    return f'<details class="solution"><summary>Solution</summary>\n\n```python\n{code}\n```\n\n</details>'


def with_attachments(source: str, attachments: dict[str, dict]) -> str:
    """Markdown with the pictures that are attached to its cell inside, as data.

    They become elements of HTML: Markdown takes no SVG as data.
    """
    for name, bundle in attachments.items():
        for mime, content in bundle.items():
            text = "".join(content)
            if text.lstrip().startswith("<"):  # an SVG as it is, not in base64
                text = base64.b64encode(text.encode()).decode()
            data = f"data:{mime};base64,{''.join(text.split())}"
            source = re.sub(
                rf"!\[([^\]]*)\]\(attachment:{re.escape(name)}\)",
                lambda m, data=data: f'<img alt="{html.escape(m[1])}" src="{data}">',
                source,
            )
    return source


def unbroken(text: str) -> str:
    """Markdown whose intervals stay in one line.

    >>> unbroken("| 6.27 [5.63, 6.9] better |") == "| 6.27 [5.63,\\u00a06.9] better |"
    True
    """
    return INTERVAL.sub("[\\1,\u00a0\\2]", text)


def slug(heading: str) -> str:
    """The anchor of a heading: lower case, without punctuation, a hyphen for each space.

    >>> slug("Recap and quiz: 3 questions")
    'recap-and-quiz-3-questions'
    """
    return re.sub(r"[^\w\- ]", "", heading.strip().lower()).replace(" ", "-")


def prose(path: Path) -> str:
    """The text of a document, or of the Markdown cells of a notebook."""
    text = path.read_text(encoding="utf-8")
    if path.suffix != ".ipynb":
        return text
    cells = json.loads(text)["cells"]
    return "\n\n".join("".join(cell["source"]) for cell in cells if cell["cell_type"] == "markdown")


def linked_files(root: Path, pages: Iterable[Path]) -> list[Path]:
    """Files, relative to ``root``, that pages link to or show and that are no pages themselves."""
    files = set()
    for page in pages:
        for target in LINK.findall(prose(page)):
            file = (page.parent / target).resolve()
            if file.is_file() and file.suffix not in (".md", ".ipynb") and file.is_relative_to(root.resolve()):
                files.add(file.relative_to(root.resolve()))
    return sorted(files)


def citations(root: Path, pages: Iterable[Path]) -> dict[str, list[Path]]:
    """Number of each arXiv paper or DOI that is linked to -> the pages that do so, relative to ``root``."""
    cited: dict[str, list[Path]] = {}
    for page in pages:
        for number in {first or second for first, second in WORK.findall(prose(page))}:
            cited.setdefault(number, []).append(page.relative_to(root))
    return cited


def bibliography(text: str, cited: dict[str, list[Path]]) -> str:
    """The page of the bibliography with "Cited in ..." at the end of each entry that links to a cited work."""
    entries = re.split(r"(?m)^(?=- )", text)
    for i, entry in enumerate(entries[1:], 1):
        body, space = entry.rstrip(), entry[len(entry.rstrip()) :]
        body, after = (body.split("\n\n", 1) + [""])[:2]
        numbers = [first or second for first, second in WORK.findall(body)]
        pages = sorted({page for number in numbers for page in cited.get(number, [])})
        if pages:
            links = ", ".join(f"[{_short(page)}]({page.as_posix()})" for page in pages)
            body += f" *Cited in* {links}."
        entries[i] = body + (f"\n\n{after}" if after else "") + space
    return "".join(entries)


def reference() -> dict[str, str]:
    """Pages of the reference, file name -> reStructuredText: the names of ``dccrn_lib`` in a table, then each package."""
    import dccrn_lib

    public = {name: where.rstrip(":") for name, where in sorted(dccrn_lib._PUBLIC.items())}
    pages = {}
    for package in PACKAGES:
        module = importlib.import_module(f"dccrn_lib.{package}")
        shown = _surface(module)
        for name, where in dccrn_lib._PUBLIC.items():
            if where.split(".")[0].rstrip(":") == package:
                shown[name] = where
        heading = _heading(f"dccrn_lib.{package}", "=")
        body = "".join(_entry(name, where) for name, where in sorted(shown.items(), key=lambda item: item[0].lower()))
        pages[f"{package}.rst"] = f"{heading}{inspect.cleandoc(module.__doc__ or '')}\n\n{body}"
    rows = "".join(
        f"   * - :ref:`{name} <{_label(name, where)}>`\n     - {_summary(name, dccrn_lib._PUBLIC[name])}\n"
        for name, where in public.items()
    )
    toctree = "".join(f"   {package}\n" for package in PACKAGES)
    pages["index.rst"] = (
        f"{_heading('API reference', '=')}What ``from dccrn_lib import ...`` offers. Each page below holds the names of "
        "one package; the command line is described in :doc:`commands </docs/commands>`.\n\n"
        f".. list-table::\n   :widths: 30 70\n\n{rows}\n.. toctree::\n   :caption: Packages\n   :maxdepth: 1\n\n{toctree}"
    )
    return pages


def _surface(module) -> dict[str, str]:
    """Public name -> module that defines it, without the leading ``dccrn_lib.``; with a colon if it is that module.

    The names are those of ``__all__``; without one, the functions and classes that the module and its modules define.
    """
    table = {}
    for name in getattr(module, "__all__", ()):
        value = getattr(module, name)
        if inspect.ismodule(value):
            table[name] = f"{_inner(value.__name__)}:"
        else:
            own = inspect.isclass(value) or inspect.isfunction(value)
            table[name] = _inner(value.__module__ if own else module.__name__)
    if hasattr(module, "__all__"):
        return table
    inner = [name for _, name, _ in pkgutil.iter_modules(getattr(module, "__path__", []))]
    for part in [module, *(importlib.import_module(f"{module.__name__}.{name}") for name in inner)]:
        for name, value in vars(part).items():
            kind = inspect.isclass(value) or inspect.isfunction(value)
            if kind and value.__module__ == part.__name__ and not name.startswith("_"):
                table[name] = _inner(part.__name__)
    return table


def _inner(module: str) -> str:
    return module.removeprefix("dccrn_lib.")


def _label(name: str, where: str) -> str:
    return f"api-{where}.{name}"


def _heading(text: str, line: str) -> str:
    return f"{text}\n{line * len(text)}\n\n"


def _summary(name: str, where: str) -> str:
    """First line of the docstring of a public name."""
    module = importlib.import_module(f"dccrn_lib.{where.rstrip(':')}")
    value = module if where.endswith(":") else getattr(module, name)
    if not (inspect.ismodule(value) or inspect.isclass(value) or inspect.isfunction(value)):
        return "The presets of the networks, by name." if name == "PRESETS" else ""
    return inspect.cleandoc(value.__doc__ or "").split("\n\n")[0].replace("\n", " ")


def _entry(name: str, where: str) -> str:
    """Label, heading and autodoc directive of a public name; ``where`` as in :func:`_surface`."""
    module = importlib.import_module(f"dccrn_lib.{where.rstrip(':')}")
    head = f".. _{_label(name, where.rstrip(':'))}:\n\n{_heading(name, '-')}"
    if where.endswith(":"):
        return f"{head}.. automodule:: {module.__name__}\n   :members:\n\n"
    value, path = getattr(module, name), f"{module.__name__}.{name}"
    if inspect.isclass(value):
        return f"{head}.. autoclass:: {path}\n   :members:\n\n"
    if inspect.isfunction(value):
        return f"{head}.. autofunction:: {path}\n\n"
    names = f"Its names: {', '.join(f'``{key}``' for key in value)}.\n\n" if isinstance(value, (dict, tuple)) else ""
    return f"{head}.. py:data:: {path}\n\n{names}"


def _short(page: Path) -> str:
    """How a page is named in a list: the number of a lesson, the name of a document."""
    return f"lesson {page.stem.split('_')[0]}" if page.suffix == ".ipynb" and page.stem[0].isdigit() else page.stem


def _write(path: Path, text: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text, encoding="utf-8")
