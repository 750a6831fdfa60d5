"""Graders of the exercises: ``check_<name>(answer)`` says whether the answer is right and, if not, what is wrong.

A grader returns a :class:`Verdict`; in a notebook it shows as one line. It recognises the typical mistakes of its
exercise by their results, never by looking at the code, and none breaks off (:func:`grader` is around each). Each
``check_<name>`` has a ``solution_<name>`` that the tests grade, so that it stays right. Both stand in the ``exercises``
module of the lesson's package; import graders from there.
"""

from __future__ import annotations

import functools
import math
import numbers
from collections.abc import Callable
from dataclasses import dataclass
from types import EllipsisType, FunctionType
from typing import TYPE_CHECKING, Any, ParamSpec

import numpy as np
from torch import Tensor

if TYPE_CHECKING:
    from typing_extensions import TypeIs

P = ParamSpec("P")


@dataclass(frozen=True)
class Verdict:
    """Outcome of a grader: ``right`` and a ``message`` in a sentence. Truthy when right."""

    right: bool
    message: str

    def __bool__(self) -> bool:
        return self.right

    def __repr__(self) -> str:
        return f"{'Right' if self.right else 'Not yet'}: {self.message}"


def grader(check: Callable[P, Verdict]) -> Callable[P, Verdict]:
    """Decorator of a grader: an answer that stops with an error, or is no answer of its kind, gets a verdict, too.

    An answer that is a function works on copies of the tensors and arrays that it is given: one that computes in place
    is compared with what the grader holds, not with what it left behind.

    >>> grader(lambda answer: right() if answer(2) == 4 else wrong("no"))(lambda: 4)
    Not yet: it stopped with TypeError: <lambda>() takes 0 positional arguments but 1 was given
    """

    @functools.wraps(check)
    def grade(*args: P.args, **kwargs: P.kwargs) -> Verdict:
        try:
            # a function that is wrapped takes what it took
            return check(*map(_on_copies, args), **kwargs)  # pyright: ignore[reportCallIssue]
        except Exception as error:  # whatever the reader's code raises
            return wrong(f"it stopped with {type(error).__name__}: {error}")

    return grade


def _on_copies(answer: object) -> object:
    """A function that hands ``answer`` copies; what is no plain function comes back as it is (classes, layers, numbers)."""
    if not isinstance(answer, FunctionType | functools.partial):
        return answer

    def call(*args: Any, **kwargs: Any) -> Any:
        return answer(*map(_copied, args), **{name: _copied(value) for name, value in kwargs.items()})

    return call


def _copied(value: Any) -> Any:
    if isinstance(value, Tensor):
        return value.clone()
    if isinstance(value, dict):
        return {key: _copied(item) for key, item in value.items()}
    return value.copy() if isinstance(value, np.ndarray) else value


def right(message: str = "this is it.") -> Verdict:
    """A right answer."""
    return Verdict(True, message)


def wrong(message: str) -> Verdict:
    """A wrong answer; ``message`` says what is wrong and where to look."""
    return Verdict(False, message)


def is_unanswered(answer: object) -> TypeIs[None | EllipsisType]:
    """Whether the place of the answer still holds None or an ellipsis."""
    return answer is None or answer is ...


def number(answer: Any) -> float | None:
    """A finite float, or None for what is not a number.

    >>> number("no"), number(3), number(float("inf"))
    (None, 3.0, None)
    """
    try:
        value = float(answer)
    except (TypeError, ValueError):
        return None
    return value if math.isfinite(value) else None


def whole_number(answer: Any) -> int | None:
    """An int, or None for what is not a whole number; True and False are none.

    >>> whole_number(3.0), whole_number(3.5), whole_number(True)
    (3, None, None)
    """
    if isinstance(answer, bool) or not isinstance(answer, numbers.Real) or not math.isfinite(answer):
        return None
    # typeshed gives Real no __int__; every number that is one has it
    return int(answer) if answer == int(answer) else None  # pyright: ignore[reportArgumentType]


def given_number(answer: object) -> float | Verdict:
    """The one number that an answer is, or the verdict on an answer that is none."""
    if is_unanswered(answer):
        return wrong("there is no answer yet.")
    if isinstance(answer, Tensor) and answer.ndim == 0:
        answer = answer.item()
    if isinstance(answer, bool) or not isinstance(answer, numbers.Real):
        return wrong(f"the answer is one number, got {type(answer).__name__}.")
    return float(answer)


def called(answer: Callable | None, *inputs: Tensor) -> Tensor | Verdict:
    """What an answer returns, or the verdict on one that cannot be called or returns no tensor."""
    if is_unanswered(answer):
        return wrong("there is no answer yet.")
    if not callable(answer):
        return wrong(f"hand over the function itself, not what it returns (got {type(answer).__name__}).")
    out = answer(*inputs)
    if is_unanswered(out):
        return wrong("the function returns nothing yet.")
    if not isinstance(out, Tensor):
        return wrong(f"the function must return a tensor, got {type(out).__name__}.")
    return out


def close(a, b, relative: float = 1e-4, absolute: float = 1e-6) -> bool:
    """Whether two real tensors, arrays or lists have one shape and |a - b| <= absolute + relative |b| everywhere.

    >>> close([1.0, 2.0], [1.0, 2.00001]), close([1.0], [1.0, 1.0])
    (True, False)
    """
    a, b = (np.asarray(x.detach().cpu() if isinstance(x, Tensor) else x) for x in (a, b))
    return a.shape == b.shape and not np.iscomplexobj(a) and bool(np.allclose(a, b, rtol=relative, atol=absolute))
