"""The command line: ``python -m dccrn_lib COMMAND``, every command with ``--help``.

Exit codes: 0 fine, 1 failed, 2 bad usage, 130 interrupted. Errors are one line on stderr; ``--debug`` adds
the traceback. Each command imports what it needs when it runs, so that ``--help`` answers at once.
"""

from __future__ import annotations

import argparse
import sys
from typing import Any

from dccrn_lib import __version__
from dccrn_lib.cli.campaign import add_campaign
from dccrn_lib.cli.corpus import add_pack, add_scan, add_synth, add_unpack
from dccrn_lib.cli.enhance import add_enhance, add_export
from dccrn_lib.cli.evaluate import add_bench, add_evaluate
from dccrn_lib.cli.notebooks import add_notebooks
from dccrn_lib.cli.parser import Parser
from dccrn_lib.cli.train import add_train
from dccrn_lib.runtime.errors import ConfigError, DccrnError

_EXTRAS = {
    "metrics": ("pesq", "pystoi", "scipy"),
    "speech": ("espeakng_loader", "pyroomacoustics"),
    "export": ("onnx", "onnxscript", "onnxruntime"),
    "dnsmos": ("speechmos", "librosa"),
    "notebooks": ("papermill", "nbclient", "nbformat", "nbconvert", "matplotlib", "ipywidgets", "IPython"),
    "tensorboard": ("tensorboard",),
}


def build_parser() -> argparse.ArgumentParser:
    """The whole command line as an argparse parser."""
    shared = argparse.ArgumentParser(add_help=False)
    shared.add_argument("--debug", action="store_true", help="show the traceback of an error")
    shared.add_argument("--quiet", action="store_true", help="no progress bars")

    parser = Parser(prog="python -m dccrn_lib", description="Speech enhancement with Distil-DCCRN, DCCRN and Uformer.")
    parser.add_argument("--version", action="version", version=f"dccrn_lib {__version__}")
    commands = parser.add_subparsers(dest="command", metavar="COMMAND", required=True)

    def command(name: str, text: str, into: Any = commands) -> argparse.ArgumentParser:
        return into.add_parser(name, help=text, description=text, parents=[shared])

    corpus = commands.add_parser("corpus", help="make a corpus, list one in a manifest, pack it")
    actions = corpus.add_subparsers(dest="action", metavar="ACTION", required=True)
    add_synth(command("synth", "generate speech, noise and rooms; needs no network", actions))
    add_scan(command("scan", "list a folder of recordings in a manifest", actions))
    add_pack(command("pack", "write the audio of manifests into compact tar shards that training reads", actions))
    add_unpack(command("unpack", "write the members of packed manifests as files again", actions))
    add_train(command("train", "train or distil a model; also under torchrun"))
    add_campaign(command("campaign", "train teacher, DCCRN-E and all students side by side, within stated minutes"))
    add_enhance(command("enhance", "enhance audio files or folders"))
    add_evaluate(command("evaluate", "score noisy, enhanced or model output against clean files paired by name"))
    add_notebooks(command("run-notebooks", "execute the notebooks with parameters, write a report"))
    add_export(command("export", "write a model as ONNX"))
    add_bench(command("bench", "measure speed and memory"))
    return parser


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
        print(f"error: {module} is not installed; run: python -m pip install -e '.[{extra}]'", file=sys.stderr)
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
