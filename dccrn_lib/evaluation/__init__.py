"""Scores of enhanced speech, and how certain they are."""

from __future__ import annotations

from typing import TYPE_CHECKING

from dccrn_lib.runtime.lazy_names import lazy_names

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
if TYPE_CHECKING:  # for type checkers and lint-imports, which do not follow a table
    from dccrn_lib.evaluation.folders import evaluate_directories as evaluate_directories
    from dccrn_lib.evaluation.groups import noise_family as noise_family
    from dccrn_lib.evaluation.groups import snr_band as snr_band
    from dccrn_lib.evaluation.intervals import Difference as Difference
    from dccrn_lib.evaluation.intervals import bootstrap_ci as bootstrap_ci
    from dccrn_lib.evaluation.intervals import compare_systems as compare_systems
    from dccrn_lib.evaluation.intervals import paired_difference as paired_difference
    from dccrn_lib.evaluation.intervals import t_interval as t_interval
    from dccrn_lib.evaluation.pairing import pair_files as pair_files
    from dccrn_lib.evaluation.scores import metric_names as metric_names
    from dccrn_lib.evaluation.scores import score_pair as score_pair
    from dccrn_lib.evaluation.systems import evaluate_systems as evaluate_systems
else:
    __getattr__, __dir__ = lazy_names(__name__, _PUBLIC)
