"""Digests: by which contents are told apart."""

from __future__ import annotations

import hashlib

from torch import nn


def state_digest(model: nn.Module) -> str:
    """SHA-256 of the names and values of a network's parameters and buffers, as 64 hex digits."""
    digest = hashlib.sha256()
    for name, value in model.state_dict().items():
        digest.update(name.encode() + value.cpu().contiguous().numpy().tobytes())
    return digest.hexdigest()
