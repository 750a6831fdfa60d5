"""Graders of the exercises: ``check_<name>(answer)`` says whether the answer is right and, if not, what is wrong.

A grader returns a :class:`Verdict`; in a notebook it shows as one line. It recognises the typical mistakes of its
exercise by their results, never by looking at the code. Solutions live in ``<topic>_solutions`` functions that the
tests run, so that they stay right. Modules are named after the notebooks' topics; import graders from those.
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Verdict:
    """Outcome of a grader: ``right`` and a ``message`` in a sentence. Truthy when right."""

    right: bool
    message: str

    def __bool__(self) -> bool:
        return self.right

    def __repr__(self) -> str:
        return f"{'Right' if self.right else 'Not yet'}: {self.message}"


def right(message: str = "this is it.") -> Verdict:
    """A right answer."""
    return Verdict(True, message)


def wrong(message: str) -> Verdict:
    """A wrong answer; ``message`` says what is wrong and where to look."""
    return Verdict(False, message)
