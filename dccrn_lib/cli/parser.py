"""argparse with one-line errors, the nearest name of an unknown option, and defaults in every help text."""

from __future__ import annotations

import argparse
import difflib
from collections.abc import Iterable, Sequence
from typing import Any, NoReturn


class _Help(argparse.ArgumentDefaultsHelpFormatter):
    """Help that shows a default where there is one to show."""

    def _get_help_string(self, action: argparse.Action) -> str:
        if action.default in (None, False, "") or action.default == []:
            return action.help or ""
        return super()._get_help_string(action) or ""


class Parser(argparse.ArgumentParser):
    """argparse with one-line errors and defaults in every help text; an unknown option comes with the nearest one."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        kwargs.setdefault("formatter_class", _Help)
        super().__init__(*args, allow_abbrev=False, **kwargs)

    def error(self, message: str) -> NoReturn:
        """End the process with one line on stderr and exit code 2."""
        self.exit(2, f"error: {' '.join(message.split())} (see: {self.prog} --help)\n")

    def parse_args(self, args: Sequence[str], namespace: Any = None) -> Any:
        """As of argparse, with options anywhere between the words; an unknown option is named before what is missing."""
        self.refuse_unknown(args, self._option_string_actions)
        given, left = self.parse_known_args(args, namespace)
        if left and "--" not in args:  # words behind an option, as in: enhance a.wav --out DIR b.wav
            return self.parse_intermixed_args(args, namespace)
        return given if not left else super().parse_args(args, namespace)

    def refuse_unknown(self, args: Sequence[str], known: Iterable[str]) -> None:
        """End with an error that names the nearest option, if ``args`` hold a ``--name`` that is not among ``known``."""
        known = [name for name in known if name.startswith("--")]
        for word in args:
            if word == "--":
                return
            name = word.partition("=")[0]
            if name.startswith("--") and name not in known:
                inner = [option for option in known if option.startswith(f"{name}.")]
                close = inner[:1] or difflib.get_close_matches(name, known, n=1)
                self.error(f"no option {name}" + (f"; did you mean {close[0]}?" if close else ""))
