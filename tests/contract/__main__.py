"""Advice for the authors of lessons: ``make lesson-lint`` prints it and never fails."""

from __future__ import annotations

from dccrn_lib.results.records import load_result
from dccrn_lib.runtime.paths import notebooks_dir
from tests.contract import TASTE, Lesson
from tests.contract.framing import stated_seconds

measured = {row["notebook"]: row["seconds"] for row in load_result("tutorial_times")["rows"]}
for path in sorted(notebooks_dir().glob("[0-9]*.ipynb")):
    lesson = Lesson.read(path)
    advice = [line for rule in TASTE.values() for line in rule(lesson)]
    stated = stated_seconds(lesson)
    if path.stem in measured and stated and not stated[0] / 2 <= measured[path.stem] <= 2 * stated[1]:
        advice.append(f"says {stated[0]} to {stated[1]} s, measured {measured[path.stem]} s")
    for line in advice:
        print(f"warning: {path.stem}: {line}")
