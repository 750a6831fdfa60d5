"""The command that scores."""

from __future__ import annotations

import argparse
import sys
from typing import Any

from dccrn_lib.cli.checks import count, device, file, named
from dccrn_lib.cli.parser import Parser


def evaluate(**options: Any) -> Parser:
    """The parser of ``evaluate``."""
    p = Parser(**options)
    p.add_argument("--clean", type=named, required=True, metavar="DIR", help="clean references")
    p.add_argument("--noisy", type=named, required=True, metavar="DIR", help="noisy files of the same names")
    group = p.add_mutually_exclusive_group()
    group.add_argument(
        "--model", type=named, metavar="NAME_OR_PATH", help="enhance the noisy files with this model and score that"
    )
    group.add_argument("--enhanced", type=named, metavar="DIR", help="score these files; with neither, the noisy ones")
    p.add_argument("--json", type=file, required=True, metavar="FILE", help="result file to write")
    p.add_argument("--device", type=device, default="cpu", help="cpu, cuda, cuda:1 ...")
    p.add_argument("--metrics", metavar="NAMES", help="pesq_wb,stoi ...; all that are installed when not given")
    p.add_argument(
        "--workers",
        type=count,
        metavar="N",
        help="processes that score; when not given one for fewer than 16 files, else all cores",
    )
    p.set_defaults(run=_evaluate)
    return p


def _evaluate(a: argparse.Namespace) -> int:
    from dccrn_lib.evaluation.folders import evaluate_directories
    from dccrn_lib.runtime.devices import require_device

    require_device(a.device)
    result = evaluate_directories(
        a.clean,
        a.noisy,
        model=a.model,
        enhanced=a.enhanced,
        json_path=a.json,
        device=a.device,
        workers=a.workers,
        progress=not a.quiet,
        metrics=[name.strip() for name in a.metrics.split(",")] if a.metrics else None,
        on_result=_say_means,
    )
    left = result["unscored"]
    for entry in left[:3]:
        print(f"no {entry['metric']} for {entry['file']}: {entry['reason']}", file=sys.stderr)
    if len(left) > 3:
        print(f"and {len(left) - 3} more, see unscored in {a.json}", file=sys.stderr)
    return 0 if result["n_scored"] == result["n"] else 1


def _say_means(result: dict[str, Any]) -> None:
    means = ", ".join(f"{k} {v:.4g}" for k, v in result["mean"].items() if v is not None)
    print(f"{result['n_scored']} of {result['n']} files scored: {means or 'nothing'}")
