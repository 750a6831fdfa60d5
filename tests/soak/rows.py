"""What a case brings: how often it was tried, how often it held, and every failure in words."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

from dccrn_lib.runtime.paths import project_root


def plain(text: str) -> str:
    """A failure as it may be published: at most 400 printable characters, without paths of this machine."""
    text = text.replace(str(project_root()), "PROJECT")
    text = text.encode("ascii", "backslashreplace").decode()
    return "".join(letter if letter.isprintable() else repr(letter)[1:-1] for letter in text)[:400]


@dataclass
class Row:
    """One line of the table. ``failures`` holds a line for each trial that did not hold."""

    kind: str
    name: str
    tried: int = 0
    failures: list[str] = field(default_factory=list)
    note: str = ""

    def trial(self, problems: Sequence[str], where: str = "") -> None:
        """Count a trial: it holds where there are no problems."""
        self.tried += 1
        if problems:
            self.failures.append(plain(f"{where}: {'; '.join(problems)}" if where else "; ".join(problems)))

    @property
    def held(self) -> int:
        return self.tried - len(self.failures)

    def record(self) -> dict:
        """The line as it stands in results/."""
        return {
            "kind": self.kind,
            "case": self.name,
            "tried": self.tried,
            "held": self.held,
            "failed": len(self.failures),
            "note": self.note,
            "failures": self.failures[:20],
        }

    def __str__(self) -> str:
        note = f" ({self.note})" if self.note else ""
        lines = [f"{self.kind}.{self.name}: {self.held} of {self.tried} held{note}"]
        return "\n".join([*lines, *(f"    FAILED {failure}" for failure in self.failures)])
