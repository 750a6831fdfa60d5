"""Damaged inputs by the thousand, made by ``tests/fuzzing``: each is taken or refused by a documented error."""

from __future__ import annotations

import contextlib
import importlib
import os
import sys
from collections.abc import Iterator
from functools import partial

from tests.soak.place import Place
from tests.soak.rows import Row, plain

# beside this package: below ``tests`` for ``python -m tests.soak``, at the top under pytest
_fuzzing = importlib.import_module(f"{__package__.removesuffix('soak')}fuzzing")
fuzz, TARGETS = _fuzzing.fuzz, _fuzzing.TARGETS

#: Inputs of the full form, for each target; together more than 10,000.
INPUTS = {
    "recordings": 2000, "manifests": 2500, "settings": 1500, "weights": 1000, "checkpoints": 700, "shards": 1000,
    "parameters": 1500, "notebooks": 700,
}  # fmt: skip


def fuzzed(place: Place, name: str) -> Row:
    """So many inputs for one target."""
    row = Row("fuzz", name)
    with _without_remarks():
        counts = fuzz(name, place.count(INPUTS.get(name, 1000), 10), place.seed)
    row.tried, row.failures = counts.inputs, [plain(failure) for failure in counts.failures]
    row.note = f"{counts.taken:,} taken, {counts.refused:,} refused by a documented error"
    return row


@contextlib.contextmanager
def _without_remarks() -> Iterator[None]:
    """libmpg123 writes remarks about damaged files past Python, by the thousand."""
    sys.stderr.flush()
    kept = os.dup(2)
    with open(os.devnull, "wb") as nowhere:
        os.dup2(nowhere.fileno(), 2)
    try:
        yield
    finally:
        os.dup2(kept, 2)
        os.close(kept)


CASES = {name: partial(fuzzed, name=name) for name in TARGETS}
