"""The commands that measure: speed and memory, the mixtures' rate, what int8 weights cost. See docs/benchmarks.md."""

from __future__ import annotations

import argparse
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from dccrn_lib.cli.checks import file, named
from dccrn_lib.cli.parser import Parser
from dccrn_lib.runtime.errors import ConfigError


def _require_json(path: str | None) -> None:
    if path and Path(path).suffix != ".json":
        raise ConfigError(f"{path}: the result file must end in .json")


def _keep(record: Mapping[str, Any], path: str | None) -> None:
    """Write a record behind its table: a disk that is full by then costs the file and not the minutes of measuring."""
    from dccrn_lib.results.records import save_result

    if path:
        save_result(Path(path).stem, record, Path(path).parent)
        print(path)


def speed(**options: Any) -> Parser:
    """The parser of ``bench speed``."""
    p = Parser(**options)
    p.add_argument("--json", type=file, metavar="FILE", help="result file to write; the table is printed in any case")
    p.add_argument("--smoke", action="store_true", help="seconds instead of minutes; the numbers mean nothing")
    p.add_argument(
        "--peers",
        action="store_true",
        help="also other projects' networks, where installed: asteroid, denoiser, deepfilternet",
    )
    p.add_argument(
        "--onnx",
        action="append",
        default=[],
        metavar="NAME=FILE@MS",
        help="a streaming graph of another project and the milliseconds of audio in one call; may be repeated",
    )
    p.set_defaults(run=_speed)
    return p


def _speed(a: argparse.Namespace) -> int:
    _require_json(a.json)
    from dccrn_lib.experiments.speed import run_benchmarks
    from dccrn_lib.results.tables import table

    record = run_benchmarks(quick=a.smoke, progress=not a.quiet, peers=a.peers, onnx=a.onnx)
    print(table(record), end="")
    for item in record["skipped"]:
        print(f"skipped: {item['measurement']}: {item['reason']}")
    print(f"load average before and after: {record['load_average']} (an idle machine is near 0)")
    _keep(record, a.json)
    return 0


def stream(**options: Any) -> Parser:
    """The parser of ``bench stream``."""
    p = Parser(**options)
    p.add_argument("--json", type=file, metavar="FILE", help="result file to write; the table is printed in any case")
    p.add_argument("--smoke", action="store_true", help="seconds instead of minutes; the numbers mean nothing")
    p.set_defaults(run=_stream)
    return p


def _stream(a: argparse.Namespace) -> int:
    _require_json(a.json)
    from dccrn_lib.experiments.streaming_speed import measure_streaming
    from dccrn_lib.results.tables import table

    record = measure_streaming(quick=a.smoke)
    print(table(record), end="")
    print(f"load average before and after: {record['load_average']} (an idle machine is near 0)")
    _keep(record, a.json)
    return 0


def precision(**options: Any) -> Parser:
    """The parser of ``bench precision``."""
    p = Parser(**options)
    p.add_argument("--json", type=file, metavar="FILE", help="result file to write; the table is printed in any case")
    p.add_argument(
        "--model", type=named, default="distil_dccrn", metavar="NAME_OR_PATH", help="shipped weights or a file"
    )
    p.add_argument("--clips", type=named, metavar="DIR", help="with clean and noisy; the demo clips when not given")
    p.set_defaults(run=_precision)
    return p


def _precision(a: argparse.Namespace) -> int:
    _require_json(a.json)
    from dccrn_lib.experiments.precision_loss import measure_precision
    from dccrn_lib.results.tables import table

    record = measure_precision(None, a.model, a.clips)
    print(table(record), end="")
    print(record["note"])
    _keep(record, a.json)
    return 0


def int8(**options: Any) -> Parser:
    """The parser of ``bench int8``."""
    p = Parser(**options)
    p.add_argument("noisy", type=named, metavar="NOISY", help="audio file")
    p.add_argument(
        "--model", type=named, default="distil_dccrn", metavar="NAME_OR_PATH", help="shipped weights or a file"
    )
    p.set_defaults(run=_int8)
    return p


def _int8(a: argparse.Namespace) -> int:
    from dccrn_lib.audio.files import read_audio
    from dccrn_lib.audio.rate import SAMPLE_RATE
    from dccrn_lib.enhancement.level import LevelMeter
    from dccrn_lib.enhancement.onnx_export import precision_loss
    from dccrn_lib.networks.weights import load_model

    samples = read_audio(a.noisy, SAMPLE_RATE)[0][:1]
    meter = LevelMeter(1, SAMPLE_RATE)  # the network hears a file at one level, as `run-onnx` has it
    meter.add(samples)
    heard = ((samples - meter.offset()) / meter.scales(0, samples.shape[1]))[0].astype("float32")
    for precision in ("float16", "int8"):
        # another network than a DCCRN is refused there, with the reason
        loss = precision_loss(load_model(a.model), heard, precision)  # pyright: ignore[reportArgumentType]
        print(
            f"{precision} against float32: SNR {loss['snr_db']:.1f} dB, size x{loss['size_ratio']:.2f}, "
            f"time x{loss['time_ratio']:.2f}"
        )
    return 0
