"""python -m dccrn_lib.campaign: all systems on one device within a stated number of minutes; --help lists the options."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from dccrn_lib.errors import ConfigError, DccrnError

STAGES = ("all", "search", "teacher", "students", "bench")


def parser() -> argparse.ArgumentParser:
    """The options."""
    p = argparse.ArgumentParser(prog="python -m dccrn_lib.campaign", description=__doc__)
    p.add_argument("--speech", required=True, help="manifests of speech, joined by commas")
    p.add_argument("--noise", required=True, help="manifests of noise")
    p.add_argument("--rir", default="", help="manifests of room responses")
    p.add_argument("--out", required=True, help="folder of the campaign; an unfinished one there goes on")
    p.add_argument("--minutes", type=float, help="length of all stages asked for together")
    p.add_argument("--steps", type=int, help="length of each stage in steps instead")
    p.add_argument("--stage", choices=STAGES, default="all", help="all: the teacher, then the students")
    p.add_argument("--teacher-share", type=float, default=0.35, help="share of the minutes for the teacher")
    p.add_argument("--seeds", default="0,1,2", help="seeds of the students")
    p.add_argument("--size", choices=("full", "smoke"), default="full", help="smoke: miniatures, nothing is learnt")
    p.add_argument("--set", action="append", default=[], metavar="FIELD=VALUE", help="a field of TrainConfig for all")
    p.add_argument("--no-graphs", action="store_true", help="do not capture steps as CUDA graphs")
    p.add_argument("--json", help="bench: file to write")
    return p


def main(arguments: Sequence[str] | None = None) -> int:
    """Run; returns the exit code: 0 done, 1 failed, 2 bad usage, 130 stopped by a signal."""
    from dccrn_lib.campaign.bench import bench
    from dccrn_lib.campaign.lockstep import run_stage
    from dccrn_lib.campaign.plan import plan, recipe, search
    from dccrn_lib.parameters import override, split_assignments

    a = parser().parse_args(arguments)
    try:
        corpus = {"speech": a.speech, "noise": a.noise, "rir": a.rir}
        shared = override(recipe(corpus, a.out, a.size), split_assignments(a.set))
        if a.stage == "bench":
            bench(shared, Path(a.json or Path(a.out) / "bench.json"), a.size)
            return 0
        seeds = [int(s) for s in a.seeds.split(",")]
        stages = [search(shared, a.size)] if a.stage == "search" else plan(shared, seeds, a.size, a.teacher_share)
        stages = [s for s in stages if a.stage in ("all", s.name)]
        for stage in stages:
            share = stage.share if a.stage == "all" else 1.0
            record = run_stage(stage, a.out, a.minutes and a.minutes * share, a.steps, not a.no_graphs)
            print(f"{stage.name}: {record['steps']} steps, {record['hours_each']:.2f} h of audio each", flush=True)
            if record["stopped"]:
                return 130
    except ConfigError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    except DccrnError as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
