"""Knowledge distillation between networks of different shape: AT-KL and the methods it is compared with."""

from __future__ import annotations

from dccrn_lib.runtime.doors import door

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
__getattr__, __dir__ = door(__name__, _PUBLIC)
