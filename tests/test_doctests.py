"""The examples in docstrings give what they say."""

from __future__ import annotations

import doctest
import importlib
import pkgutil

import pytest

import dccrn_lib

MODULES = sorted(m.name for m in pkgutil.walk_packages(dccrn_lib.__path__, "dccrn_lib.") if "__main__" not in m.name)


@pytest.mark.parametrize("name", ["dccrn_lib", *MODULES])
def test_examples_give_what_they_say(name: str):
    try:
        module = importlib.import_module(name)
    except ModuleNotFoundError as missing:  # an extra that is not installed; a module of our own that is missing fails
        if (missing.name or "").startswith("dccrn_lib"):
            raise
        pytest.skip(f"{missing.name} is not installed")
    assert doctest.testmod(module).failed == 0
