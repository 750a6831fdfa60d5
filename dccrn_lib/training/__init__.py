"""Training: one loop from a laptop to several GPUs."""

from __future__ import annotations

from typing import TYPE_CHECKING

from dccrn_lib.runtime.lazy_names import lazy_names

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
if TYPE_CHECKING:  # for type checkers and lint-imports, which do not follow a table
    from dccrn_lib.training.config import TrainConfig as TrainConfig
    from dccrn_lib.training.loop import train as train
    from dccrn_lib.training.profiles import PROFILES as PROFILES
    from dccrn_lib.training.profiles import Profile as Profile
    from dccrn_lib.training.profiles import get_profile as get_profile
    from dccrn_lib.training.schedule import hours_of_audio as hours_of_audio
    from dccrn_lib.training.schedule import learning_rate as learning_rate
    from dccrn_lib.training.session import TrainingError as TrainingError
    from dccrn_lib.training.session import TrainResult as TrainResult
else:
    __getattr__, __dir__ = lazy_names(__name__, _PUBLIC)
