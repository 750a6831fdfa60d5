"""Types of arguments: each checks a text before the work begins."""

from __future__ import annotations

import argparse
import math
import os
import re
from pathlib import Path


def positive(text: str) -> float:
    try:
        value = float(text)
    except ValueError:
        raise argparse.ArgumentTypeError(f"{text!r} is not a number") from None
    if not 0 < value < math.inf:
        raise argparse.ArgumentTypeError(f"{text} is not above 0 and finite")
    return value


def count(text: str) -> int:
    """A whole number from 1."""
    value = _whole(text)
    if value < 1:
        raise argparse.ArgumentTypeError(f"must be at least 1, got {value}")
    return value


def seed(text: str) -> int:
    """A seed of a random generator."""
    value = _whole(text)
    if value < 0:
        raise argparse.ArgumentTypeError(f"must be 0 or more, got {value}")
    return value


def _whole(text: str) -> int:
    try:
        return int(text)
    except ValueError:
        raise argparse.ArgumentTypeError(f"{text!r} is not a whole number") from None


def named(text: str) -> str:
    """A path; the empty one is an unset variable of the shell, not the folder one is in."""
    if not text:
        raise argparse.ArgumentTypeError("is empty; give a name, or . for the folder you are in")
    return text


def folder(text: str) -> str:
    """A folder to write to, refused before the work begins rather than after it."""
    path = Path(named(text))
    wrong = next((p for p in (path, *path.parents) if os.path.exists(p) and not os.path.isdir(p)), None)
    if wrong is not None:
        raise argparse.ArgumentTypeError(f"{wrong} is a file, not a folder; choose another place")
    return text


def file(text: str) -> str:
    """A file to write, refused before the work begins rather than after it."""
    path = Path(named(text))
    if os.path.isdir(path):
        raise argparse.ArgumentTypeError(f"{path} is a folder; name a file in it")
    folder(str(path.parent))
    return text


def device(text: str) -> str:
    """A device that torch knows; whether it is there is asked when the command runs."""
    if not re.fullmatch(r"(auto|cpu|cuda|mps|xpu)(:\d+)?", text):
        raise argparse.ArgumentTypeError(f"unknown device {text!r}; use cpu, cuda or cuda:1")
    return text
