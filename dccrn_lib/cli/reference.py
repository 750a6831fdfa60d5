"""Every command with its options as Markdown: ``docs/commands.md`` is this text, and a test compares the two."""

from __future__ import annotations

import argparse

from dccrn_lib.cli import ALIASES, COMMANDS
from dccrn_lib.cli.fields import FieldParser
from dccrn_lib.cli.main import command_parser
from dccrn_lib.training.config import TrainConfig

_PROGRAM = "python -m dccrn_lib"
_HEAD = f"""# Commands

Written by `{_PROGRAM} commands --out docs/commands.md`; do not edit. The installed script `dccrn` is the same program.

Every command also takes `--help`, `--debug` (show the traceback of an error) and `--quiet` (no progress bars). Exit codes:
0 fine, 1 failed, 2 bad usage, 130 interrupted, 129 and 143 ended by SIGHUP and SIGTERM (a training that then keeps a
checkpoint: 130). An error is one line that says what was wrong and what to do.

"""
_EVERYWHERE = ("help", "debug", "quiet")


def reference() -> str:
    """The document, with a list of the commands and a section for each."""
    lines = ["| command | what it does |", "| --- | --- |"]
    lines += [f"| [`{name}`](#{name.replace(' ', '-')}) | {_cell(text)} |" for name, (_, text) in COMMANDS.items()]
    return _HEAD + "\n".join(lines) + "\n" + "".join(_section(name) for name in COMMANDS)


def _section(name: str) -> str:
    parser = command_parser(name, _PROGRAM)
    own = [a for a in parser._actions if a.dest not in _EVERYWHERE]
    needed = [_usage(a) for a in own if a.required]
    if isinstance(parser, FieldParser):
        needed += [f"--{f.name} {str(f.type).upper()}" for f in parser.required_fields()]
    usage = " ".join([_PROGRAM, name, *needed, "[options]"])
    what = COMMANDS[name][1]
    ending = "" if what.endswith("?") else "."
    text = f"\n## {name}\n\n{what[0].upper()}{what[1:]}{ending}\n\n    {usage}\n\n{_table(own)}"
    other = [alias for alias, target in ALIASES.items() if target == name]
    if other:
        text += f"\n`{_PROGRAM} {other[0]}` is the same.\n"
    if isinstance(parser, FieldParser):
        text += _fields(name, parser)
    return text


def _fields(name: str, parser: FieldParser) -> str:
    """The options that a dataclass gives; those of ``train`` are referred to elsewhere."""
    kind = parser.kind.__name__
    if name != "train" and parser.kind is TrainConfig:
        left_out = ", ".join(f"`{field}`" for field in parser.skip)
        return f"\nAlso every field of `{kind}` as for [`train`](#train), except {left_out}.\n"
    reader = parser.reader(parser.base(parser.parse_known_args([])[0]))
    fields = [a for a in reader._actions if a.option_strings and a.dest != "mix"]
    return (
        f"\nAlso every field of `{kind}`; `--batch-size` is as good as `--batch_size`. Defaults are those of the profile "
        "quick (`--profile NAME --help` shows the others').\n\n" + _table(fields)
    )


def _usage(action: argparse.Action) -> str:
    many = " ..." if action.nargs == "+" else ""
    return " ".join([*action.option_strings[-1:], str(action.metavar or action.dest.upper())]) + many


def _table(actions: list[argparse.Action]) -> str:
    if not actions:
        return "It has no options of its own.\n"
    rows = [f"| {_name(a)} | {_cell(a.help or '')} | {_default(a)} |" for a in actions]
    return "\n".join(["| option | what it is | default |", "| --- | --- | --- |", *rows]) + "\n"


def _name(action: argparse.Action) -> str:
    names = ", ".join(action.option_strings)
    if action.nargs == 0:
        return f"`{names}`"
    value = action.metavar or ("{" + ",".join(action.choices) + "}" if action.choices else None)
    return f"`{' '.join(part for part in (names, str(value) if value else '') if part)}`".replace("|", "\\|")


def _default(action: argparse.Action) -> str:
    value = action.default
    if value in (None, "") or value == [] or action.nargs == 0:
        return "required" if action.required else ""
    if isinstance(value, tuple):
        return f"`{','.join(f'{v:g}' for v in value)}`"
    return f"`{str(value).lower() if isinstance(value, bool) else value}`"


def _cell(text: str) -> str:
    return " ".join(text.replace("%%", "%").replace("``", "`").replace("|", "\\|").split())
