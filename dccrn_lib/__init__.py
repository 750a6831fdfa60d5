"""Distil-DCCRN, DCCRN and Uformer for learning and for use.

The public names below are imported when first touched, so that ``import dccrn_lib`` takes milliseconds and a
missing extra only matters to the name that needs it.

>>> import dccrn_lib
>>> "build_model" in dir(dccrn_lib)
True
"""

from __future__ import annotations

import os

from dccrn_lib.runtime.doors import door

# ONNX Runtime writes a device id into the home folder and looks up a telemetry host as soon as it is imported, unless
# this stands in the environment before; a value that is set already is kept
os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")

__version__ = "0.2.0"

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
    "STFTConfig": "audio.stft",
    "probes": "networks.lookahead:",
}

__all__ = sorted([*_PUBLIC, "__version__"])
__getattr__, __dir__ = door(__name__, _PUBLIC)
