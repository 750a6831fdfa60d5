"""``python -m dccrn_lib.results FILE...``: write the tables of markdown files anew."""

from __future__ import annotations

import sys

from dccrn_lib.results.tables import inject_tables


def main(files: list[str]) -> int:
    for name in files:
        print(f"{name}: {'tables written' if inject_tables(name) else 'tables are up to date'}")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
