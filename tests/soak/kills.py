"""kill -9 at random moments: no result is lost or half written, and the next call of the same command completes it."""

from __future__ import annotations

import signal
from functools import partial
from pathlib import Path

import numpy as np

from tests.soak.place import Place
from tests.soak.rows import Row
from tests.soak.targets import Pack, Target, Train, begun, leftovers, target

#: Target -> kills of the full form, and how many of them before the command may run to its end.
KILLS = {"train": (16, 4), "synth": (10, 5), "pack": (12, 4), "enhance": (12, 4), "run-notebooks": (10, 5)}


def _killed(subject: Target, out: Path, random: np.random.Generator) -> list[str] | None:
    """Start a command and kill it at a random moment of its work; None where it came to its end before."""
    with subject.start(out) as command:
        command.wait(partial(begun, out, command))
        command.wait(seconds=random.uniform(0, 0.8 * subject.span))
        if not command.running():
            return None
        command.send(signal.SIGKILL)
        command.process.wait()
        return command.orphans()


def killed_and_resumed(place: Place, name: str) -> Row:
    """Kill a command again and again, look at what is there each time, then let it run to its end."""
    subject, (full, chain) = target(place, name), KILLS[name]
    row, random, wanted = Row("kills", name), place.random("kills", name), place.count(full)
    chains, completed, kills = 0, 0, 0
    while kills < wanted and chains < 3 + 2 * wanted and not (chains and place.over()):
        out, steps, ended, chains = place.new(f"kill-{name}") / "out", [0], False, chains + 1
        for _ in range(min(chain, wanted - kills)):
            problems = _killed(subject, out, random)
            if problems is None:
                ended = True
                break
            kills += 1
            problems += subject.whole(out)
            if isinstance(subject, Train):
                steps.append(subject.step(out))
                if steps[-1] < steps[-2]:
                    problems.append(f"the checkpoint went back from step {steps[-2]} to {steps[-1]}")
            row.trial(problems, f"kill {kills}")
            if isinstance(subject, Pack) and out.exists():  # a pack takes its name as a whole: the kill came after it
                ended = True
                break
        problems = []
        if not ended:
            with subject.start(out) as last:
                last.wait()
            problems = last.talk(0)
        problems = problems or subject.whole(out) + subject.same(out) + leftovers(out)
        completed += not problems
        row.trial(problems, f"completed after {kills} kills")
    end = "with the output" if name == "run-notebooks" else "bit for bit as the result"
    row.note = f"{kills} kills; {completed} of {chains} runs then completed, {end} of an unbroken run"
    return row


CASES = {name: partial(killed_and_resumed, name=name) for name in KILLS}
