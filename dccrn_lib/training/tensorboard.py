"""Scalars of a run for TensorBoard, an extra: ``python -m pip install -e '.[tensorboard]'``."""

from __future__ import annotations

from pathlib import Path

from dccrn_lib.runtime.errors import ConfigError
from dccrn_lib.runtime.paths import install_command


class ScalarLog:
    """Numbers over steps in ``<folder>``, to be looked at with ``tensorboard --logdir <folder>``.

    Args:
        folder: where the event files go.

    Raises:
        ConfigError: the extra is not installed.
    """

    def __init__(self, folder: Path) -> None:
        try:
            from torch.utils.tensorboard import SummaryWriter
        except ImportError as error:  # ModuleNotFoundError, or a release that torch refuses
            raise ConfigError(
                f"tensorboard cannot be used ({error}); run: {install_command('tensorboard')}, "
                "or train with tensorboard false"
            ) from error
        self.writer = SummaryWriter(str(folder))

    def write(self, part: str, step: int, values: dict[str, float]) -> None:
        """Add ``values`` at ``step`` as ``<part>/<name>``; their own "step" is left out."""
        for name, value in values.items():
            if name != "step":
                self.writer.add_scalar(f"{part}/{name}", value, step)
        self.writer.flush()

    def close(self) -> None:
        """Finish the files."""
        self.writer.close()
