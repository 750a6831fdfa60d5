"""What every committed lesson keeps: start, sizes, links, checks, recap and quiz; and what is advice on style.

A rule is a function of a :class:`Lesson` that returns its violations as lines ("cell 12: ..."); :data:`RULES` names
those that every committed lesson keeps, :data:`TASTE` those that are advice (``make lesson-lint``), and :func:`violations`
runs both. Nothing is executed: a lesson is read as it was committed.
"""

from __future__ import annotations

from collections.abc import Callable

from tests.contract.form import audio, figures, grain, links, sizes, symbols, words_per_line
from tests.contract.framing import closing, opening, start
from tests.contract.reading import Lesson
from tests.contract.running import checked, clean, exceptions, executed, exercises
from tests.contract.teaching import marks, pages, path_length, question, recap

__all__ = ["RULES", "TASTE", "Lesson", "violations", "words_per_line"]

RULES: dict[str, Callable[[Lesson], list[str]]] = {
    rule.__name__: rule
    for rule in (
        *(start, sizes, links, symbols, figures, audio),
        *(executed, clean, exceptions, checked, exercises),
        *(marks, recap, pages),
    )
}

#: Advice: warnings of ``make lesson-lint``, no test.
TASTE: dict[str, Callable[[Lesson], list[str]]] = {
    rule.__name__: rule for rule in (opening, closing, question, grain, path_length)
}


def violations(lesson: Lesson) -> dict[str, list[str]]:
    """Rule -> what breaks it, for the rules that are broken; empty for a good lesson."""
    return {name: found for name, rule in {**RULES, **TASTE}.items() if (found := rule(lesson))}
