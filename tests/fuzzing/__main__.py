"""Run targets and say what became of their inputs."""

from __future__ import annotations

import argparse
import sys

from tests.fuzzing.running import fuzz
from tests.fuzzing.targets import TARGETS


def main(arguments: list[str] | None = None) -> int:
    """0 when nothing failed, 1 otherwise."""
    parser = argparse.ArgumentParser(prog="python -m tests.fuzzing", description="Damaged inputs, and what they do.")
    parser.add_argument("targets", nargs="*", metavar="NAME", help=f"of {', '.join(TARGETS)}; all when none is named")
    parser.add_argument("--examples", type=int, default=1000, metavar="N", help="inputs of each target")
    parser.add_argument("--seed", type=int, default=0, metavar="S", help="of the inputs")
    options = parser.parse_args(arguments)
    unknown = sorted(set(options.targets) - set(TARGETS))
    if unknown:
        parser.error(f"no target {unknown[0]!r}; known: {', '.join(TARGETS)}")
    failed = 0
    for name in options.targets or TARGETS:
        counts = fuzz(name, options.examples, options.seed)
        print(counts, *counts.failures, sep="\n    ", flush=True)
        failed += len(counts.failures)
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
