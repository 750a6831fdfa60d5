"""Results: JSON files with all that is needed to judge a number, and the tables made from them."""

from __future__ import annotations

from typing import TYPE_CHECKING

from dccrn_lib.runtime.lazy_names import lazy_names

# name -> module that defines it
_PUBLIC = {
    "load_result": "records",
    "save_result": "records",
    "inject_tables": "tables",
    "stale_tables": "tables",
    "table": "tables",
    "with_tables": "tables",
}

__all__ = sorted(_PUBLIC)
if TYPE_CHECKING:  # for type checkers and lint-imports, which do not follow a table
    from dccrn_lib.results.records import load_result as load_result
    from dccrn_lib.results.records import save_result as save_result
    from dccrn_lib.results.tables import inject_tables as inject_tables
    from dccrn_lib.results.tables import stale_tables as stale_tables
    from dccrn_lib.results.tables import table as table
    from dccrn_lib.results.tables import with_tables as with_tables
else:
    __getattr__, __dir__ = lazy_names(__name__, _PUBLIC)
