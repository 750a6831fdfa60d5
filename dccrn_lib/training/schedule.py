"""How the learning rate rises and falls, and how much audio a number of steps is."""

from __future__ import annotations

from dccrn_lib.training.config import TrainConfig


def learning_rate(step: int, config: TrainConfig) -> float:
    """Linear rise, constant, linear fall to 2 %: the rate used in step ``step`` (0-based)."""
    rise = min(1.0, (step + 1) / max(config.warmup_steps, 1))
    left = (config.steps - step) / max(config.decay_fraction * config.steps, 1e-9)
    return config.learning_rate * rise * max(0.02, min(1.0, left))


def rate_factor(step: int, progress: float, config: TrainConfig) -> float:
    """Fraction of the highest learning rate where the length is given in minutes: the same rise and fall.

    Args:
        step: 0-based.
        progress: fraction of the stage that has passed, in [0, 1].
        config: ``warmup_steps`` and ``decay_fraction``.
    """
    rise = min(1.0, (step + 1) / max(config.warmup_steps, 1))
    return rise * max(0.02, min(1.0, (1.0 - progress) / max(config.decay_fraction, 1e-9)))


def hours_of_audio(config: TrainConfig, steps: int | None = None) -> float:
    """Audio that ``steps`` steps (all by default) pass through the network, in hours."""
    return (config.steps if steps is None else steps) * config.batch_size * config.mix.segment_seconds / 3600
