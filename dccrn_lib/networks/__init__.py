"""The networks: DCCRN and its students, Uformer, their weights, cost and look-ahead."""

from __future__ import annotations

from dccrn_lib.runtime.doors import door

# name -> module that defines it
_PUBLIC = {
    "PRESETS": "presets",
    "build_from_config": "presets",
    "build_model": "presets",
    "config_from_dict": "presets",
    "config_to_dict": "presets",
    "find_weights": "weights",
    "load_model": "weights",
    "read_card": "weights",
    "save_model": "weights",
    "count_macs": "cost",
    "count_parameters": "cost",
    "DCCRN": "dccrn",
    "DCCRNConfig": "dccrn",
    "Uformer": "uformer",
    "UformerConfig": "uformer",
    "load_authors_dccrn": "authors",
    "load_authors_uformer": "authors",
}

__all__ = sorted(_PUBLIC)
__getattr__, __dir__ = door(__name__, _PUBLIC)
