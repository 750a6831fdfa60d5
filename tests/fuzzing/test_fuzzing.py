"""A short form of every target in each run of the suite; and the targets' own eyes are open."""

from __future__ import annotations

import dataclasses
import time
from pathlib import Path

import pytest

pytest.importorskip("hypothesis", reason="the extra dev is not installed")
pytest.importorskip("papermill", reason="the extra notebooks is not installed")

from hypothesis import strategies as st

from dccrn_lib.runtime.errors import AudioError
from tests.fuzzing import running
from tests.fuzzing.running import Target, fuzz
from tests.fuzzing.targets import TARGETS

EXAMPLES = 30


@pytest.mark.parametrize("name", TARGETS)
def test_damaged_inputs_are_taken_or_refused_by_a_documented_error(name: str):
    counts = fuzz(name, EXAMPLES, seed=0)
    print(counts)
    assert counts.failures == []
    assert counts.inputs == EXAMPLES and counts.refused > 0


@pytest.mark.parametrize("name", TARGETS)
def test_an_undamaged_input_is_taken(name: str):
    counts = fuzz(dataclasses.replace(TARGETS[name], inputs=st.builds(TARGETS[name].sound)), 1)
    assert (counts.taken, counts.failures) == (1, [])


def _raise(error: BaseException) -> None:
    raise error


@pytest.mark.parametrize(
    ("take", "words"),
    [
        (lambda given, folder: _raise(KeyError("x")), "KeyError"),
        (lambda given, folder: _raise(AudioError("one\ntwo")), "several lines"),
        (lambda given, folder: _raise(SystemExit(1)), "exit code 1"),
        (lambda given, folder: (folder.parent / "b").touch(), "written outside"),
        (lambda given, folder: (folder.parent / "above").write_text("x"), "written outside"),
        (lambda given, folder: bytearray(8 * 2**30), "MemoryError"),
        (lambda given, folder: time.sleep(60), "Hang"),
    ],
)
def test_what_must_not_happen_is_seen(take, words: str, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(running, "SECONDS", 1)
    monkeypatch.setattr(running, "WAITING", 2)
    counts = fuzz(Target("bad", st.just(b"given"), take), 1)
    assert len(counts.failures) == 1 and words in counts.failures[0]
    assert counts.inputs == 1 and counts.taken + counts.refused <= 1


def test_an_input_that_is_refused_as_documented_is_no_failure():
    def take(given: int, folder: Path) -> None:
        if given % 2:
            raise AudioError("odd")

    counts = fuzz(Target("even", st.integers(0, 5), take), 100)
    assert (counts.inputs, counts.taken, counts.refused, counts.failures) == (6, 3, 3, [])


def test_the_seed_decides_the_inputs():
    def seen(seed: int) -> list[int]:
        inputs: list[int] = []
        fuzz(Target("seen", st.integers(), lambda given, folder: inputs.append(given)), 20, seed)
        return inputs

    assert seen(1) == seen(1) != seen(2)
