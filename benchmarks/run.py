"""Measure speed and memory: ``python benchmarks/run.py [--quick] [--json FILE.json]``; prints the table."""

from __future__ import annotations

import argparse

from dccrn_lib.experiments.speed import run_benchmarks
from dccrn_lib.results.tables import table


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true", help="tiny sizes: shows that it runs, numbers mean nothing")
    parser.add_argument("--json", metavar="FILE", help="result file to write, ending in .json")
    a = parser.parse_args()
    record = run_benchmarks(json_path=a.json, quick=a.quick, progress=True)
    print(table(record), end="")
    for item in record["skipped"]:
        print(f"skipped: {item['measurement']}: {item['reason']}")
    print(f"load average before and after: {record['load_average']} (an idle machine is near 0)")


if __name__ == "__main__":
    main()
