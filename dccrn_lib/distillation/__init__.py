"""Knowledge distillation between networks of different shape: AT-KL and the methods it is compared with."""

from __future__ import annotations

from typing import TYPE_CHECKING

from dccrn_lib.runtime.lazy_names import lazy_names

# name -> module that defines it
_PUBLIC = {
    "FeatureTap": "taps",
    "NORMALISATIONS": "attention",
    "align_frames": "attention",
    "channel_attention": "attention",
    "frequency_attention": "attention",
    "kl_divergence": "attention",
    "log_distribution": "attention",
    "AttentionTransferKL": "at_kl",
    "CentredAttentionTransferKL": "at_kl",
    "READINGS": "at_kl",
    "AttentionTransfer": "other_methods",
    "ChannelKL": "other_methods",
    "FitNets": "other_methods",
    "SelfSimilarity": "other_methods",
    "FeatureLoss": "feature_loss",
    "DistillationLoss": "loss",
    "METHODS": "loss",
    "assert_frozen": "freezing",
    "freeze": "freezing",
    "frozen": "freezing",
}

__all__ = sorted(_PUBLIC)
if TYPE_CHECKING:  # for type checkers and lint-imports, which do not follow a table
    from dccrn_lib.distillation.at_kl import READINGS as READINGS
    from dccrn_lib.distillation.at_kl import AttentionTransferKL as AttentionTransferKL
    from dccrn_lib.distillation.at_kl import CentredAttentionTransferKL as CentredAttentionTransferKL
    from dccrn_lib.distillation.attention import NORMALISATIONS as NORMALISATIONS
    from dccrn_lib.distillation.attention import align_frames as align_frames
    from dccrn_lib.distillation.attention import channel_attention as channel_attention
    from dccrn_lib.distillation.attention import frequency_attention as frequency_attention
    from dccrn_lib.distillation.attention import kl_divergence as kl_divergence
    from dccrn_lib.distillation.attention import log_distribution as log_distribution
    from dccrn_lib.distillation.feature_loss import FeatureLoss as FeatureLoss
    from dccrn_lib.distillation.freezing import assert_frozen as assert_frozen
    from dccrn_lib.distillation.freezing import freeze as freeze
    from dccrn_lib.distillation.freezing import frozen as frozen
    from dccrn_lib.distillation.loss import METHODS as METHODS
    from dccrn_lib.distillation.loss import DistillationLoss as DistillationLoss
    from dccrn_lib.distillation.other_methods import AttentionTransfer as AttentionTransfer
    from dccrn_lib.distillation.other_methods import ChannelKL as ChannelKL
    from dccrn_lib.distillation.other_methods import FitNets as FitNets
    from dccrn_lib.distillation.other_methods import SelfSimilarity as SelfSimilarity
    from dccrn_lib.distillation.taps import FeatureTap as FeatureTap
else:
    __getattr__, __dir__ = lazy_names(__name__, _PUBLIC)
