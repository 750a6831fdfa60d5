"""SIGTERM, SIGINT and SIGHUP at random moments: a command ends soon, in a line, and leaves nothing temporary."""

from __future__ import annotations

import signal
import time
from functools import partial

from tests.soak.place import Place
from tests.soak.rows import Row
from tests.soak.targets import Train, begun, leftovers, target

#: Target -> signals of the full form, each kind in turns.
SIGNALS = {"train": 9, "synth": 6, "pack": 6, "enhance": 6, "run-notebooks": 6}
NUMBERS = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP)
#: Seconds that a command may take to end after a signal; finishing a step or a file is part of it.
END = 60.0


def signalled(place: Place, name: str) -> Row:
    """Send a signal in the middle of the work; look at how it ends and at what is there; complete the work."""
    subject, row, random = target(place, name), Row("signals", name), place.random("signals", name)
    slowest, early = 0.0, 0
    wanted = place.count(SIGNALS[name])
    while row.tried < wanted and early < 3 + wanted and not (row.tried and place.over()):
        number, out = NUMBERS[row.tried % 3], place.new(f"signal-{name}") / "out"
        with subject.start(out) as command:
            command.wait(partial(begun, out, command))
            if stepped := isinstance(subject, Train) and row.tried % 2 == 0:
                command.wait(partial(subject.step, out))
            command.wait(seconds=random.uniform(0, 0.8 * subject.span))
            if not command.running():
                early += 1  # it was done before; no trial
                continue
            sent = time.monotonic()
            command.send(number)
            in_time = command.wait(seconds=END)
            problems = [] if in_time else [f"still runs after {END:.0f} s"]
            if in_time:
                slowest = max(slowest, time.monotonic() - sent)
                problems += command.talk() + command.orphans()
        problems += leftovers(out) + subject.whole(out)
        if in_time and command.process.returncode == 0:
            problems += subject.same(out)  # it was so late that the work was done
        elif isinstance(subject, Train) and stepped and subject.step(out) == 0:
            problems.append("no checkpoint")
        if isinstance(subject, Train):
            with subject.start(out) as last:
                last.wait()
            problems += last.talk(0) or subject.same(out)
        row.trial(problems, signal.Signals(number).name)
    row.note = f"ended within {slowest:.1f} s"
    if name == "train":
        row.note += "; resumed bit for bit"
    return row


CASES = {name: partial(signalled, name=name) for name in SIGNALS}
