"""The commands that enhance files, and export a network."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from typing import Any

from dccrn_lib.cli.checks import count, device, file, folder, named
from dccrn_lib.cli.parser import Parser
from dccrn_lib.runtime.errors import AudioError, ConfigError, DccrnError


def enhance(**options: Any) -> Parser:
    """The parser of ``enhance``."""
    p = Parser(**options)
    p.add_argument(
        "inputs", nargs="+", type=named, metavar="IN", help="audio files or folders; or one file and the file to write"
    )
    p.add_argument("--out", type=folder, metavar="DIR", help="folder for the enhanced files")
    p.add_argument(
        "--model", type=named, default="distil_dccrn", metavar="NAME_OR_PATH", help="shipped weights or a file"
    )
    p.add_argument("--device", type=device, default="cpu", help="cpu, cuda, cuda:1 ...")
    p.add_argument("--workers", type=count, default=1, metavar="N", help="files in parallel (CPU)")
    existing = p.add_mutually_exclusive_group()
    existing.add_argument("--overwrite", action="store_true", help="replace outputs that exist")
    existing.add_argument(
        "--skip-existing", action="store_true", help="leave outputs that exist: continues a run that was stopped"
    )
    p.add_argument(
        "--precision",
        choices=["fp32", "bf16"],
        default="fp32",
        help="bf16: 0.5 to 0.7 of the time where the CPU has bfloat16 arithmetic; fp32 is the exact one",
    )
    p.set_defaults(run=_enhance)
    return p


def _enhance(a: argparse.Namespace) -> int:
    if a.out is None:
        return _enhance_one(a)
    from dccrn_lib.audio.files import AUDIO_SUFFIXES
    from dccrn_lib.enhancement.batch import enhance_files

    if Path(a.out).suffix.lower() in AUDIO_SUFFIXES and not Path(a.out).is_dir():
        raise ConfigError(
            f"--out names a folder, and {a.out} is named as a file; for one file: enhance noisy.wav {a.out}"
        )

    report = enhance_files(
        a.inputs, a.out, a.model, a.device, a.workers, not a.quiet, a.overwrite, a.precision, a.skip_existing
    )
    for source, reason in report.failed:
        named = reason if str(source) in reason else f"{source}: {reason}"
        print(f"error: {' '.join(named.split())}", file=sys.stderr)
    for destination, gain_db in report.lowered:
        print(f"{destination}{_lowered(gain_db)}")
    if report.done or report.skipped or len(report.failed) > 1:  # one failure is its line
        print(f"{report}: {a.out}")
    return 1 if report.failed else 0


def _enhance_one(a: argparse.Namespace) -> int:
    """``enhance noisy.wav enhanced.wav``: one file, and the name of the file to write."""
    from dccrn_lib.audio.files import AUDIO_SUFFIXES
    from dccrn_lib.enhancement.files import enhance_file

    source, destination = (Path(a.inputs[0]), Path(a.inputs[-1]))
    if a.skip_existing:
        raise ConfigError("--skip-existing goes with a folder to write to: enhance IN ... --out DIR --skip-existing")
    if len(a.inputs) != 2 or source.is_dir() or destination.is_dir():
        raise ConfigError(
            "name the folder to write to: enhance IN ... --out DIR; or one file: enhance noisy.wav out.wav"
        )
    if destination.suffix.lower() not in AUDIO_SUFFIXES:
        raise ConfigError(
            f"{destination}: no audio format is named so; end it in .wav, .flac, .ogg or .mp3, or name a folder: --out DIR"
        )
    if destination.exists() and not a.overwrite and not (source.exists() and source.samefile(destination)):
        raise AudioError(
            f"{destination} exists; --overwrite replaces it, and --out DIR enhances both files into a folder"
        )
    done = enhance_file(source, destination, a.model, a.device, a.overwrite, precision=a.precision)
    print(f"{done.destination}: {done.seconds:.1f} s{_lowered(done.gain_db)}")
    return 0


def _lowered(gain_db: float) -> str:
    return f", lowered by {-gain_db:.1f} dB to stay below full scale" if gain_db < 0 else ""


def export(**options: Any) -> Parser:
    """The parser of ``export``."""
    p = Parser(**options)
    p.add_argument(
        "--model", type=named, default="distil_dccrn", metavar="NAME_OR_PATH", help="shipped weights or a file"
    )
    p.add_argument("--out", type=file, required=True, metavar="FILE", help="file to write (.onnx)")
    p.add_argument(
        "--kind",
        default="streaming",
        choices=["streaming", "offline"],
        help="one hop with explicit states, or any number of frames at once",
    )
    p.add_argument(
        "--precision",
        default="float32",
        choices=["float32", "float16", "int8"],
        help="of the weights: float16 halves the file, int8 makes a streaming one a quarter and quicker; `bench int8` "
        "says what it costs",
    )
    p.set_defaults(run=_export)
    return p


def _export(a: argparse.Namespace) -> int:
    from dccrn_lib.enhancement.onnx_export import export_onnx
    from dccrn_lib.networks.weights import load_model

    export_onnx(load_model(a.model), a.out, kind=a.kind, precision=a.precision)
    print(a.out)
    return 0


def run_onnx(**options: Any) -> Parser:
    """The parser of ``run-onnx``."""
    p = Parser(**options)
    p.add_argument("model", type=named, metavar="MODEL", help="file written by export (.onnx)")
    p.add_argument("source", type=named, metavar="IN", help="audio file at the model's sample rate")
    p.add_argument("destination", type=named, metavar="OUT", help="file to write: .wav, .flac, .ogg, .mp3 or .aiff")
    p.add_argument("--overwrite", action="store_true", help="replace an output that exists")
    p.set_defaults(run=_run_onnx)
    return p


def _run_onnx(a: argparse.Namespace) -> int:
    try:  # the point of an exported model is a machine with these three packages and nothing else of ours
        import numpy, onnxruntime, soundfile  # noqa: E401, F401, I001
    except ModuleNotFoundError as error:
        raise DccrnError(f"{error.name} is not installed; run: python -m pip install {error.name}") from None
    from dccrn_lib.enhancement.onnx_runtime import enhance_wav

    gain_db = enhance_wav(a.model, a.source, a.destination, a.overwrite)
    print(f"{a.destination}{_lowered(gain_db)}")
    return 0
