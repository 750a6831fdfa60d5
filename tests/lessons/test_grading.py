"""Whatever a reader hands over, a grader answers with a verdict."""

from __future__ import annotations

import importlib.util
import inspect
import pkgutil
from typing import Any

import numpy as np
import pytest
import torch

from dccrn_lib import lessons
from dccrn_lib.lessons.grading import Verdict, grader, right

MODULES = [name for _, name, package in pkgutil.iter_modules(lessons.__path__) if package]
GRADERS = {
    f"{module}.{name}": function
    for module in MODULES
    if importlib.util.find_spec(f"dccrn_lib.lessons.{module}.exercises")
    for name, function in vars(importlib.import_module(f"dccrn_lib.lessons.{module}.exercises")).items()
    if name.startswith("check_")
}


def raises(*_: Any) -> None:
    raise RuntimeError("unfinished")


ANSWERS = {
    "a function that raises": raises,
    "one argument too few": lambda: 3,
    "a function that returns a number": lambda *_: 3,
    "a function that returns text": lambda *_: "text",
    "a function that returns what it got": lambda *values: values[0],
    "text": "text",
    "a number": -3,
    "a list": [[1], 2],
    "nothing": None,
}


@pytest.mark.parametrize("answer", ANSWERS.values(), ids=ANSWERS.keys())
@pytest.mark.parametrize("check", GRADERS.values(), ids=GRADERS.keys())
def test_no_answer_breaks_a_grader(check, answer: Any):
    others = len(inspect.signature(check).parameters) - 1
    verdict = check(answer, *[2.0] * others)
    assert isinstance(verdict, Verdict) and not verdict and verdict.message


def test_an_answer_works_on_copies():
    """One that computes in place is not compared with what it left behind."""
    given = {}

    @grader
    def check(answer):
        given.update(tensor=torch.ones(3), array=np.ones(3), features={"encoder.0": torch.ones(3)})
        answer(given["tensor"], given["array"], features=given["features"])
        return right()

    def answer(tensor, array, features):
        tensor += 1
        array += 1
        features["encoder.0"] += 1
        features["encoder.1"] = tensor

    assert check(answer)
    assert given["tensor"].sum() == given["array"].sum() == given["features"]["encoder.0"].sum() == 3
    assert list(given["features"]) == ["encoder.0"]


def test_an_error_of_the_answer_is_named():
    start = importlib.import_module("dccrn_lib.lessons.start.exercises")
    assert repr(start.check_snr(raises)) == "Not yet: it stopped with RuntimeError: unfinished"
