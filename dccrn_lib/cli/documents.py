"""The commands that write parts of the documents: tables of results, and the list of commands."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

from dccrn_lib.cli.checks import file, named
from dccrn_lib.cli.parser import Parser
from dccrn_lib.runtime.errors import ConfigError
from dccrn_lib.runtime.files import atomic_path


def results(**options: Any) -> Parser:
    """The parser of ``results``."""
    p = Parser(**options)
    p.add_argument("files", nargs="+", type=named, metavar="FILE", help="Markdown file with table markers")
    p.add_argument("--results", type=named, metavar="DIR", help="folder of the results; results/ when not given")
    p.set_defaults(run=_results)
    return p


def _results(a: argparse.Namespace) -> int:
    from dccrn_lib.results.tables import inject_tables

    for name in a.files:
        print(f"{name}: {'tables written' if inject_tables(name, a.results) else 'tables are up to date'}")
    return 0


def commands(**options: Any) -> Parser:
    """The parser of ``commands``."""
    p = Parser(**options)
    p.add_argument("--out", type=file, metavar="FILE", help="file to write; printed when not given")
    p.set_defaults(run=_commands)
    return p


def _commands(a: argparse.Namespace) -> int:
    from dccrn_lib.cli.reference import reference

    if a.out is None:
        print(reference(), end="")
        return 0
    if Path(a.out).is_file() and Path(a.out).resolve().suffix.lower() != ".md":
        raise ConfigError(f"{a.out} exists and is no Markdown; name a file that ends in .md")
    with atomic_path(Path(a.out)) as temporary:
        temporary.write_text(reference(), encoding="utf-8")
    print(a.out)
    return 0
