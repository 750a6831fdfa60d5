"""Run one command: find it, parse its options, and turn every ending into an exit code.

Exit codes: 0 fine, 1 failed, 2 bad usage, 130 interrupted, 129 and 143 ended by SIGHUP and SIGTERM. Errors are one
line on stderr; ``--debug`` adds the traceback.
"""

from __future__ import annotations

import importlib
import io
import os
import signal
import sys
from collections.abc import Iterator
from contextlib import contextmanager, redirect_stdout, suppress
from pathlib import Path

from dccrn_lib.cli import ALIASES, COMMANDS
from dccrn_lib.cli.parser import Parser
from dccrn_lib.runtime.errors import ConfigError, DccrnError, lacks_memory, nearest_name
from dccrn_lib.runtime.interrupts import Terminated, tidy_ending
from dccrn_lib.runtime.paths import install_command
from dccrn_lib.runtime.version import __version__

_EXTRAS = {
    "metrics": ("pesq", "pystoi", "scipy"),
    "speech": ("espeakng_loader", "pyroomacoustics"),
    "export": ("onnx", "onnxscript", "onnxruntime"),
    "dnsmos": ("speechmos", "librosa"),
    "notebooks": ("papermill", "nbclient", "nbformat", "nbconvert", "matplotlib", "ipywidgets", "IPython"),
    "tensorboard": ("tensorboard",),
}


def main(argv: list[str] | None = None) -> int:
    """Run one command and return its exit code.

    Args:
        argv: words behind the program's name; those of this process when None.

    Raises:
        SystemExit: bad usage (code 2), ``--help`` or ``--version`` (code 0).
    """
    argv = list(sys.argv[1:] if argv is None else argv)
    _open_what_is_closed()
    _calm_progress_bars()
    if "--debug" in argv:
        with tidy_ending():
            return _run(argv)
    try:
        with tidy_ending():
            return _run(argv)
    except DccrnError as error:
        _say_error(str(error), error)
        return 2 if isinstance(error, ConfigError) else 1
    except ModuleNotFoundError as error:
        module = (error.name or "").partition(".")[0]
        extra = next((name for name, modules in _EXTRAS.items() if module in modules), None)
        if extra is None:
            raise
        print(f"error: {module} is not installed; run: {install_command(extra)}", file=sys.stderr)
        return 1
    except OSError as error:
        name = os.fsdecode(error.filename) if isinstance(error.filename, (str, bytes)) else argv[0]
        _say_error(f"{name}: {error.strerror or error}", error)
        return 1
    except Exception as error:
        if not lacks_memory(error):
            raise
        cure = "end other programs, or give it fewer files, channels or workers at once"
        _say_error(f"{find_command(argv)[0]}: not enough memory; {cure}", error)
        return 1
    except KeyboardInterrupt as error:
        number = error.number if isinstance(error, Terminated) else signal.SIGINT
        _say_error("interrupted" if number == signal.SIGINT else f"ended by {signal.Signals(number).name}", error)
        _forget_interrupt()
        return 128 + number


def _open_what_is_closed() -> None:
    """Let a standard stream that the process was started without (``2>&-``) lead nowhere.

    Python leaves such a stream out: ``sys.stderr`` is None, which progress bars cannot write to, and the next file
    that is opened would get its number, and with it what C code prints. A file opened here takes the lowest free
    number: that of the stream.
    """
    for name in ("stdin", "stdout", "stderr"):
        if getattr(sys, name) is None:
            stream = open(os.devnull, "r" if name == "stdin" else "w", encoding="utf-8", errors="backslashreplace")
            os.set_inheritable(stream.fileno(), True)  # for the processes that a command starts
            setattr(sys, name, stream)


def _calm_progress_bars() -> None:
    """In a log, where nothing can be overwritten, a progress bar is a new text each time: every half minute is enough.

    tqdm takes its defaults from the environment when it is imported, so this comes before the commands' modules.
    """
    if not sys.stderr.isatty():
        os.environ.setdefault("TQDM_MININTERVAL", "30")
        os.environ.setdefault("TQDM_MAXINTERVAL", "30")


def _say_error(text: str, error: BaseException) -> None:
    """One line on stderr; notes that were added to the error on its way (``add_note``) stand behind it."""
    line = "; ".join([" ".join(text.split()), *getattr(error, "__notes__", [])])
    with suppress(OSError):  # the terminal may be what has gone
        print(f"error: {line}", file=sys.stderr)


def _forget_interrupt() -> None:
    """Make ``python -m`` end by our exit code after a KeyboardInterrupt that we have handled.

    CPython remembers a KeyboardInterrupt that leaves code run by ``exec()``, and a module is run that way when it is
    imported late (``PyEval_EvalCode`` sets ``_PyRuntime.signals.unhandled_keyboard_interrupt`` in pythonrun.c). At its
    end ``python -m`` then kills itself by SIGINT, whatever code ``sys.exit`` was given, so that shells see a process
    ended by the signal. Running any text anew, the empty one too, sets the flag back.
    """
    exec("")


def _run(argv: list[str]) -> int:
    if isinstance(sys.stdout, io.TextIOWrapper):  # a file's name may hold what the terminal cannot show
        sys.stdout.reconfigure(errors="backslashreplace")
    name, words = find_command(argv)
    parser = command_parser(name)
    args = parser.parse_args(words)
    with _one_rank_speaks():
        return args.run(args)


def find_command(argv: list[str]) -> tuple[str, list[str]]:
    """The command that words begin with, and the words behind its name; the longest name counts.

    Raises:
        SystemExit: the words name no command, or ask for help on several.

    >>> find_command(["corpus", "scan", "my_speech"])
    ('corpus scan', ['my_speech'])
    >>> find_command(["bench", "--smoke"])
    ('bench speed', ['--smoke'])
    """
    for length in range(min(3, len(argv)), 0, -1):
        name = " ".join(argv[:length])
        if name in COMMANDS:
            return name, argv[length:]
    words = _leading_words(argv)
    below = " ".join(words)
    if argv[len(words) :][:1] in (["-h"], ["--help"]) and (not below or _group(below)):
        print(overview(below), end="")
        raise SystemExit(0)
    if argv[:1] == ["--version"]:
        print(f"dccrn_lib {__version__}")
        raise SystemExit(0)
    if below in ALIASES:
        return ALIASES[below], argv[len(words) :]
    print(f"error: {_what_is_wrong(words)} (see: {program()} --help)", file=sys.stderr)
    raise SystemExit(2)


def _what_is_wrong(words: list[str]) -> str:
    """Why words name no command, with what could be meant."""
    if not words:
        return f"name a command: {', '.join(_first_words())}"
    fitting = next((k for k in range(len(words), 0, -1) if _group(" ".join(words[:k]))), 0)
    if not fitting:
        return f"no command {words[0]!r}; {nearest_name(words[0], _first_words())}"
    known = _group(" ".join(words[:fitting]))
    if fitting == len(words):
        return f"{' '.join(words)} is more than one command: {', '.join(known)}"
    wrong = " ".join(words[: fitting + 1])
    return f"no command {wrong!r}; {nearest_name(wrong, known)}"


def _first_words() -> list[str]:
    return list(dict.fromkeys(name.partition(" ")[0] for name in COMMANDS))


def _leading_words(argv: list[str]) -> list[str]:
    """The words before the first option; no name has more than three."""
    words: list[str] = []
    for word in argv[:3]:
        if word.startswith("-"):
            break
        words.append(word)
    return words


def _group(prefix: str) -> list[str]:
    """The commands whose names begin with these words."""
    return [name for name in COMMANDS if f"{name} ".startswith(f"{prefix} ")]


def command_parser(name: str, prog: str | None = None) -> Parser:
    """The parser of a command; its module is imported here.

    Args:
        name: key of :data:`dccrn_lib.cli.COMMANDS`.
        prog: the program's name in its usage; what this process was started as when None.
    """
    place, text = COMMANDS[name]
    module, _, function = place.partition(":")
    parser = getattr(importlib.import_module(module), function)(prog=f"{prog or program()} {name}", description=text)
    parser.add_argument("--debug", action="store_true", help="show the traceback of an error")
    parser.add_argument("--quiet", action="store_true", help="no progress bars")
    return parser


def overview(below: str = "") -> str:
    """The commands, each with its line.

    Args:
        below: first words of the commands to list; all when empty.
    """
    names = _group(below) if below else list(COMMANDS)
    width = max(len(name) for name in names)
    lines = [f"usage: {program()} {f'{below} ...' if below else 'COMMAND'} [options]", ""]
    if not below:
        lines += ["Speech enhancement with Distil-DCCRN, DCCRN and Uformer.", ""]
    lines += ["commands:", *(f"  {name:{width}}  {COMMANDS[name][1]}" for name in names), ""]
    lines += [f"Options of a command: {program()} COMMAND --help. Version: --version."]
    return "\n".join(lines) + "\n"


def program() -> str:
    """What this process was started as: the installed script, or the module."""
    return "dccrn" if Path(sys.argv[0]).stem == "dccrn" else "python -m dccrn_lib"


@contextmanager
def _one_rank_speaks() -> Iterator[None]:
    """Under torchrun, which sets RANK, only the first process prints."""
    if os.environ.get("RANK", "0") == "0":
        yield
        return
    with open(os.devnull, "w") as nowhere, redirect_stdout(nowhere):
        yield
