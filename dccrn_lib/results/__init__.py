"""Results: JSON files with all that is needed to judge a number, and the tables made from them."""

from __future__ import annotations

from dccrn_lib.runtime.doors import door

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
__getattr__, __dir__ = door(__name__, _PUBLIC)
