"""The networks: DCCRN and its students, Uformer, their weights, cost and look-ahead."""

from __future__ import annotations

from typing import TYPE_CHECKING

from dccrn_lib.runtime.lazy_names import lazy_names

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
    "DCCRNConfig": "configs",
    "Uformer": "uformer",
    "UformerConfig": "configs",
    "load_authors_dccrn": "authors",
    "load_authors_uformer": "authors",
}

__all__ = sorted(_PUBLIC)
if TYPE_CHECKING:  # for type checkers and lint-imports, which do not follow a table
    from dccrn_lib.networks.authors import load_authors_dccrn as load_authors_dccrn
    from dccrn_lib.networks.authors import load_authors_uformer as load_authors_uformer
    from dccrn_lib.networks.configs import DCCRNConfig as DCCRNConfig
    from dccrn_lib.networks.configs import UformerConfig as UformerConfig
    from dccrn_lib.networks.cost import count_macs as count_macs
    from dccrn_lib.networks.cost import count_parameters as count_parameters
    from dccrn_lib.networks.dccrn import DCCRN as DCCRN
    from dccrn_lib.networks.presets import PRESETS as PRESETS
    from dccrn_lib.networks.presets import build_from_config as build_from_config
    from dccrn_lib.networks.presets import build_model as build_model
    from dccrn_lib.networks.presets import config_from_dict as config_from_dict
    from dccrn_lib.networks.presets import config_to_dict as config_to_dict
    from dccrn_lib.networks.uformer import Uformer as Uformer
    from dccrn_lib.networks.weights import find_weights as find_weights
    from dccrn_lib.networks.weights import load_model as load_model
    from dccrn_lib.networks.weights import read_card as read_card
    from dccrn_lib.networks.weights import save_model as save_model
else:
    __getattr__, __dir__ = lazy_names(__name__, _PUBLIC)
