"""What every committed lesson keeps: opening, closing, grain, sizes, links, checks.

A rule is a function of a :class:`Lesson` that returns its violations as lines ("cell 12: ..."); :data:`RULES` names
them all and :func:`violations` runs them. Nothing is executed: a lesson is read as it was committed.
"""

from __future__ import annotations

from collections.abc import Callable

from contract.form import audio, figures, grain, links, sizes, symbols, words_per_line
from contract.framing import closing, opening
from contract.reading import Lesson
from contract.running import checked, clean, exceptions, executed, exercises

__all__ = ["RULES", "Lesson", "violations", "words_per_line"]

RULES: dict[str, Callable[[Lesson], list[str]]] = {
    rule.__name__: rule
    for rule in (
        *(opening, closing),
        *(grain, sizes, links, symbols, figures, audio),
        *(executed, clean, exceptions, checked, exercises),
    )
}


def violations(lesson: Lesson) -> dict[str, list[str]]:
    """Rule -> what breaks it, for the rules that are broken; empty for a good lesson."""
    return {name: found for name, rule in RULES.items() if (found := rule(lesson))}
