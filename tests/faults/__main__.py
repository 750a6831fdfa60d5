"""The command; see the package."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from dccrn_lib.results.records import load_result, save_result
from dccrn_lib.runtime.environment import environment_record
from dccrn_lib.runtime.interrupts import tidy_ending
from tests.faults.catalogue import FAULTS, Fault
from tests.mutations.running import MutationError, ask_tests, package

SECONDS = 200.0  # that one test may take without the mend


def require_unbroken(chosen: list[Fault]) -> None:
    """MutationError unless every test passes with all mends in their places."""
    with package(None) as folder:
        answer = ask_tests(folder, *dict.fromkeys(fault.test for fault in chosen))
    if not answer.passed:
        raise MutationError(f"one of the tests fails on the unbroken library: {answer.why}")


def write_record(out: Path, new: list[dict]) -> None:
    """Write the record; rows that were not run this time are kept as they are there."""
    old = load_result(out.stem, out.parent)["rows"] if out.is_file() else []
    found = {(row["what"], row["test"]): row for row in (*old, *new)}
    rows = [found[fault.what, fault.test] for fault in FAULTS if (fault.what, fault.test) in found]
    noticed = sum(row["noticed"] for row in rows)
    payload = {
        "title": "Faults whose mend was taken out again, and the tests that noticed",
        "config": {"faults": len({row["fault"] for row in rows}), "tests": len(rows), "noticed": noticed},
        "seed": 0,
        "data_hash": "",
        "columns": ["fault", "what", "test"],
        "rows": rows,
    }
    save_result(out.stem, payload, out.parent)


def without_each(chosen: list[Fault], out: Path | None) -> list[dict]:
    """Ask every test without its mend, print a line each, and keep the record as far as it came."""
    require_unbroken(chosen)
    print(f"fault | {'without the mend':<76} | test | noticed", flush=True)
    rows = []
    for fault in chosen:
        with package(fault) as folder:
            noticed = not ask_tests(folder, fault.test, seconds=SECONDS).passed
        row = {"fault": fault.number, "what": fault.what, "test": fault.test, "noticed": noticed}
        rows.append({**row, "commit": environment_record()["git_commit"]})
        if out is not None:
            write_record(out, rows)
        mark = "noticed" if noticed else "SURVIVED"
        print(f"{fault.number:5} | {fault.what:<76} | {fault.test.removeprefix('tests/')} | {mark}", flush=True)
    return rows


def main(arguments: list[str] | None = None) -> int:
    """Take out the chosen mends; 0 when each test fails, 1 when one survives, 2 when one says nothing."""
    parser = argparse.ArgumentParser(prog="python -m tests.faults", description="Take mends out; a test must see each.")
    parser.add_argument("--only", metavar="NUMBERS", help="numbers of faults with commas between; all by default")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the rows, as results/faults.json")
    parser.add_argument("--list", action="store_true", help="say what there is and stop")
    options = parser.parse_args(arguments)
    known = sorted({fault.number for fault in FAULTS})
    numbers = options.only.split(",") if options.only else [str(number) for number in known]
    if unknown := [number for number in numbers if number not in map(str, known)]:
        parser.error(f"no fault {', '.join(unknown)}; there are {known[0]} to {known[-1]}")
    chosen = [fault for fault in FAULTS if str(fault.number) in numbers]
    if options.list:
        for fault in chosen:
            print(f"{fault.number:2} {fault.file:<36} {fault.what}")
        return 0
    try:
        with tidy_ending():
            rows = without_each(chosen, options.json)
    except MutationError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print("error: stopped; the record keeps the rows so far", file=sys.stderr)
        return 130
    noticed = sum(row["noticed"] for row in rows)
    print(f"{len({fault.number for fault in chosen})} faults, {noticed} of {len(rows)} tests noticed")
    return 0 if noticed == len(rows) else 1


if __name__ == "__main__":
    sys.exit(main())
