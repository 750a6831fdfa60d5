"""Distil-DCCRN, DCCRN and Uformer for learning and for use.

The public names below are imported when first touched, so that ``import dccrn_lib`` takes milliseconds and a
missing extra only matters to the name that needs it.

>>> import dccrn_lib
>>> "build_model" in dir(dccrn_lib)
True
"""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

from dccrn_lib.runtime.lazy_names import lazy_names
from dccrn_lib.runtime.version import __version__ as __version__

# ONNX Runtime writes a device id into the home folder and looks up a telemetry host as soon as it is imported, unless
# this stands in the environment before; a value that is set already is kept
os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")

# name -> module that defines it; with a colon, the name stands for the module itself
_PUBLIC = {
    "PRESETS": "networks.presets",
    "build_model": "networks.presets",
    "load_model": "networks.weights",
    "save_model": "networks.weights",
    "count_parameters": "networks.cost",
    "count_macs": "networks.cost",
    "load_authors_dccrn": "networks.authors",
    "load_authors_uformer": "networks.authors",
    "AttentionTransferKL": "distillation.at_kl",
    "DistillationLoss": "distillation.loss",
    "FeatureTap": "distillation.taps",
    "si_snr_db": "losses",
    "si_snr_loss": "losses",
    "score_pair": "evaluation.scores",
    "StreamingEnhancer": "enhancement.stream",
    "enhance_file": "enhancement.files",
    "ComplexSTFT": "audio.stft",
    "STFTConfig": "audio.stft_config",
    "probes": "networks.lookahead:",
}

__all__ = sorted([*_PUBLIC, "__version__"])
if TYPE_CHECKING:  # for type checkers and lint-imports, which do not follow a table
    from dccrn_lib.audio.stft import ComplexSTFT as ComplexSTFT
    from dccrn_lib.audio.stft_config import STFTConfig as STFTConfig
    from dccrn_lib.distillation.at_kl import AttentionTransferKL as AttentionTransferKL
    from dccrn_lib.distillation.loss import DistillationLoss as DistillationLoss
    from dccrn_lib.distillation.taps import FeatureTap as FeatureTap
    from dccrn_lib.enhancement.files import enhance_file as enhance_file
    from dccrn_lib.enhancement.stream import StreamingEnhancer as StreamingEnhancer
    from dccrn_lib.evaluation.scores import score_pair as score_pair
    from dccrn_lib.losses import si_snr_db as si_snr_db
    from dccrn_lib.losses import si_snr_loss as si_snr_loss
    from dccrn_lib.networks import lookahead
    from dccrn_lib.networks.authors import load_authors_dccrn as load_authors_dccrn
    from dccrn_lib.networks.authors import load_authors_uformer as load_authors_uformer
    from dccrn_lib.networks.cost import count_macs as count_macs
    from dccrn_lib.networks.cost import count_parameters as count_parameters
    from dccrn_lib.networks.presets import PRESETS as PRESETS
    from dccrn_lib.networks.presets import build_model as build_model
    from dccrn_lib.networks.weights import load_model as load_model
    from dccrn_lib.networks.weights import save_model as save_model

    probes = lookahead
else:
    __getattr__, __dir__ = lazy_names(__name__, _PUBLIC)
