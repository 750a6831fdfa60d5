"""Scores of enhanced speech, and how certain they are."""

from __future__ import annotations

from dccrn_lib.runtime.doors import door

# name -> module that defines it
_PUBLIC = {
    "metric_names": "scores",
    "score_pair": "scores",
    "evaluate_directories": "folders",
    "pair_files": "pairing",
    "evaluate_systems": "systems",
    "Difference": "intervals",
    "bootstrap_ci": "intervals",
    "compare_systems": "intervals",
    "t_interval": "intervals",
    "paired_difference": "intervals",
    "noise_family": "groups",
    "snr_band": "groups",
}

__all__ = sorted(_PUBLIC)
__getattr__, __dir__ = door(__name__, _PUBLIC)
