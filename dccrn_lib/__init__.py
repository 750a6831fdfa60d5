"""Distil-DCCRN, DCCRN and Uformer for learning and for use.

The public names below are imported when first touched, so that ``import dccrn_lib`` takes milliseconds and a
missing extra only matters to the name that needs it.

>>> import dccrn_lib
>>> "build_model" in dir(dccrn_lib)
True
"""

from __future__ import annotations

import importlib
from typing import Any

__version__ = "0.1.0"

# name -> module that defines it
_PUBLIC = {
    "PRESETS": "models",
    "build_model": "models",
    "load_model": "models",
    "save_model": "models",
    "count_parameters": "models",
    "count_macs": "models",
    "load_authors_dccrn": "interop",
    "load_authors_uformer": "interop",
    "AttentionTransferKL": "distillation",
    "DistillationLoss": "distillation",
    "FeatureTap": "distillation",
    "si_snr_db": "losses",
    "si_snr_loss": "losses",
    "score_pair": "metrics",
    "StreamingEnhancer": "streaming",
    "enhance_file": "enhance",
    "ComplexSTFT": "stft",
    "STFTConfig": "stft",
}
_MODULES = ("probes",)

__all__ = sorted([*_PUBLIC, *_MODULES, "__version__"])


def __getattr__(name: str) -> Any:
    if name in _MODULES:
        return importlib.import_module(f"{__name__}.{name}")
    if name not in _PUBLIC:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = getattr(importlib.import_module(f"{__name__}.{_PUBLIC[name]}"), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
