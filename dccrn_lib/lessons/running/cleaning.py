"""Cleaning executed notebooks for the repository: what differs from machine to machine goes."""

from __future__ import annotations

import copy
import json
import os
import re
from pathlib import Path
from typing import cast

import nbformat

from dccrn_lib.lessons.running.notebook_file import read_notebook
from dccrn_lib.runtime.errors import DccrnError
from dccrn_lib.runtime.files import atomic_path
from dccrn_lib.runtime.paths import PathLike, project_root

_LEFTOVER = re.compile(r"/(?:home|root|Users|tmp)/[\w.-]+|\b[A-Z]:\\Users\\|\b0x[0-9a-f]{8,}")
_KEPT_METADATA = ("tags", "jupyter", "slideshow")


def clean_notebook(path: PathLike) -> Path:
    """Clean a notebook file where it lies; errors as of :func:`cleaned` and :func:`write_notebook`."""
    path = Path(path)
    write_notebook(cleaned(read_notebook(path), path.name), path)
    return path


def cleaned(notebook: nbformat.NotebookNode, name: str = "notebook") -> nbformat.NotebookNode:
    """A copy without what differs from machine to machine.

    Timings, widget state and views, stderr, editor metadata go; paths below the project root become relative;
    executed cells are numbered 1, 2, 3 ...

    Raises:
        DccrnError: a machine path or memory address is left in an output; the message names the cell.
    """
    notebook = copy.deepcopy(notebook)
    kept = {"dccrn": notebook.metadata["dccrn"]} if "dccrn" in notebook.metadata else {}
    notebook.metadata = nbformat.from_dict(
        {
            "kernelspec": {"display_name": "Python 3", "language": "python", "name": "python3"},
            "language_info": {"name": "python"},
            **kept,
        }
    )
    count = 0
    for index, cell in enumerate(notebook.cells):
        cell.metadata = nbformat.from_dict({k: v for k, v in cell.metadata.items() if k in _KEPT_METADATA})
        if cell.cell_type != "code":
            continue
        if cell.execution_count is not None:
            count += 1
            cell.execution_count = count
        cell.outputs = [output for output in map(_clean_output, cell.outputs) if output is not None]
        for output in cell.outputs:
            if output.output_type == "execute_result":
                output.execution_count = cell.execution_count
            leftover = _LEFTOVER.search(_text_of(output))
            if leftover:
                raise DccrnError(
                    f"{name}: cell {index} prints {leftover.group()!r}, which differs between machines; "
                    "print a relative path or no address"
                )
    return notebook


def _clean_output(output: nbformat.NotebookNode) -> nbformat.NotebookNode | None:
    if output.output_type == "stream" and output.name == "stderr":
        return None
    if "application/vnd.jupyter.widget-view+json" in output.get("data", {}):
        return None
    if "metadata" in output:
        output.metadata = nbformat.from_dict({k: v for k, v in output.metadata.items() if k == "outcome"})
    root = str(project_root().resolve())
    text = json.dumps(output).replace(json.dumps(root + os.sep)[1:-1], "").replace(json.dumps(root)[1:-1], ".")
    return cast(nbformat.NotebookNode, nbformat.from_dict(json.loads(text)))


def _text_of(output: nbformat.NotebookNode) -> str:
    """Everything an output says in words; embedded pictures and sounds are not searched."""
    texts = [output.get("text", ""), *output.get("traceback", [])]
    texts += [v for k, v in output.get("data", {}).items() if k.startswith("text/") and isinstance(v, str)]
    return re.sub(r"base64,[A-Za-z0-9+/=\s]+", "", "\n".join(texts))


def write_notebook(notebook: nbformat.NotebookNode, path: Path) -> None:
    """Validate and write a notebook atomically.

    Raises:
        DccrnError: it has parts that the format does not know; nothing is written.
    """
    try:
        nbformat.validate(notebook)
    except nbformat.ValidationError as error:
        raise DccrnError(
            f"{path.name}: {' '.join(str(error).split())[:200]}; take out what is not of the format"
        ) from None
    with atomic_path(path) as temporary:
        nbformat.write(notebook, temporary)
