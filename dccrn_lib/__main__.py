"""The command line: ``python -m dccrn_lib COMMAND``, every command with ``--help``.

Exit codes: 0 fine, 1 failed, 2 bad usage, 130 interrupted. Errors are one line on stderr; ``--debug`` adds
the traceback. Each command imports what it needs when it runs, so that ``--help`` answers at once.
"""

from __future__ import annotations

import argparse
import math
import os
import re
import sys
from pathlib import Path
from typing import Any, NoReturn

from dccrn_lib import __version__
from dccrn_lib.errors import ConfigError, DccrnError

_EXTRAS = {
    "metrics": ("pesq", "pystoi", "scipy"),
    "speech": ("espeakng_loader", "pyroomacoustics"),
    "export": ("onnx", "onnxscript", "onnxruntime"),
    "dnsmos": ("speechmos", "librosa"),
    "notebooks": ("papermill", "nbclient", "nbformat", "nbconvert", "matplotlib", "ipywidgets", "IPython"),
    "tensorboard": ("tensorboard",),
}


class _Help(argparse.ArgumentDefaultsHelpFormatter):
    """Help that shows a default where there is one to show."""

    def _get_help_string(self, action: argparse.Action) -> str:
        if action.default is None or action.default is False or action.default == []:
            return action.help or ""
        return super()._get_help_string(action)


class _Parser(argparse.ArgumentParser):
    """argparse with one-line errors and defaults in every help text."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        kwargs.setdefault("formatter_class", _Help)
        super().__init__(*args, **kwargs)

    def error(self, message: str) -> NoReturn:
        self.exit(2, f"error: {message} (see: {self.prog} --help)\n")


def build_parser() -> argparse.ArgumentParser:
    """The whole command line as an argparse parser."""
    shared = argparse.ArgumentParser(add_help=False)
    shared.add_argument("--debug", action="store_true", help="show the traceback of an error")
    shared.add_argument("--quiet", action="store_true", help="no progress bars")

    parser = _Parser(
        prog="python -m dccrn_lib", description="Speech enhancement with Distil-DCCRN, DCCRN and Uformer."
    )
    parser.add_argument("--version", action="version", version=f"dccrn_lib {__version__}")
    commands = parser.add_subparsers(dest="command", metavar="COMMAND", required=True)

    def command(name: str, text: str, into: Any = commands) -> argparse.ArgumentParser:
        return into.add_parser(name, help=text, description=text, parents=[shared])

    corpus = commands.add_parser("corpus", help="make a corpus, list one in a manifest, pack it")
    actions = corpus.add_subparsers(dest="action", metavar="ACTION", required=True)
    _add_synth(command("synth", "generate speech, noise and rooms; needs no network", actions))
    _add_scan(command("scan", "list a folder of recordings in a manifest", actions))
    _add_pack(command("pack", "write the audio of manifests into compact tar shards that training reads", actions))
    _add_unpack(command("unpack", "write the members of packed manifests as files again", actions))
    _add_train(command("train", "train or distil a model; also under torchrun"))
    _add_enhance(command("enhance", "enhance audio files or folders"))
    _add_evaluate(
        command("evaluate", "score noisy, enhanced or model output against clean files paired by name")
    )
    _add_notebooks(command("run-notebooks", "execute the notebooks with parameters, write a report"))
    _add_export(command("export", "write a model as ONNX"))
    _add_bench(command("bench", "measure speed and memory"))
    return parser


def _add_synth(p: argparse.ArgumentParser) -> None:
    p.add_argument("--out", type=_folder, required=True, metavar="DIR", help="folder to write")
    p.add_argument("--hours", type=_positive, default=1.0, metavar="H", help="hours of speech")
    p.add_argument(
        "--seed", type=int, default=0, metavar="S", help="the corpus is a function of hours and seed"
    )
    p.add_argument("--workers", type=int, metavar="N", help="processes; all cores when not given")
    p.set_defaults(run=_corpus_synth)


def _corpus_synth(a: argparse.Namespace) -> int:
    from dccrn_lib.corpus.synthesis import synthesise_corpus

    paths = synthesise_corpus(a.out, hours=a.hours, seed=a.seed, workers=a.workers, progress=not a.quiet)
    for manifest in (paths.speech, paths.noise, paths.rir):
        print(manifest)
    return 0


def _add_scan(p: argparse.ArgumentParser) -> None:
    p.add_argument("folder", type=_named, metavar="DIR", help="folder of recordings, searched with its subfolders")
    p.add_argument(
        "--kind", required=True, choices=["speech", "noise", "rir"], help="what the recordings are"
    )
    p.add_argument("--out", type=_file, required=True, metavar="FILE", help="manifest to write (.jsonl)")
    p.add_argument("--split", choices=["train", "valid", "test"], help="put all files in one split")
    p.add_argument(
        "--valid-fraction", type=float, default=0.05, metavar="F", help="share of speakers for valid"
    )
    p.add_argument(
        "--test-fraction", type=float, default=0.05, metavar="F", help="share of speakers for test"
    )
    p.add_argument("--licence", default="unknown", metavar="TEXT", help="licence of the recordings")
    p.add_argument(
        "--corpus", metavar="NAME", help="name of the collection; the folder's name when not given"
    )
    p.add_argument(
        "--group-level",
        type=int,
        metavar="N",
        help="folder level below DIR that names the speaker or recording; guessed when not given",
    )
    p.add_argument("--workers", type=_count, metavar="N", help="parallel readers; all cores when not given")
    p.set_defaults(run=_corpus_scan)


def _corpus_scan(a: argparse.Namespace) -> int:
    from dccrn_lib.corpus.manifest import scan_folder

    report = scan_folder(
        a.folder,
        a.kind,
        a.out,
        split=a.split,
        valid_fraction=a.valid_fraction,
        test_fraction=a.test_fraction,
        licence=a.licence,
        corpus=a.corpus,
        group_level=a.group_level,
        workers=a.workers,
        progress=not a.quiet,
    )
    print(report)
    return 0


def _add_pack(p: argparse.ArgumentParser) -> None:
    p.add_argument("manifests", nargs="+", metavar="FILE", help="manifests of speech, noise and room responses (.jsonl)")
    p.add_argument("--out", type=_folder, required=True, metavar="DIR", help="new folder for shards and manifests")
    p.add_argument(
        "--codec", choices=["opus", "vorbis", "flac"], default="opus", help="of speech and noise; room responses are FLAC"
    )
    p.add_argument("--bitrate", type=_positive, default=32.0, metavar="KBIT", help="of Opus, in kbit/s, 6 to 256")
    p.add_argument("--shard-mb", type=_positive, default=256.0, metavar="N", help="size of a shard in MiB")
    p.add_argument("--workers", type=int, metavar="N", help="processes that encode; all cores when not given")
    p.set_defaults(run=_corpus_pack)


def _corpus_pack(a: argparse.Namespace) -> int:
    from dccrn_lib.corpus.pack import pack_corpus

    report = pack_corpus(
        a.manifests, a.out, a.codec, a.bitrate, a.shard_mb, workers=a.workers, progress=not a.quiet
    )
    for manifest in report.manifests:
        print(manifest)
    print(report)
    return 0


def _add_unpack(p: argparse.ArgumentParser) -> None:
    p.add_argument("manifests", nargs="+", metavar="FILE", help="packed manifests (.jsonl)")
    p.add_argument("--out", type=_folder, required=True, metavar="DIR", help="new folder for files and manifests")
    p.set_defaults(run=_corpus_unpack)


def _corpus_unpack(a: argparse.Namespace) -> int:
    from dccrn_lib.corpus.pack import unpack_corpus

    report = unpack_corpus(a.manifests, a.out, progress=not a.quiet)
    for manifest in report.manifests:
        print(manifest)
    print(report)
    return 0


def _add_train(p: argparse.ArgumentParser) -> None:
    p.add_argument(
        "--profile", default="quick", metavar="NAME", help="size of the run: smoke, quick, cpu or gpu"
    )
    p.add_argument("--model", metavar="NAME", help="preset to train; the profile's student when not given")
    p.add_argument(
        "--method", default="none", metavar="NAME", help="distillation method: none, output, at_kl ..."
    )
    p.add_argument("--teacher", metavar="NAME_OR_PATH", help="weights of the teacher; needed with a method")
    p.add_argument("--init", metavar="NAME_OR_PATH", help="weights to start from; fresh ones when not given")
    p.add_argument(
        "--speech", required=True, metavar="FILE", help="manifest of clean speech; several with commas"
    )
    p.add_argument("--noise", required=True, metavar="FILE", help="manifest of noise; several with commas")
    p.add_argument("--rir", metavar="FILE", help="manifest of room impulse responses")
    p.add_argument("--out", type=_folder, required=True, metavar="RUN", help="folder of the run")
    p.add_argument("--resume", action="store_true", help="go on from the checkpoint in the run's folder")
    p.add_argument("--seed", type=int, default=0, metavar="S", help="of weights and mixtures")
    p.add_argument("--device", type=_device, metavar="NAME", help="cpu, cuda or auto; the profile's when not given")
    p.add_argument("--steps", type=int, metavar="N", help="optimiser steps; the profile's when not given")
    p.add_argument("--batch-size", type=int, metavar="N", help="mixtures a step, over all processes")
    p.add_argument("--workers", type=int, metavar="N", help="processes that mix")
    p.add_argument(
        "--set",
        action="append",
        default=[],
        metavar="NAME=VALUE",
        help="any other field of TrainConfig, or mix.NAME of its MixConfig; may be repeated",
    )
    p.set_defaults(run=_train)


def _train(a: argparse.Namespace) -> int:
    import torch

    from dccrn_lib.parameters import override, split_assignments
    from dccrn_lib.profiles import get_profile
    from dccrn_lib.signal_path import require_device
    from dccrn_lib.training import TrainConfig, train

    torch.set_flush_denormal(True)  # numbers below 1e-38 slow a CPU down many times
    if a.device not in (None, "auto"):
        require_device(a.device)
    profile = get_profile(a.profile)
    model = a.model or profile.student
    steps = a.steps or (profile.teacher_steps if model.startswith("uformer") else profile.student_steps)
    options = {
        "batch_size": profile.batch_size,
        "learning_rate": profile.learning_rate,
        "amp": profile.amp,
        "device": profile.device,
        "workers": profile.workers,
        "spectral_weight": profile.spectral_weight,
        "ema_decay": profile.ema_decay,
        "valid_mixtures": profile.valid_mixtures,
        "valid_every": max(1, steps // 8),
        "decay_fraction": profile.decay_fraction,
        "mix": profile.mix(profile.segment_seconds),
    }
    names = (
        "method",
        "teacher",
        "init",
        "speech",
        "noise",
        "rir",
        "out",
        "seed",
        "device",
        "batch_size",
        "workers",
    )
    options |= {name: getattr(a, name) for name in names if getattr(a, name) is not None}
    config = override(TrainConfig(model=model, steps=steps, **options), split_assignments(a.set))
    result = train(config, resume=a.resume, progress=not a.quiet)
    last = result.history["valid"][-1] if result.history["valid"] else None
    score = (
        f", SI-SNR {last['si_snr_db']:.4g} dB on valid (noisy {last['noisy_si_snr_db']:.4g})" if last else ""
    )
    print(
        f"{result.weights}{score}"
        if not result.stopped
        else f"stopped; go on with --resume --out {config.out}"
    )
    return 130 if result.stopped else 0


def _add_enhance(p: argparse.ArgumentParser) -> None:
    p.add_argument("inputs", nargs="+", type=_named, metavar="IN", help="audio files or folders")
    p.add_argument("--out", type=_folder, required=True, metavar="DIR", help="folder for the enhanced files")
    p.add_argument(
        "--model", type=_named, default="distil_dccrn", metavar="NAME_OR_PATH", help="shipped weights or a file"
    )
    p.add_argument("--device", type=_device, default="cpu", help="cpu, cuda, cuda:1 ...")
    p.add_argument("--workers", type=_count, default=1, metavar="N", help="files in parallel (CPU)")
    p.add_argument("--overwrite", action="store_true", help="replace files that exist in the output folder")
    p.set_defaults(run=_enhance)


def _enhance(a: argparse.Namespace) -> int:
    from dccrn_lib.enhance import enhance_files

    report = enhance_files(
        a.inputs,
        a.out,
        model=a.model,
        device=a.device,
        workers=a.workers,
        progress=not a.quiet,
        overwrite=a.overwrite,
    )
    for source, reason in report.failed:
        named = reason if str(source) in reason else f"{source}: {reason}"
        print(f"error: {' '.join(named.split())}", file=sys.stderr)
    print(f"{report}: {a.out}")
    return 1 if report.failed else 0


def _add_evaluate(p: argparse.ArgumentParser) -> None:
    p.add_argument("--clean", type=_named, required=True, metavar="DIR", help="clean references")
    p.add_argument("--noisy", type=_named, required=True, metavar="DIR", help="noisy files of the same names")
    group = p.add_mutually_exclusive_group()
    group.add_argument(
        "--model", metavar="NAME_OR_PATH", help="enhance the noisy files with this model and score that"
    )
    group.add_argument("--enhanced", metavar="DIR", help="score these files; with neither, the noisy ones")
    p.add_argument("--json", type=_file, required=True, metavar="FILE", help="result file to write")
    p.add_argument("--device", type=_device, default="cpu", help="cpu, cuda, cuda:1 ...")
    p.add_argument("--metrics", metavar="NAMES", help="pesq_wb,stoi ...; all that are installed when not given")
    p.add_argument("--workers", type=_count, metavar="N", help="processes that score; all cores when not given")
    p.set_defaults(run=_evaluate)


def _evaluate(a: argparse.Namespace) -> int:
    from dccrn_lib.metrics import evaluate_directories
    from dccrn_lib.signal_path import require_device

    require_device(a.device)
    result = evaluate_directories(
        a.clean, a.noisy, model=a.model, enhanced=a.enhanced, json_path=a.json, device=a.device,
        workers=a.workers, progress=not a.quiet, metrics=a.metrics.split(",") if a.metrics else None,
    )  # fmt: skip
    means = ", ".join(f"{k} {v:.4g}" for k, v in result["mean"].items() if v is not None)
    print(f"{result['n_scored']} of {result['n']} files scored: {means or 'nothing'}")
    return 0 if result["n_scored"] else 1


def _add_notebooks(p: argparse.ArgumentParser) -> None:
    p.add_argument("--profile", default="quick", metavar="NAME", help="smoke, quick, cpu or gpu")
    p.add_argument("--only", metavar="WHICH", help="numbers or names, comma-separated: 05,06")
    p.add_argument("--out", type=_folder, metavar="DIR", help="folder for the run; runs/PROFILE when not given")
    p.add_argument(
        "-p",
        "--parameter",
        action="append",
        default=[],
        metavar="NAME=VALUE",
        help="set a notebook parameter; may be repeated",
    )
    p.add_argument(
        "--timeout", type=_positive, metavar="S", help="seconds a cell may take; no limit when not given"
    )
    p.add_argument("--jobs", type=_count, metavar="N", help="notebooks at a time; 2 where there are two cores")
    p.add_argument("--list-parameters", action="store_true", help="print the notebooks' parameters and stop")
    p.add_argument(
        "--in-place",
        action="store_true",
        help="execute the committed notebooks where they lie, with their own defaults, and clean them",
    )
    p.set_defaults(run=_run_notebooks)


def _run_notebooks(a: argparse.Namespace) -> int:
    from dccrn_lib import notebooks

    only = [part.strip() for part in a.only.split(",") if part.strip()] if a.only else None
    if a.list_parameters:
        print(notebooks.describe_parameters(only))
        return 0
    if a.in_place:
        if a.parameter:
            raise ConfigError("--in-place runs the notebooks with their own defaults: leave -p out")
        report = notebooks.execute_in_place(only, timeout=a.timeout, progress=not a.quiet)
    else:
        report = notebooks.run_notebooks(
            a.profile,
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


def _add_export(p: argparse.ArgumentParser) -> None:
    p.add_argument(
        "--model", type=_named, default="distil_dccrn", metavar="NAME_OR_PATH", help="shipped weights or a file"
    )
    p.add_argument("--out", type=_file, required=True, metavar="FILE", help="file to write (.onnx)")
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


def _export(a: argparse.Namespace) -> int:
    from dccrn_lib.export import export_onnx
    from dccrn_lib.models import load_model

    export_onnx(load_model(a.model), a.out, kind=a.kind, precision=a.precision)
    print(a.out)
    return 0


def _add_bench(p: argparse.ArgumentParser) -> None:
    p.add_argument("--json", type=_file, required=True, metavar="FILE", help="result file to write")
    p.add_argument(
        "--smoke", action="store_true", help="seconds instead of minutes; the numbers mean nothing"
    )
    p.set_defaults(run=_bench)


def _bench(a: argparse.Namespace) -> int:
    from dccrn_lib.bench import run_benchmarks

    run_benchmarks(json_path=a.json, quick=a.smoke, progress=not a.quiet)
    print(a.json)
    return 0


def _positive(text: str) -> float:
    try:
        value = float(text)
    except ValueError:
        raise argparse.ArgumentTypeError(f"{text!r} is not a number") from None
    if not 0 < value < math.inf:
        raise argparse.ArgumentTypeError(f"{text} is not above 0 and finite")
    return value


def _count(text: str) -> int:
    try:
        value = int(text)
    except ValueError:
        raise argparse.ArgumentTypeError(f"{text!r} is not a whole number") from None
    if value < 1:
        raise argparse.ArgumentTypeError(f"must be at least 1, got {value}")
    return value


def _named(text: str) -> str:
    """A path; the empty one is an unset variable of the shell, not the folder one is in."""
    if not text:
        raise argparse.ArgumentTypeError("is empty; give a name, or . for the folder you are in")
    return text


def _folder(text: str) -> str:
    """A folder to write to, refused before the work begins rather than after it."""
    path = Path(_named(text))
    wrong = next((p for p in (path, *path.parents) if os.path.exists(p) and not os.path.isdir(p)), None)
    if wrong is not None:
        raise argparse.ArgumentTypeError(f"{wrong} is a file, not a folder; choose another place")
    return text


def _file(text: str) -> str:
    """A file to write, refused before the work begins rather than after it."""
    path = Path(_named(text))
    if os.path.isdir(path):
        raise argparse.ArgumentTypeError(f"{path} is a folder; name a file in it")
    _folder(str(path.parent))
    return text


def _device(text: str) -> str:
    """A device that torch knows; whether it is there is asked when the command runs."""
    if not re.fullmatch(r"(auto|cpu|cuda|mps|xpu)(:\d+)?", text):
        raise argparse.ArgumentTypeError(f"unknown device {text!r}; use cpu, cuda or cuda:1")
    return text


def main(argv: list[str] | None = None) -> int:
    """Run one command and return its exit code."""
    args = build_parser().parse_args(argv)
    if args.debug:
        return args.run(args)
    try:
        return args.run(args)
    except DccrnError as error:
        print(f"error: {' '.join(str(error).split())}", file=sys.stderr)
        return 2 if isinstance(error, ConfigError) else 1
    except ModuleNotFoundError as error:
        module = (error.name or "").partition(".")[0]
        extra = next((name for name, modules in _EXTRAS.items() if module in modules), None)
        if extra is None:
            raise
        print(
            f"error: {module} is not installed; run: python -m pip install -e '.[{extra}]'", file=sys.stderr
        )
        return 1
    except OSError as error:
        print(f"error: {error.filename or args.command}: {error.strerror or error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("error: interrupted", file=sys.stderr)
        # Where Ctrl-C struck in code run by exec() (a late import), Python remembers it as unhandled and would end
        # `python -m` by the signal instead of our code; running any text anew clears that.
        exec("")
        return 130


if __name__ == "__main__":
    # torchrun sets RANK: only the first process speaks
    if os.environ.get("RANK", "0") != "0":
        sys.stdout = open(os.devnull, "w")
    sys.exit(main())
