"""The command; see the package."""

from __future__ import annotations

import argparse
import sys
import tempfile
import time
import traceback
from collections.abc import Callable
from pathlib import Path

from dccrn_lib.results.records import load_result, save_result
from dccrn_lib.runtime.environment import environment_record
from dccrn_lib.runtime.interrupts import tidy_ending
from tests.soak import disk, fuzz, kills, load, numerics, security, signals
from tests.soak.place import Place
from tests.soak.rows import Row

KINDS = {
    module.__name__.rpartition(".")[2]: module for module in (kills, signals, disk, fuzz, numerics, security, load)
}


def cases(only: str | None) -> dict[str, Callable[[Place], Row]]:
    """Full name -> case, of all kinds or of those and the single cases named with commas between.

    Raises:
        KeyError: no such kind or case.
    """
    every = {f"{kind}.{name}": case for kind, module in KINDS.items() for name, case in module.CASES.items()}
    chosen = {}
    for name in only.split(",") if only else KINDS:
        found = {full: case for full, case in every.items() if full == name or full.startswith(f"{name}.")}
        if not found:
            raise KeyError(name)
        chosen |= found
    return chosen


def run_case(place: Place, full: str, case: Callable[[Place], Row]) -> dict:
    """The record of a case, with its seconds. One that breaks off is a failure like any other."""
    start, commit = time.monotonic(), environment_record()["git_commit"]
    try:
        row = case(place)
    except Exception as error:
        traceback.print_exc()
        row = Row(*full.split(".", 1))
        row.trial([f"the case broke off: {type(error).__name__}: {error}"])
    print(row, flush=True)
    return {**row.record(), "share": place.share, "seconds": round(time.monotonic() - start, 1), "commit": commit}


def device() -> str:
    """The processor, as the system names it."""
    import platform

    lines = Path("/proc/cpuinfo").read_text().splitlines() if Path("/proc/cpuinfo").exists() else []
    return next((line.partition(":")[2].strip() for line in lines if line.startswith("model name")), platform.machine())


def write_record(out: Path, new: list[dict], seed: int) -> list[dict]:
    """Write the record; cases that were not run this time are kept as they are there."""
    old = load_result(out.stem, out.parent)["rows"] if out.is_file() else []
    fresh = {_key(row) for row in new}
    rows = [row for row in old if _key(row) not in fresh] + new
    order = {tuple(full.split(".", 1)): place for place, full in enumerate(cases(None))}
    rows = sorted((row for row in rows if _key(row) in order), key=lambda row: order[_key(row)])
    total = {key: sum(row[key] for row in rows) for key in ("tried", "held", "failed")}
    payload = {
        "title": "What was tried to break it, and what held",
        "config": {"device": device(), **total, "seconds": round(sum(row["seconds"] for row in rows), 1)},
        "seed": seed,
        "data_hash": "",
        "columns": ["kind", "case", "tried", "held", "failed", "note"],
        "rows": rows,
    }
    save_result(out.stem, payload, out.parent)
    return rows


def _key(row: dict) -> tuple[str, str]:
    return row["kind"], row["case"]


def main(arguments: list[str] | None = None) -> int:
    """Run the chosen cases; 0 when every trial held, 1 when one failed."""
    parser = argparse.ArgumentParser(prog="python -m tests.soak", description="Try to break the project, and count.")
    parser.add_argument("--only", metavar="NAMES", help="kinds, or single cases as KIND.CASE, with commas between")
    parser.add_argument("--share", type=float, default=1.0, metavar="F", help="fraction of the trials (default: 1)")
    parser.add_argument(
        "--minutes", type=float, default=float("inf"), metavar="M", help="most minutes of trials in a case"
    )
    parser.add_argument("--seed", type=int, default=0, metavar="S", help="of the random moments and inputs")
    parser.add_argument("--out", type=Path, default=Path("results/reliability.json"), metavar="FILE", help="the record")
    parser.add_argument("--list", action="store_true", help="say what there is and stop")
    options = parser.parse_args(arguments)
    if not 0 < options.share < float("inf"):
        parser.error(f"--share must be above 0, got {options.share}")
    try:
        chosen = cases(options.only)
    except KeyError as error:
        parser.error(f"no kind or case {error}; --list names them")
    if options.list:
        print("\n".join(chosen))
        return 0
    new = []
    with tidy_ending(), tempfile.TemporaryDirectory(prefix="soak-") as folder:
        place = Place(Path(folder), options.share, options.seed, options.minutes)
        for full, case in chosen.items():
            place.begin()
            new.append(run_case(place, full, case))
            place.tidy()
            write_record(options.out, new, options.seed)
    tried, failed = (sum(row[key] for row in new) for key in ("tried", "failed"))
    print(f"{tried} trials, {tried - failed} held, {failed} failed: {options.out}")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
