"""All targets by name."""

from __future__ import annotations

from tests.fuzzing import manifests, notebooks, recordings, settings, shards, weights

TARGETS = {
    target.name: target
    for target in (
        recordings.TARGET, manifests.TARGET, settings.TARGET, weights.WEIGHTS, weights.CHECKPOINTS, shards.TARGET,
        notebooks.PARAMETERS, notebooks.NOTEBOOKS,
    )
}  # fmt: skip
