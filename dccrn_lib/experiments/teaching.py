"""Does a teacher that was trained for hours help a miniature student? The experiment of lesson 05, over several seeds.

    python -m dccrn_lib experiment teaching run --out runs/teaching --seeds 0,1,2,3,4 --share 0/2
    python -m dccrn_lib experiment teaching publish --out runs/teaching

``run`` trains each student once, alone and taught by the shipped full-size Uformer with AT-KL, and scores it on the
test split; started again, it resumes where it stopped. ``publish`` writes ``results/teaching_quick.json``.

The trainings are a sweep of ``experiments.grid`` over two methods; each core, or each machine, can take a part of them
(``--share``, ``--cluster``).

The setting (steps, share of the AT-KL gradient) was chosen on the valid split with the seeds of :data:`CHOSEN_WITH`,
which are not among the published ones. Source: ours.
"""

from __future__ import annotations

import argparse
from concurrent.futures import Executor
from pathlib import Path

from dccrn_lib.evaluation.metrics import COMPARED_METRICS
from dccrn_lib.experiments import paper
from dccrn_lib.experiments.grid import SweepRun, compare_methods, done_by, keep_record, load_runs, run_sweep
from dccrn_lib.experiments.methods import portable, rounded
from dccrn_lib.experiments.recipe import TAUGHT, as_options
from dccrn_lib.results.records import load_result, require_not_read, save_result
from dccrn_lib.runtime.devices import set_up_cpu
from dccrn_lib.runtime.errors import ConfigError
from dccrn_lib.runtime.files import read_json
from dccrn_lib.runtime.settings import parse_seeds, parse_share

#: What is trained, as the sweep names it -> as the result does.
METHODS = {"none": "none", f"{TAUGHT['method']}:frequency:{TAUGHT['normalisation']}": TAUGHT["method"]}
#: Fields of the taught student that stand in the result.
RECORDED = ("steps", "warmup_steps", "valid_mixtures", "method", "normalisation", "teacher", "feature_share")
CHOSEN_WITH = (100, 101)
_CURE = "give the command that made it again"
TITLE = "Generated speech, miniature student of {steps} steps, taught by the shipped full-size Uformer"
NOTE = (
    "Differences to the student alone are paired by seed, intervals are Student's t over the seeds at 95 %. Setting "
    "chosen on the valid split with two other seeds (100, 101), 150 steps each: this does not show that no affordable "
    "setting helps."
)


def run(a: argparse.Namespace, executor: Executor | None = None) -> None:
    """Train and score the share of the students that ``a`` names, on an executor or here; finished ones are kept.

    Beside the options of the command, ``fields`` is the taught student, ``changed`` holds what the command line changed
    in it, and ``changes`` the fields of TrainConfig in which both students differ from the profile's.
    """
    seeds, share = parse_seeds(a.seeds), parse_share(a.share)
    set_up_cpu(threads=1)
    corpus, out = paper.corpus_of(a.profile, progress=not a.quiet), Path(a.out)
    command = ["python -m dccrn_lib experiment teaching run", f"--out {portable(a.out)}"]
    command += [f"--profile {a.profile}"] if a.profile != "quick" else []
    record = {
        "config": {"profile": a.profile, **{name: getattr(a.fields, name) for name in RECORDED}, **a.changed},
        "seed": seeds,
        "data_hash": paper.data_hash(corpus),
        "rows": [],
        "command": " ".join([*command, f"--seeds {','.join(map(str, seeds))}", *as_options(a.changed)]),
    }
    keep_record(out / "teaching.json", record)
    run_sweep(
        list(METHODS),
        seeds,
        a.profile,
        out.resolve(),  # the workers of a cluster were started elsewhere
        corpus,
        TAUGHT["teacher"],
        share,
        workers=1,
        progress=not a.quiet,
        executor=executor,
        **a.changes,
    )
    keep_record(out / "teaching.json", record)  # refuses where another call bound the folder before a run began


def publish(out: str | Path, name: str = "teaching_quick", folder: str | Path | None = None) -> Path:
    """Write ``results/<name>.json`` from the finished students of :func:`run`.

    Raises:
        ConfigError: nothing was run in ``out``, its record lacks something, fewer than two seeds are finished in both
            kinds, or the file to write is the record in ``out``.
    """
    require_not_read(name, folder, Path(out) / "teaching.json")
    settings = load_result("teaching", out, needed=("config.steps", "data_hash", "command"))
    runs = load_runs(out)
    kinds = [{run.seed for run in runs if run.method == method} for method in METHODS]
    seeds = sorted(set.intersection(*kinds))
    if len(seeds) < 2:
        raise ConfigError(
            f"{out}: {len(seeds)} seeds are finished in both kinds, at least 2 are needed; call run first"
        )
    runs = [run for run in runs if run.seed in seeds]
    rows: dict[str, dict] = {method: {"method": METHODS[method], "seeds": len(seeds)} for method in METHODS}
    for metric in COMPARED_METRICS:
        for row in compare_methods(runs, metric):
            difference = {key: row[key] for key in ("difference", "low", "high", "verdict")}
            rows[row["method"]] |= {
                metric: row["mean"],
                f"{metric} minus none": difference["difference"] and difference,
            }
    payload = {
        "title": TITLE.format(steps=settings["config"]["steps"]),
        "note": NOTE,
        "command": done_by(settings["command"], seeds=seeds),
        "config": {**settings["config"], "chosen on valid with seeds": list(CHOSEN_WITH)},
        "seed": seeds,
        "data_hash": settings["data_hash"],
        "columns": ["method", "seeds", *COMPARED_METRICS],
        "rows": list(rows.values()),
        "runs": [
            {"method": METHODS[run.method], "seed": run.seed, "valid": _last_valid(Path(out), run)}
            | {metric: rounded(run.items, metric) for metric in COMPARED_METRICS}
            for run in sorted(runs, key=lambda run: (run.seed, list(METHODS).index(run.method)))
        ],
    }
    return save_result(name, payload, folder)


def _last_valid(out: Path, run: SweepRun) -> dict:
    """The scores of a run on the valid split after its last step."""
    history = out / run.method.replace(":", "-") / f"seed{run.seed}" / "history.json"
    rows = read_json(history, _CURE).get("valid")
    if not isinstance(rows, list) or not rows:
        raise ConfigError(f"{history}: holds no scores on valid; remove its folder, and {_CURE}")
    return rows[-1]
