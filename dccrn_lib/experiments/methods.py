"""The laboratory: which way of distilling is better here, answered with seeds and written to ``results/``.

    python -m dccrn_lib experiment methods run --out runs/lab --methods none,output,at_kl --seeds 0,1,2,3,4 --share 0/2
    python -m dccrn_lib experiment methods publish --out runs/lab --name laboratory_generated

``run`` trains and scores every (method, seed) once and resumes where it stopped; start it once per core with
``--share i/n``, or give a dask scheduler's address as ``--cluster``: its workers need this package and the folders under
the same paths. ``publish`` compares the finished runs within each seed and writes ``results/<name>.json``: a row a
method, and below it the scores of every run. The trainings are those of ``dccrn_lib.experiments.grid``.

Source: ours. The statistics are paired by seed with Student's t; see :func:`dccrn_lib.experiments.grid.compare_methods`.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from concurrent.futures import Executor
from pathlib import Path

from dccrn_lib.evaluation.metrics import COMPARED_METRICS
from dccrn_lib.experiments.grid import (
    Variant,
    compare_methods,
    done_by,
    keep_record,
    load_runs,
    run_sweep,
    seed_differences,
    seed_verdict,
)
from dccrn_lib.experiments.paper import corpus_of, data_hash
from dccrn_lib.experiments.recipe import DEFAULT_METHODS, as_options, manifest_options, portable
from dccrn_lib.networks.weights import read_card
from dccrn_lib.results.records import load_result, require_not_read, save_result
from dccrn_lib.runtime.devices import set_up_cpu
from dccrn_lib.runtime.errors import ConfigError
from dccrn_lib.runtime.settings import parse_seeds, parse_share

#: Columns of the printed table; the file holds the others too.
COLUMNS = (
    "method",
    "seeds",
    "si_snr_db",
    "si_snr_db minus none",
    "si_snr_db minus output",
    "pesq_wb minus none",
    "stoi minus none",
)


def laboratory_rows(runs: Sequence, baselines: Sequence[str] = ("none", "output")) -> list[dict]:
    """One row a method: means over the seeds, and the differences to the baselines, paired by seed.

    Args:
        runs: of :func:`dccrn_lib.experiments.grid.load_runs`.
        baselines: methods to compare with, those that were run.

    Returns:
        Rows with "method", "seeds", a mean a metric, and per baseline and metric "minus <baseline>" in words:
        difference, 95 % interval, verdict.
    """
    present = {run.method for run in runs}
    order = [m for m in DEFAULT_METHODS if m in present] + sorted(present - set(DEFAULT_METHODS))
    rows: dict[str, dict] = {method: {"method": method, "seeds": 0} for method in order}
    for metric in COMPARED_METRICS:
        for i, baseline in enumerate(b for b in baselines if b in present):
            differences = seed_differences(runs, metric, baseline)
            for found in compare_methods(runs, metric, baseline):
                row, difference = rows[found["method"]], differences[found["method"]]
                row["seeds"] = found["seeds"]
                if not i:
                    row[metric] = found["mean"]
                in_words = None if difference is None else f"{difference.text(form='+.3f')} {seed_verdict(difference)}"
                row[f"{metric} minus {baseline}"] = in_words
    return list(rows.values())


def publish(out: str | Path, name: str, title: str = "", folder: str | Path | None = None) -> Path:
    """Write ``results/<name>.json`` from the finished runs of a laboratory.

    Args:
        out: folder that :func:`run` filled.
        name: of the result.
        title: what the table is about.
        folder: results/ when None.

    Returns:
        The file.

    Raises:
        ConfigError: no laboratory in ``out``, no finished run, or the file to write is the record in ``out``.
    """
    out = Path(out)
    require_not_read(name, folder, out / "laboratory.json")
    settings = load_result("laboratory", out, needed=("config", "data_hash", "command"))
    runs = load_runs(out)
    if not runs:
        raise ConfigError(
            f"{out}: no run has finished; start it again with `python -m dccrn_lib experiment methods run`"
        )
    rows = laboratory_rows(runs)
    scores = [{"method": r.method, "seed": r.seed, **{m: rounded(r.items, m) for m in COMPARED_METRICS}} for r in runs]
    pairs = {
        (frozenset((row["method"], key.split(" minus ")[1])), key.split(" minus ")[0])
        for row in rows
        for key, value in row.items()
        if " minus " in key and value
    }
    comparisons = len(pairs)  # a minus b and b minus a are one
    note = (
        "Differences are paired by seed, intervals are Student's t over the seeds at 95 % each; of "
        f"{comparisons} comparisons about {0.05 * comparisons:.1f} would leave out zero by chance alone."
    )
    payload = {
        "title": title or f"Laboratory {name}",
        "note": note,
        "command": done_by(
            settings["command"], methods=[row["method"] for row in rows], seeds=sorted({r.seed for r in runs})
        ),
        "config": settings["config"],
        "seed": sorted({r.seed for r in runs}),
        "data_hash": settings["data_hash"],
        "columns": [c for c in COLUMNS if any(c in row for row in rows)],
        "rows": rows,
        "runs": scores,
    }
    return save_result(name, payload, folder)


def rounded(items: Sequence[dict], metric: str) -> list[float | None]:
    return [None if item[metric] is None else round(item[metric], 4) for item in items]


def run(arguments: argparse.Namespace, executor: Executor | None = None) -> None:
    """Train and score the share of the runs that ``arguments`` names, on an executor or here; see the command's --help.

    Beside the options, ``changes`` holds the fields of TrainConfig that differ from the profile's, and ``changed`` the
    same by the names that the command line gives them.
    """
    seeds, (first, every) = parse_seeds(arguments.seeds), parse_share(arguments.share)
    methods = [Variant.parse(m).name for m in arguments.methods.split(",")]
    set_up_cpu(threads=1)  # give other cores other shares
    out = Path(arguments.out)
    corpus = corpus_of(arguments.profile, arguments.speech, arguments.noise, arguments.rir)
    teacher = read_card(arguments.teacher) if arguments.teacher else {"sha256": "trained in this folder"}
    record = {
        "config": {
            "profile": arguments.profile,
            "steps": "the profile's",
            "teacher": teacher["sha256"],
            **arguments.changed,
        },
        "seed": seeds,
        "data_hash": data_hash(corpus),
        "rows": [],
        "command": _command(arguments),
    }
    keep_record(out / "laboratory.json", record)
    run_sweep(
        methods,
        seeds,
        arguments.profile,
        out.resolve(),  # the workers of a cluster were started elsewhere
        corpus,
        arguments.teacher,
        (first, every),
        workers=1,
        progress=not arguments.quiet,
        executor=executor,
        **arguments.changes,
    )
    keep_record(out / "laboratory.json", record)  # refuses where another call bound the folder before a run began


def _command(a: argparse.Namespace) -> str:
    """The command that does the whole of it again, with manifests by their file names and no absolute path."""
    parts = ["python -m dccrn_lib experiment methods run", f"--out {portable(a.out)}", f"--profile {a.profile}"]
    parts += [f"--methods {a.methods}", f"--seeds {a.seeds}"]
    parts += manifest_options({kind: getattr(a, kind) for kind in ("speech", "noise", "rir")})
    parts += [f"--teacher {portable(a.teacher)}"] if a.teacher else []
    return " ".join(parts + as_options(a.changed))
