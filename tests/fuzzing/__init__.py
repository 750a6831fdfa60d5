"""Damaged and hostile inputs, made by hypothesis, thrown at everything that reads what others wrote.

A target makes inputs and hands each to the library. The property is one for all of them: the input is taken, or refused by
a documented error (``dccrn_lib.runtime.errors``, or the exit code 2 of bad usage); nothing hangs, nothing asks for
gigabytes, and nothing is written outside the folder that the target was given::

    from tests.fuzzing import TARGETS, fuzz

    counts = fuzz("recordings", examples=1000, seed=1)
    print(counts)            # recordings: 1000 inputs, 312 taken, 688 refused, 0 failed
    assert not counts.failures

``python -m tests.fuzzing --examples 1000 --seed 1`` runs all of them. The test suite has a short form of each.
"""

from tests.fuzzing.running import Counts, Target, fuzz
from tests.fuzzing.targets import TARGETS

__all__ = ["TARGETS", "Counts", "Target", "fuzz"]
