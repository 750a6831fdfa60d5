"""The commands that enhance files, and export a network."""

from __future__ import annotations

import argparse
import sys
from typing import Any

from dccrn_lib.cli.checks import count, device, file, folder, named
from dccrn_lib.cli.parser import Parser
from dccrn_lib.runtime.errors import DccrnError


def enhance(**options: Any) -> Parser:
    p = Parser(**options)
    p.add_argument("inputs", nargs="+", type=named, metavar="IN", help="audio files or folders")
    p.add_argument("--out", type=folder, required=True, metavar="DIR", help="folder for the enhanced files")
    p.add_argument(
        "--model", type=named, default="distil_dccrn", metavar="NAME_OR_PATH", help="shipped weights or a file"
    )
    p.add_argument("--device", type=device, default="cpu", help="cpu, cuda, cuda:1 ...")
    p.add_argument("--workers", type=count, default=1, metavar="N", help="files in parallel (CPU)")
    p.add_argument("--overwrite", action="store_true", help="replace files that exist in the output folder")
    p.set_defaults(run=_enhance)
    return p


def _enhance(a: argparse.Namespace) -> int:
    from dccrn_lib.enhancement.batch import enhance_files

    report = enhance_files(
        a.inputs, a.out, model=a.model, device=a.device, workers=a.workers, progress=not a.quiet, overwrite=a.overwrite
    )
    for source, reason in report.failed:
        named = reason if str(source) in reason else f"{source}: {reason}"
        print(f"error: {' '.join(named.split())}", file=sys.stderr)
    print(f"{report}: {a.out}")
    return 1 if report.failed else 0


def export(**options: Any) -> Parser:
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
        choices=["float32", "int8"],
        help="int8 quantises the weights of LSTM and linear layers",
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
    p = Parser(**options)
    p.add_argument("model", type=named, metavar="MODEL", help="file written by export (.onnx)")
    p.add_argument("source", type=named, metavar="IN", help="audio file at the model's sample rate")
    p.add_argument("destination", type=named, metavar="OUT", help="file to write: .wav, .flac or .ogg")
    p.set_defaults(run=_run_onnx)
    return p


def _run_onnx(a: argparse.Namespace) -> int:
    try:  # the point of an exported model is a machine with these three packages and nothing else of ours
        import numpy, onnxruntime, soundfile  # noqa: E401, F401, I001
    except ModuleNotFoundError as error:
        raise DccrnError(f"{error.name} is not installed; run: python -m pip install {error.name}") from None
    from dccrn_lib.enhancement.onnx_runtime import enhance_wav

    enhance_wav(a.model, a.source, a.destination)
    return 0
