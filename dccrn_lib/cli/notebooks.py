"""The command that runs the notebooks."""

from __future__ import annotations

import argparse
import sys
from typing import Any

from dccrn_lib.cli.checks import count, folder, positive
from dccrn_lib.cli.parser import Parser
from dccrn_lib.runtime.errors import ConfigError


def run_notebooks(**options: Any) -> Parser:
    """The parser of ``run-notebooks``."""
    p = Parser(**options)
    p.add_argument("--profile", metavar="NAME", help="smoke, quick, cpu or gpu; quick when not given")
    p.add_argument("--only", metavar="WHICH", help="numbers or names, comma-separated: 05,06")
    p.add_argument("--out", type=folder, metavar="DIR", help="folder for the run; runs/PROFILE when not given")
    p.add_argument(
        "-p",
        "--parameter",
        action="append",
        default=[],
        metavar="NAME=VALUE",
        help="set a notebook parameter; may be repeated",
    )
    p.add_argument("--timeout", type=positive, metavar="S", help="seconds a cell may take; no limit when not given")
    p.add_argument("--jobs", type=count, metavar="N", help="notebooks at a time; 2 where there are two cores")
    p.add_argument("--list-parameters", action="store_true", help="print the notebooks' parameters and stop")
    p.add_argument(
        "--in-place",
        action="store_true",
        help="execute the committed notebooks where they lie, with their own defaults, and clean them",
    )
    p.set_defaults(run=_run_notebooks)
    return p


def _run_notebooks(a: argparse.Namespace) -> int:
    from dccrn_lib.lessons.running import notebooks

    only = [part.strip() for part in a.only.split(",") if part.strip()] if a.only is not None else None
    if a.list_parameters:
        print(notebooks.describe_parameters(only))
        return 0
    if a.in_place:
        given = {"-p": a.parameter, "--profile": a.profile, "--out": a.out, "--jobs": a.jobs}
        if ignored := [option for option, value in given.items() if value]:
            raise ConfigError(
                "--in-place runs the notebooks where they lie, one at a time, with their own defaults: "
                f"leave {' and '.join(ignored)} out"
            )
        report = notebooks.execute_in_place(only, timeout=a.timeout, progress=not a.quiet)
    else:
        report = notebooks.run_notebooks(
            a.profile or "quick",
            only=only,
            out=a.out,
            parameters=notebooks.split_assignments(a.parameter),
            timeout=a.timeout,
            progress=not a.quiet,
            jobs=a.jobs,
        )
    for line in report.errors:
        print(f"error: {line}", file=sys.stderr)
    print(report)
    return 0 if report.ok else 1
