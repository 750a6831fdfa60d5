"""The commands that measure training: where mixtures come from and how fast, what a step costs, what made it cheaper.

docs/performance.md shows their tables.
"""

from __future__ import annotations

import argparse
from dataclasses import replace
from pathlib import Path
from typing import Any

from dccrn_lib.cli.checks import count, device, file, named, positive
from dccrn_lib.cli.parser import Parser
from dccrn_lib.runtime.errors import ConfigError, nearest_name
from dccrn_lib.runtime.settings import shown


def data(**options: Any) -> Parser:
    """The parser of ``bench data``."""
    p = Parser(**options)
    for kind in ("speech", "noise", "rir"):
        p.add_argument(
            f"--{kind}",
            default="",
            metavar="FILE",
            help=f"manifest of {kind}; a small generated corpus when none is given",
        )
    p.add_argument("--profile", default="quick", metavar="NAME", help="sizes of batch, segment and student")
    p.add_argument("--workers", default="0,1,2", metavar="N,N", help="numbers of workers to try")
    p.add_argument("--device", type=device, default="cpu", metavar="NAME", help="of the training step")
    p.add_argument("--rounds", type=count, default=3, metavar="N", help="repetitions, in turns")
    p.add_argument("--batches", type=count, default=8, metavar="N", help="batches and steps per round")
    p.add_argument(
        "--json", type=_record_file, metavar="FILE", help="result file to write; the table is printed in any case"
    )
    p.set_defaults(run=_data)
    return p


def _data(a: argparse.Namespace) -> int:
    from dccrn_lib.experiments.data_speed import measure_data
    from dccrn_lib.results.tables import table

    workers = _counts("--workers", a.workers, 0)
    corpus = {"speech": a.speech, "noise": a.noise, "rir": a.rir}
    record = measure_data(corpus, a.profile, workers, a.device, a.rounds, a.batches)
    print(record["title"])
    print(table(record), end="")
    if a.json:
        sizes = {"profile": a.profile, "device": a.device, "rounds": a.rounds, "batches": a.batches}
        _write(record, a.json, {**sizes, "manifests": {kind: Path(m).name for kind, m in corpus.items()}})
    return 0


def train(**options: Any) -> Parser:
    """The parser of ``bench train``."""
    p = Parser(**options)
    p.add_argument("--device", type=device, default="auto", metavar="NAME", help="cpu, cuda or auto")
    p.add_argument("--batches", default="", metavar="N,N", help="batches to try; 1,2,4,8 on a CPU, 8 to 64 on a GPU")
    p.add_argument("--precisions", default="fp32,bf16", metavar="NAME,NAME", help="fp32, bf16")
    p.add_argument("--channels-last", action="store_true", help="keep the channels of convolutions last in memory")
    p.add_argument("--seconds", type=positive, default=2.0, metavar="S", help="length of a mixture")
    p.add_argument(
        "--json", type=_record_file, metavar="FILE", help="result file to write; the table is printed in any case"
    )
    p.add_argument("--smoke", action="store_true", help="miniatures, seconds; the numbers mean nothing")
    p.set_defaults(run=_train)
    return p


#: Columns that the table of a training step shows.
TRAINING_COLUMNS = [
    "system", "precision", "batch", "ms", "audio_seconds_per_second", "over_floor", "over_parts", "peak_memory_gib",
    "fills",
]  # fmt: skip


def _train(a: argparse.Namespace) -> int:
    from dccrn_lib.experiments.recipe import recipe
    from dccrn_lib.experiments.training_speed import PRECISIONS, measure_training
    from dccrn_lib.results.tables import table
    from dccrn_lib.runtime.devices import set_up_cpu

    set_up_cpu()
    precisions = a.precisions.split(",")
    for name in precisions:
        if name not in PRECISIONS:
            raise ConfigError(f"unknown precision {name!r}; {nearest_name(name, list(PRECISIONS))}")
    batches = _counts("--batches", a.batches, 1) if a.batches else []
    size = "smoke" if a.smoke else "full"
    shared = recipe({"speech": "", "noise": "", "rir": ""}, "", size, device=a.device)
    shared = replace(
        shared, channels_last=a.channels_last, mix=replace(shared.mix, segment_seconds=0.5 if a.smoke else a.seconds)
    )
    config = {"size": size, "precisions": precisions, "optimiser": shared.optimiser, "weights": "random"}
    config["channels_last"] = a.channels_last

    def keep(record: dict) -> None:
        if a.json:
            _write({**record, "columns": TRAINING_COLUMNS}, a.json, config)

    record = measure_training(shared, size, batches, precisions, keep, progress=not a.quiet)
    print(table(record, TRAINING_COLUMNS), end="")
    return 0


def alternatives(**options: Any) -> Parser:
    """The parser of ``bench alternatives``."""
    p = Parser(**options)
    p.add_argument(
        "--json", type=_record_file, metavar="FILE", help="result file to write; every pair is printed in any case"
    )
    p.add_argument("--smoke", action="store_true", help="miniatures, seconds; the numbers mean nothing")
    p.set_defaults(run=_alternatives)
    return p


def _alternatives(a: argparse.Namespace) -> int:
    from dccrn_lib.experiments.training_alternatives import measure_alternatives
    from dccrn_lib.runtime.devices import set_up_cpu

    set_up_cpu()
    record = measure_alternatives(a.smoke, progress=True)
    if a.json:
        _write(record, a.json, {"quick": a.smoke, "threads": 1, "weights": "random"})
    return 0


def operations(**options: Any) -> Parser:
    """The parser of ``bench operations``."""
    p = Parser(**options)
    p.add_argument("--model", type=named, default="uformer", metavar="PRESET", help="network")
    p.add_argument("--batch-size", type=count, default=4, metavar="N", help="mixtures in the batch")
    p.add_argument("--seconds", type=positive, default=2.0, metavar="S", help="length of a mixture")
    p.add_argument(
        "--json", type=_record_file, metavar="FILE", help="result file to write; the table is printed in any case"
    )
    p.set_defaults(run=_operations)
    return p


def _operations(a: argparse.Namespace) -> int:
    from dccrn_lib.experiments.step_operations import measure_operations
    from dccrn_lib.results.tables import table
    from dccrn_lib.runtime.devices import set_up_cpu

    set_up_cpu()
    record = measure_operations(a.model, a.batch_size, a.seconds)
    print(table(record), end="")
    if a.json:
        _write(record, a.json, {"model": a.model, "batch_size": a.batch_size, "seconds": a.seconds, "threads": 1})
    return 0


def _counts(option: str, text: str, least: int) -> list[int]:
    """Whole numbers joined by commas."""
    try:
        numbers = [int(n) for n in text.split(",")]
    except ValueError:
        numbers = [-1]
    if not all(least <= n <= 1024 for n in numbers):
        raise ConfigError(f"{option} takes whole numbers from {least} to 1024 joined by commas, not {shown(text)}")
    return numbers


def _record_file(text: str) -> str:
    """A result file to write."""
    if Path(text).suffix != ".json":
        raise argparse.ArgumentTypeError(f"{text}: the result file must end in .json")
    return file(text)


def _write(record: dict[str, Any], path: str, config: dict[str, Any]) -> None:
    from dccrn_lib.results.records import save_result

    file = Path(path)
    payload = {"config": config, "seed": 0, "data_hash": "", **record}
    save_result(file.stem, payload, file.parent)
