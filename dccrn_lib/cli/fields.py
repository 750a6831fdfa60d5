"""Options for every field of a frozen dataclass: jsonargparse reads type, default and help from the dataclass.

A field ``learning_rate`` is ``--learning_rate`` (or ``--learning-rate``), and ``mix.snr_db`` reaches into the dataclass
of the field ``mix``. Help comes from the ``Args:`` of the dataclass's docstring. ``--config`` takes the values of a
record (``config.json`` of a run), and ``--set NAME=VALUE`` is another way of writing an option.
"""

from __future__ import annotations

import argparse
import dataclasses
import re
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, Generic, NoReturn, TypeVar

import jsonargparse

from dccrn_lib.cli.parser import Parser
from dccrn_lib.runtime.errors import ConfigError, nearest_name
from dccrn_lib.runtime.json_text import parse_json
from dccrn_lib.runtime.settings import flat, override, shown, split_assignments

Config = TypeVar("Config")


class _Help(jsonargparse.DefaultHelpFormatter):
    """Help without empty defaults and the quotes of docstrings."""

    def _get_help_string(self, action: argparse.Action) -> str:
        text = super()._get_help_string(action).replace("``", "")
        return text.replace(", default: %(default)s", "") if action.default == "" else text


class Reader(jsonargparse.ArgumentParser):
    """jsonargparse for the fields of a dataclass, with errors like those of all other options."""

    def error(self, message: str, ex: Exception | None = None) -> NoReturn:
        """End the process with one line on stderr and exit code 2; a value of the wrong type is named in our words."""
        bad = re.match(
            r'Parser key "([\w.]+)":\s+Expected an? (?:<class )?(.*?)>?\. Got value: (.*)', message, re.DOTALL
        )
        if bad:
            kind = bad[2].strip("'").replace("tuple", "pair of numbers, a,b")
            message = f"argument --{bad[1]}: {bad[3]!r} is not of the right type: {kind}"
        self.exit(2, f"error: {' '.join(message.split())} (see: {self.prog} --help)\n")


class FieldParser(Parser, Generic[Config]):
    """A command's own options, and one for every field of a dataclass.

    ``parse_args`` gives the own ones, and under ``fields`` an instance of the dataclass.

    Args:
        kind: the dataclass; its fields are int, float, bool, str, pairs of float, or dataclasses of such.
        base: from the own options to the instance that gives the defaults; text fields that have to be given are "".
        skip: fields without an option, since the command decides them or does without; they are refused by name.
        options: as of :class:`Parser`.
    """

    def __init__(
        self,
        kind: type[Config],
        base: Callable[[argparse.Namespace], Config],
        skip: Collection[str] = (),
        **options: Any,
    ) -> None:
        super().__init__(add_help=False, **options)
        self.kind, self.base, self.skip = kind, base, skip
        self.add_argument(
            "-h", "--help", action="store_true", help="show this help, with the defaults as given, and exit"
        )
        self.add_argument(
            "--config", metavar="FILE", help="config.json of a run: its values are the defaults of the fields below"
        )
        self.add_argument(
            "--set",
            action="append",
            default=[],
            metavar="NAME=VALUE",
            help="another way of writing --NAME VALUE for the fields below; may be repeated",
        )

    def parse_args(self, args: Sequence[str], namespace: Any = None) -> Any:
        """The own options, with the dataclass in ``fields`` and the names that were given in ``given``."""
        self._refuse_skipped(word[2:].partition("=")[0] for word in args if word.startswith("--"))
        names = list(self._reader()._option_string_actions)
        self.refuse_unknown(args, [*self._option_string_actions, *names, *(name.replace("_", "-") for name in names)])
        if {"-h", "--help"} & set(args):
            for action in self._actions:
                action.required = False
        given, rest = self.parse_known_args(args, namespace)
        base = self.base(given)
        reader = self.reader(base)
        if given.help:
            print(f"{self.format_help()}\n{reader.format_help()}", end="")
            self.exit(0)
        rest = _as_options(rest, flat(base))
        try:
            read = reader.parse_args(rest).as_dict()
        except (OverflowError, UnicodeEncodeError) as error:  # a number of hundreds of digits; bytes that are no text
            self.error(f"a value is out of range or no text ({error})")
        assigned = split_assignments(given.set)
        self._refuse_skipped(assigned, owned=True)
        given.given = {word[2:].partition("=")[0] for word in rest if word.startswith("--")}
        twice = sorted(given.given & set(assigned))
        if twice:
            raise ConfigError(f"{twice[0]} is given twice: as --{twice[0]} and by --set; leave one out")
        given.given |= set(assigned)
        given.fields = override(_replaced(base, read), assigned)
        missing = [f.name for f in self.required_fields() if not getattr(given.fields, f.name)]
        if missing:
            self.error(f"the following arguments are required: {', '.join(f'--{name}' for name in missing)}")
        return given

    def _refuse_skipped(self, names: Iterable[str], owned: bool = False) -> None:
        """End with an error that names the first of these fields that the command skips; ``owned``: its own options too."""
        for name in (name.replace("-", "_") for name in names):
            own = f"--{name}" in self._option_string_actions
            if name.partition(".")[0] in self.skip and (owned or not own):
                cure = f"write it as --{name}" if own else "leave it out"
                self.error(f"{name} is no setting here: {self.prog} decides it itself or does without it; {cure}")

    def reader(self, base: Config) -> Reader:
        """The parser of the fields, with the values of ``base`` as defaults."""
        reader = self._reader()
        values = {name: value for name, value in flat(base).items() if name.partition(".")[0] not in self.skip}
        reader.set_defaults(values)
        for action in reader._actions:
            if action.dest in values and not isinstance(values[action.dest], bool):
                pair = isinstance(values[action.dest], tuple)
                action.metavar = "LOW,HIGH" if pair else type(values[action.dest]).__name__.upper()
        return reader

    def _reader(self) -> Reader:
        reader = Reader(
            prog=self.prog, usage=argparse.SUPPRESS, add_help=False, allow_abbrev=False, formatter_class=_Help
        )
        reader.add_class_arguments(self.kind, skip=set(self.skip))
        options = reader._option_string_actions
        for outer in {name.partition(".")[0] for name in options if "." in name}:
            options.pop(outer).help = argparse.SUPPRESS  # jsonargparse's file of an inner dataclass; ours is --config
        return reader

    def required_fields(self) -> list[dataclasses.Field]:
        """The fields that have no default, so that they have to be given."""
        missing = dataclasses.MISSING
        # ``kind`` is a dataclass
        fields = dataclasses.fields(self.kind)  # pyright: ignore[reportArgumentType]
        return [f for f in fields if f.default is missing and f.default_factory is missing and f.name not in self.skip]


def recorded(path: str, base: Config, skip: Collection[str] = ()) -> Config:
    """A dataclass with the values of a record.

    Args:
        path: JSON file with fields of the dataclass, as ``config.json`` of a run.
        base: gives what the record does not hold (fields that are newer than it).
        skip: fields that are left as in ``base``.

    Raises:
        ConfigError: not readable, a field that the dataclass does not have, or a value that it refuses.
    """
    try:
        record = parse_json(Path(path).read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        reason = error.strerror if isinstance(error, OSError) else error
        raise ConfigError(f"{path}: no readable record ({reason}); give the config.json of a run") from None
    if not isinstance(record, dict):
        raise ConfigError(f"{path}: holds no fields; give the config.json of a run")
    known = flat(base)
    # ``base`` is one of a dataclass
    fields = {f.name: getattr(base, f.name) for f in dataclasses.fields(base)}  # pyright: ignore[reportArgumentType]
    for name, value in record.items():
        if name not in fields:
            raise ConfigError(f"{path}: no setting {shown(name)}; {nearest_name(name, list(fields))}")
        if isinstance(value, Mapping) != dataclasses.is_dataclass(fields[name]):
            raise ConfigError(f"{path}: {name} is {shown(value)}, which is not like {shown(fields[name])}")
    for name, value in flat(record).items():
        if name not in known:
            raise ConfigError(f"{path}: no setting {shown(name)}; {nearest_name(name, list(known))}")
        like = known[name]
        if (type(like), type(value)) not in {(type(like), type(like)), (tuple, list), (float, int)}:
            raise ConfigError(f"{path}: {name} is {shown(value)}, which is not like {like!r}")
    return _replaced(base, {name: value for name, value in record.items() if name not in skip})


def _replaced(base: Any, values: Mapping[str, Any]) -> Any:
    """A dataclass with fields replaced; mappings reach into dataclasses, and lists become pairs."""
    changes = {}
    for name, value in values.items():
        if isinstance(value, Mapping):
            value = _replaced(getattr(base, name), value)
        changes[name] = tuple(value) if isinstance(value, list) else value
    return dataclasses.replace(base, **changes)


def _as_options(words: Sequence[str], fields: Mapping[str, Any]) -> list[str]:
    """Words with options spelled as fields are, and a pair ``-5,12`` as jsonargparse reads it: ``=[-5,12]``."""
    options: list[str] = []
    waiting = iter(words)
    for word in waiting:
        name, equals, value = word.partition("=")
        field = name[2:].replace("-", "_")
        if not name.startswith("--") or field not in fields:
            options.append(word)
        elif isinstance(fields[field], tuple):
            value = value if equals else next(waiting, "")
            options.append(f"--{field}={value if value.startswith('[') else f'[{value}]'}")
        else:
            options.append(f"--{field}{equals}{value}")
    return options
