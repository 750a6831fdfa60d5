"""Run the code cells of a lesson in plain Python, in its folder, at the profile smoke; nothing is drawn or stored.

    python cells.py notebook.ipynb OUT ID [ID ...]

runs up to the last of the cells named and prints, as the last line, JSON: {"package": where dccrn_lib came from,
"passed": ids of the named cells that passed, "failed": id of the cell that ended the run or null, "why": one line}.
A named cell fails when it raises; one that nbval checks also when it does not print what is committed. Any other cell
that raises ends the run. ``OUT`` is the folder for what the lesson writes.
"""

from __future__ import annotations

import contextlib
import io
import json
import os
import sys
import traceback
from pathlib import Path


def run(notebook: Path, out: str, wanted: list[str]) -> dict:
    """See above."""
    cells = [c for c in json.loads(notebook.read_text(encoding="utf-8"))["cells"] if c["cell_type"] == "code"]
    last = max(i for i, cell in enumerate(cells) if cell["id"] in wanted)
    space: dict = {"__name__": "__main__"}
    passed: list[str] = []
    result = {"passed": passed, "failed": None, "why": ""}
    for cell in cells[: last + 1]:
        source = "".join(cell["source"])
        printed = io.StringIO()
        try:
            with contextlib.redirect_stdout(printed):
                exec(compile(source, f"cell {cell['id']}", "exec"), space)
        except BaseException as error:
            result |= {"failed": cell["id"], "why": _one_line(error, source, f"cell {cell['id']}")}
            break
        if "parameters" in cell["metadata"].get("tags", []):
            space |= {name: value for name, value in (("profile", "smoke"), ("out", out)) if name in space}
        if cell["id"] not in wanted:
            continue
        committed = "".join("".join(o["text"]) for o in cell["outputs"] if o.get("name") == "stdout")
        if "NBVAL_CHECK_OUTPUT" in source and printed.getvalue() != committed:
            lines = zip(printed.getvalue().splitlines(), committed.splitlines(), strict=False)
            here = next((f"prints {a!r}, committed is {b!r}" for a, b in lines if a != b), "prints more or less")
            result |= {"failed": cell["id"], "why": here}
            break
        passed.append(cell["id"])
    return result | {"package": sys.modules["dccrn_lib"].__file__ if "dccrn_lib" in sys.modules else ""}


def _one_line(error: BaseException, source: str, where: str) -> str:
    """Kind and message of an exception; the line of the cell that raised it when there is no message."""
    lines = [f.lineno for f in traceback.extract_tb(error.__traceback__) if f.filename == where]
    said = str(error) or (source.splitlines()[lines[-1] - 1].strip() if lines else "")
    return f"{type(error).__name__}: {said.splitlines()[0] if said else ''}"


if __name__ == "__main__":
    path = Path(sys.argv[1]).resolve()
    os.chdir(path.parent)
    print(json.dumps(run(path, sys.argv[2], sys.argv[3:])))
