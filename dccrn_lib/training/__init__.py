"""Training: one loop from a laptop to several GPUs."""

from __future__ import annotations

from dccrn_lib.runtime.doors import door

# name -> module that defines it
_PUBLIC = {
    "TrainConfig": "config",
    "TrainResult": "session",
    "TrainingError": "session",
    "hours_of_audio": "schedule",
    "learning_rate": "schedule",
    "train": "loop",
    "PROFILES": "profiles",
    "Profile": "profiles",
    "get_profile": "profiles",
}

__all__ = sorted(_PUBLIC)
__getattr__, __dir__ = door(__name__, _PUBLIC)
