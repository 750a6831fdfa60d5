"""How the learning rate rises and falls, and how much audio a number of steps is."""

from __future__ import annotations

from dccrn_lib.training.config import TrainConfig


def _rise(step: int, config: TrainConfig) -> float:
    """Linear, over ``warmup_steps``, to 1."""
    return min(1.0, (step + 1) / max(config.warmup_steps, 1))


def _fall(left: float) -> float:
    """Linear, to 2 %; ``left``: what is left of the training, as a multiple of ``decay_fraction`` of it."""
    return max(0.02, min(1.0, left))


def learning_rate(step: int, config: TrainConfig) -> float:
    """Linear rise, constant, linear fall to 2 %: the rate used in step ``step`` (0-based)."""
    left = (config.steps - step) / max(config.decay_fraction * config.steps, 1e-9)
    return config.learning_rate * _rise(step, config) * _fall(left)


def rate_factor(step: int, progress: float, config: TrainConfig) -> float:
    """Fraction of the highest learning rate where the length may be given in minutes: the same rise and fall.

    Args:
        step: 0-based.
        progress: fraction of the stage that has passed, in [0, 1].
        config: ``warmup_steps`` and ``decay_fraction``.
    """
    return _rise(step, config) * _fall((1.0 - progress) / max(config.decay_fraction, 1e-9))


def hours_of_audio(config: TrainConfig, steps: int | None = None) -> float:
    """Audio that ``steps`` steps (all by default) pass through the network, in hours."""
    return (config.steps if steps is None else steps) * config.batch_size * config.mix.segment_seconds / 3600
