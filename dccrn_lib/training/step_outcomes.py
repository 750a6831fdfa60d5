"""What a step leaves to be noted: the terms of its loss and whether they were finite, on the device until they are read.

A CPU has computed a step when it returns, so that reading costs nothing. On a GPU every reading waits until the queue is
empty; the outcomes of several steps are therefore read together.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from dccrn_lib.training.config import TrainConfig

#: Steps between two readings, by kind of device.
READ_EVERY = {"cpu": 1}
READ_EVERY_ELSEWHERE = 20


@dataclass
class Outcome:
    """Of one step.

    Args:
        names: of the terms.
        terms: float64 (term,), means over the batch and the ranks.
        fine: bool (), whether the loss and the gradient were finite; without that the step changed nothing.
    """

    names: list[str]
    terms: Tensor
    fine: Tensor


@dataclass
class Outcomes:
    """Outcomes that are still on the device, with the steps they belong to.

    Args:
        every: how many make a reading due.

    >>> outcomes = Outcomes(every=2)
    >>> for step in range(2):
    ...     outcomes.add(step, Outcome(["clean"], torch.tensor([-1.0]), torch.tensor(step == 0)))
    >>> outcomes.due, outcomes.read()
    (True, [(0, {'clean': -1.0}), (1, None)])
    """

    every: int
    waiting: list[tuple[int, Outcome]] = field(default_factory=list)

    def add(self, step: int, outcome: Outcome) -> None:
        """Keep the outcome of a step."""
        self.waiting.append((step, outcome))

    @property
    def due(self) -> bool:
        """Whether enough wait to be read."""
        return len(self.waiting) >= self.every

    def read(self) -> list[tuple[int, dict[str, float] | None]]:
        """(step, terms or None where they were not finite) of all that wait: one transfer from the device."""
        waiting, self.waiting = self.waiting, []
        if not waiting:
            return []
        rows = torch.stack([torch.cat([o.terms, o.fine[None].to(o.terms.dtype)]) for _, o in waiting]).tolist()
        named = (
            dict(zip(o.names, row, strict=False)) if row[-1] else None
            for (_, o), row in zip(waiting, rows, strict=True)
        )
        return [(step, terms) for (step, _), terms in zip(waiting, named, strict=True)]


def skipped_batch(step: int, config: TrainConfig) -> dict[str, Any]:
    """Which mixtures of the epoch a step skipped, as ``history["skipped"]`` lists it: {"step", "mixtures"}."""
    first = step * config.batch_size
    mixtures = [i % config.epoch_mixtures for i in range(first, first + config.batch_size)]
    return {"step": step, "mixtures": mixtures}


def steps_between_readings(device: torch.device) -> int:
    """How many steps are read together on a device."""
    return READ_EVERY.get(device.type, READ_EVERY_ELSEWHERE)
