"""Which mixture of data works? A small student on each, with seeds, judged on the valid split of the real recordings.

    python -m dccrn_lib experiment training-data run --speech speech.jsonl --noise noise.jsonl --rir rir.jsonl \\
        --generated gen --out runs/mixtures --share 0/2
    python -m dccrn_lib experiment training-data publish --out runs/mixtures

``run`` trains and scores every (mixture, seed) once and resumes where it stopped; start it once per core with
``--share i/n``, or give a dask scheduler's address as ``--cluster``: its workers need this package, and the manifests and
folders under the same paths. ``publish`` compares the finished runs within each seed with "as trained", which is what the
shipped weights were trained on, and writes results/data_mixtures.json. No speaker or recording of the test split is
touched.
"""

from __future__ import annotations

import argparse
import dataclasses
import functools
from collections.abc import Mapping
from concurrent.futures import Executor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from dccrn_lib.corpus.mixing import MixtureDataset
from dccrn_lib.evaluation.metrics import COMPARED_METRICS
from dccrn_lib.evaluation.systems import evaluate_systems, kept_items
from dccrn_lib.experiments.executors import run_jobs
from dccrn_lib.experiments.grid import GridJob, SweepRun, done_by, keep_record, seed_of, shared, train_and_score
from dccrn_lib.experiments.methods import laboratory_rows
from dccrn_lib.experiments.paper import data_hash
from dccrn_lib.experiments.recipe import as_options
from dccrn_lib.experiments.shipped_weights import MIX
from dccrn_lib.results.records import load_result, save_result
from dccrn_lib.runtime.devices import set_up_cpu
from dccrn_lib.runtime.errors import ConfigError
from dccrn_lib.runtime.settings import parse_seeds, parse_share
from dccrn_lib.training.config import TrainConfig

#: Seed of the mixtures that judge; the seeds of training and of the published test table are others.
VALID_SEED = 424_242


@dataclass(frozen=True)
class Mixture:
    """What a student is trained on: which generated parts stand beside the real recordings, and changes of the mixing."""

    generated: tuple[str, ...] = ("noise", "rir")
    changes: Mapping[str, float] = field(default_factory=dict)


#: The first is the recipe of the shipped weights (profile cpu); every other differs from it in one thing.
MIXTURES = {
    "as trained": Mixture(),
    "real recordings only": Mixture(generated=()),
    "generated speech too": Mixture(generated=("speech", "noise", "rir")),
    "no rooms": Mixture(changes={"rir_probability": 0.0}),
    "one noise, no babble": Mixture(changes={"second_noise_probability": 0.0, "babble_probability": 0.0}),
    "no speed, no equaliser": Mixture(changes={"speed_probability": 0.0, "equaliser_probability": 0.0}),
}
COMMAND = (
    "python -m dccrn_lib experiment training-data run --speech speech.jsonl --noise noise.jsonl --rir rir.jsonl "
    "--generated gen --out runs/mixtures"
)
COLUMNS = ("mixture", "seeds", *(text for m in COMPARED_METRICS for text in (m, f"{m} minus as trained")))


def train_config(
    name: str, seed: int, corpus: Mapping[str, str], generated: str | Path, out: str, student: TrainConfig
) -> TrainConfig:
    """The run of a small student on one mixture of data.

    Args:
        name: of :data:`MIXTURES`.
        seed: of weights and mixtures.
        corpus: {"speech", "noise", "rir"}: manifests of real recordings.
        generated: folder of a generated corpus (``corpus synth``).
        out: folder of the run.
        student: what all runs share, see ``recipe.student_on_data``.
    """
    mixture = MIXTURES[name]
    sources: dict[str, Any] = {
        kind: ",".join([path, *([str(Path(generated) / f"{kind}.jsonl")] if kind in mixture.generated else [])])
        for kind, path in corpus.items()
    }
    mix = dataclasses.replace(student.mix, **mixture.changes)
    return dataclasses.replace(student, out=out, seed=seed, mix=mix, **sources)


def valid_mixtures(corpus: Mapping[str, str], count: int) -> MixtureDataset:
    """Fixed mixtures of the real valid split, made like the published test table's."""
    return MixtureDataset(corpus["speech"], corpus["noise"], None, MIX, seed=VALID_SEED, length=count, split="valid")


def _folder(name: str) -> str:
    return name.replace(",", "").replace(" ", "_")


def _recorded_as(field_name: str) -> str:
    """The name of a changed field in the record, where ``valid_mixtures`` are those that judge (``--count``)."""
    return "valid_mixtures while training" if field_name == "valid_mixtures" else field_name


def run(a: argparse.Namespace, executor: Executor | None = None) -> None:
    """Train and score the share of the runs that ``a`` names, on an executor or here; see the command's --help.

    Beside the options of the command, ``fields`` is the student, and ``changed`` what the command line changed in it.

    Raises:
        KeyboardInterrupt: a training was told to stop; what is finished is kept, and the next call goes on.
    """
    seeds, (first, every) = parse_seeds(a.seeds), parse_share(a.share)
    mine = shared([(seed, name) for seed in seeds for name in MIXTURES], (first, every))
    corpus = {kind: getattr(a, kind) for kind in ("speech", "noise", "rir")}
    missing = [kind for kind in corpus if not (Path(a.generated) / f"{kind}.jsonl").is_file()]
    if missing:
        raise ConfigError(
            f"{a.generated} holds no {missing[0]}.jsonl: make it with `python -m dccrn_lib corpus synth --hours 1 --seed 0 "
            f"--out {a.generated}`"
        )
    set_up_cpu(threads=1)  # give other cores other shares
    mixtures, out = valid_mixtures(corpus, a.count), Path(a.out)
    record = {
        "config": {
            "model": a.fields.model,
            "steps": a.steps,
            "mix": repr(MIX),
            "generated": data_hash({kind: str(Path(a.generated) / f"{kind}.jsonl") for kind in corpus}),
            **{_recorded_as(name): value for name, value in a.changed.items()},
            "valid_mixtures": a.count,  # those that judge
        },
        "seed": seeds,
        "data_hash": data_hash(corpus),
        "rows": [],
        "command": " ".join(
            [COMMAND, f"--seeds {a.seeds} --steps {a.steps} --count {a.count}", *as_options(a.changed)]
        ),
    }
    keep_record(out / "mixtures.json", record)
    evaluate_systems({"noisy": None}, mixtures, COMPARED_METRICS, 1, not a.quiet, out / "noisy.json")
    tests = functools.partial(valid_mixtures, corpus, a.count)
    jobs = []
    for seed, name in mine:
        folder = (out / _folder(name) / f"seed{seed}").resolve()  # the workers of a cluster were started elsewhere
        config = train_config(name, seed, corpus, a.generated, str(folder), a.fields)
        jobs.append(GridJob(name, config, tests, COMPARED_METRICS, 1, not a.quiet))
    for job, done in run_jobs(train_and_score, jobs, executor):
        if done is None:
            raise KeyboardInterrupt
        try:
            said = f"{done.mean('si_snr_db'):.2f} dB"
        except ConfigError as error:  # it diverged; that is no reason to leave the others undone
            said = str(error)
        print(f"{job.name}, seed {done.seed}: {said}", flush=True)
    keep_record(out / "mixtures.json", record)  # refuses where another call bound the folder before a run began


def load_runs(out: str | Path) -> list[SweepRun]:
    """The finished runs of a folder, in the order of :data:`MIXTURES` and by seed."""
    runs = [
        SweepRun(name, seed, kept_items(path, name)[name])
        for name in MIXTURES
        for path in (Path(out) / _folder(name)).glob("seed*/evaluation.json")
        if (seed := seed_of(path.parent)) is not None
    ]
    return sorted(runs, key=lambda run: (list(MIXTURES).index(run.method), run.seed))


def publish(out: str | Path, folder: str | Path | None = None) -> Path:
    """Write results/data_mixtures.json from the finished runs.

    Args:
        out: folder that :func:`run` filled.
        folder: results/ when None.

    Raises:
        ConfigError: nothing was run in ``out``, no run of "as trained" has finished, or the noisy input has no scores.
    """
    settings = load_result("mixtures", out, needed=("config.steps", "config.valid_mixtures", "data_hash", "command"))
    runs = load_runs(out)
    baseline = next(iter(MIXTURES))
    if baseline not in {run.method for run in runs} or not (Path(out) / "noisy.json").is_file():
        raise ConfigError(f"{out}: no run of {baseline!r} or no noisy.json; give the same `run` command again")
    rows: list[dict[str, Any]] = [{"mixture": row.pop("method"), **row} for row in laboratory_rows(runs, (baseline,))]
    rows.sort(key=lambda row: list(MIXTURES).index(row["mixture"]))
    noisy = kept_items(Path(out) / "noisy.json", "noisy")["noisy"]
    rows.insert(0, {"mixture": "(noisy input)", **{m: SweepRun("noisy", 0, noisy).mean(m) for m in COMPARED_METRICS}})
    comparisons = len(COMPARED_METRICS) * (len(rows) - 2)
    note = (
        f"Valid split of the real recordings, {settings['config']['valid_mixtures']} dry mixtures; the miniature student "
        f"after {settings['config']['steps']} steps. Differences are paired by seed, intervals are Student's t over the "
        f"seeds at 95 % each; of {comparisons} comparisons about {0.05 * comparisons:.1f} would leave out zero by chance "
        "alone."
    )
    payload = {
        **{key: settings[key] for key in ("config", "data_hash")},
        "command": done_by(settings["command"], seeds=sorted({run.seed for run in runs})),
        "title": "Which mixture of data works",
        "note": note,
        "seed": sorted({run.seed for run in runs}),
        "columns": list(COLUMNS),
        "rows": rows,
        "runs": [
            {"mixture": r.method, "seed": r.seed, **{m: round(r.mean(m), 4) for m in COMPARED_METRICS}} for r in runs
        ],
    }
    return save_result("data_mixtures", payload, folder)
