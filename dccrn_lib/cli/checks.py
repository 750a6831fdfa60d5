"""Types of arguments: each checks a text before the work begins, and raises ``argparse.ArgumentTypeError``."""

from __future__ import annotations

import argparse
import math
import os
import re
from pathlib import Path

from dccrn_lib.runtime.errors import ConfigError
from dccrn_lib.runtime.files import require_place, require_stem, require_writable
from dccrn_lib.runtime.settings import LARGEST_COUNT, LARGEST_SEED, shown


def positive(text: str) -> float:
    """A finite number above 0."""
    value = _number(text)
    if not 0 < value < math.inf:
        raise argparse.ArgumentTypeError(f"{text} is not above 0 and finite")
    return value


def count(text: str) -> int:
    """A whole number from 1."""
    value = _whole(text)
    if value < 1:
        raise argparse.ArgumentTypeError(f"must be at least 1, got {value}")
    if value > LARGEST_COUNT:
        raise argparse.ArgumentTypeError(f"must be at most {LARGEST_COUNT}, got {shown(text)}")
    return value


def seed(text: str) -> int:
    """A seed of a random generator."""
    value = _whole(text)
    if not 0 <= value <= LARGEST_SEED:
        raise argparse.ArgumentTypeError(f"must be 0 or more and below 2^63, got {shown(text)}")
    return value


def fraction(text: str) -> float:
    """A number from 0 to 1."""
    value = _number(text)
    if not 0 <= value <= 1:
        raise argparse.ArgumentTypeError(f"must lie in [0, 1], got {text}")
    return value


def _number(text: str) -> float:
    try:
        return float(text)
    except ValueError:
        raise argparse.ArgumentTypeError(f"{shown(text)} is not a number") from None


def _whole(text: str) -> int:
    try:
        return int(text)
    except ValueError:
        raise argparse.ArgumentTypeError(f"{shown(text)} is not a whole number") from None


def named(text: str) -> str:
    """A path; the empty one is an unset variable of the shell, not the folder one is in."""
    if not text:
        raise argparse.ArgumentTypeError("is empty; give a name, or . for the folder you are in")
    return text


def folder(text: str) -> str:
    """A folder to write to, refused before the work begins rather than after it."""
    path = Path(named(text))
    _place(path, path)
    return text


def file(text: str) -> str:
    """A file to write, refused before the work begins rather than after it."""
    path = Path(named(text))
    if os.path.isdir(path):
        raise argparse.ArgumentTypeError(f"{path} is a folder; name a file in it")
    _place(path, path.parent)
    return text


def stem(text: str) -> str:
    """The name of a record: no folder in it, for that has an option of its own."""
    try:
        require_stem(text)
    except ConfigError as error:
        raise argparse.ArgumentTypeError(str(error)) from None
    return text


def _place(path: Path, folder: Path) -> None:
    """Refuse a path among the devices, below a file or in a read-only folder; ``folder`` takes what is written."""
    wrong = next((p for p in (folder, *folder.parents) if os.path.exists(p) and not os.path.isdir(p)), None)
    try:
        require_place(path)
        if wrong is not None:
            raise ConfigError(f"{wrong} is a file, not a folder; choose another place")
        require_writable(path, path == folder)
    except ConfigError as error:
        raise argparse.ArgumentTypeError(str(error)) from None


def device(text: str) -> str:
    """A device that torch knows; whether it is there is asked when the command runs."""
    if not re.fullmatch(r"(auto|cpu|cuda|mps|xpu)(:\d+)?", text):
        raise argparse.ArgumentTypeError(f"unknown device {text!r}; use cpu, cuda or cuda:1")
    return text
