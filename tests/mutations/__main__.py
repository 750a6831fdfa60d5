"""The command; see the package."""

from __future__ import annotations

import argparse
import sys

from tests.mutations.catalogue import MUTATIONS, Mutation
from tests.mutations.running import Answer, MutationError, ask_lesson, ask_tests, package


def whole_library_passes(chosen: list[Mutation]) -> dict[str, Answer]:
    """Every check against the unbroken library, each lesson run once: name of a check -> answer."""
    answers: dict[str, Answer] = {}
    with package(None) as folder:
        for number in sorted({m.notebook for m in chosen}):
            cells = sorted({m.cell for m in chosen if m.notebook == number})
            answers[f"lesson {number}, cells {', '.join(cells)}"] = ask_lesson(folder, number, cells)
        answers["one of the unit tests"] = ask_tests(folder, *sorted({m.unit for m in chosen}))
    return answers


def main(arguments: list[str] | None = None) -> int:
    """Run the chosen mutations; 0 when each is caught twice, 1 when one survives, 2 when one says nothing."""
    parser = argparse.ArgumentParser(prog="python -m tests.mutations", description="Break the library in known ways.")
    parser.add_argument("--only", metavar="NAMES", help="names with commas between; all by default")
    parser.add_argument("--list", action="store_true", help="say what there is and stop")
    options = parser.parse_args(arguments)
    names = options.only.split(",") if options.only else [m.name for m in MUTATIONS]
    if unknown := sorted(set(names) - {m.name for m in MUTATIONS}):
        parser.error(f"no mutation {', '.join(unknown)}; --list names them")
    chosen = [m for m in MUTATIONS if m.name in names]
    if options.list:
        for m in chosen:
            print(f"{m.name:<26} {m.file:<22} {m.what}")
        return 0
    try:
        for check, answer in whole_library_passes(chosen).items():
            if not answer.passed:
                raise MutationError(f"{check} fails on the unbroken library: {answer.why}")
        print(f"{'mutation':<26} | {'unit test':<72} | notebook check", flush=True)
        survivors = 0
        for m in chosen:
            with package(m) as folder:
                test, lesson = ask_tests(folder, m.unit), ask_lesson(folder, m.notebook, [m.cell])
            survivors += test.passed + lesson.passed
            unit = f"SURVIVED {m.unit}" if test.passed else m.unit.removeprefix("tests/")
            check = f"SURVIVED {m.notebook} cell {m.cell}" if lesson.passed else f"{m.notebook} {lesson.why}"
            print(f"{m.name:<26} | {unit:<72} | {check}", flush=True)
    except MutationError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    print(f"{len(chosen)} mutations, {2 * len(chosen) - survivors} of {2 * len(chosen)} checks noticed")
    return 1 if survivors else 0


if __name__ == "__main__":
    sys.exit(main())
