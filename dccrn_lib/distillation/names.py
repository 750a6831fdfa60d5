"""The distillation methods by name: no torch, so that the command line reads them at once."""

from __future__ import annotations

#: The names of ``dccrn_lib.distillation.loss.METHODS``, which has their feature terms.
METHOD_NAMES = ("none", "output", "at", "kl", "at_kl", "at_kl_centred", "fitnets", "self_similarity")
#: Methods that a cached teacher serves.
CACHED_METHODS = ("output", "at", "at_kl")
