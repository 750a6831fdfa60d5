"""What the texts of the lessons' parameters may be: a mistake is told before anything runs, not by a cell after minutes."""

from __future__ import annotations

import os
import re
from typing import Any

from dccrn_lib.distillation.names import METHOD_NAMES
from dccrn_lib.runtime.errors import ConfigError, nearest_name
from dccrn_lib.runtime.paths import data_dir
from dccrn_lib.runtime.settings import Parameter, parse_share, shown
from dccrn_lib.training.profiles import PROFILES

#: Parameters that name a file, or a folder, that is read.
FILES = ("own_file", "noisy_file", "clean_file", "speech", "noise", "rir")
FOLDERS = ("systems_folder",)
DEVICE = re.compile(r"|auto|cpu|cuda(:\d{1,3})?", re.ASCII)


def choices(name: str) -> list[str]:
    """The texts that the parameter of this name may be; empty where it is free.

    >>> choices("reading")
    ['frequency', 'time_frequency']
    """
    if name in ("reading", "normalisation"):
        from dccrn_lib import distillation  # takes torch with it

        return list(distillation.READINGS if name == "reading" else distillation.NORMALISATIONS)
    return {
        "clip": sorted(path.stem for path in (data_dir() / "demo" / "noisy").glob("*.ogg")),
        "method": [method for method in METHOD_NAMES if method != "none"],  # of the student that is taught
        "sweep_methods": list(METHOD_NAMES),
        "sweep_profile": list(PROFILES),
    }.get(name, [])


def require_choice(parameter: Parameter, value: Any, notebook: str) -> None:
    """ConfigError for a text that this parameter of a lesson cannot be, a file that is not there, or an empty list.

    A notebook of the reader's own may use a name for something else: then its default is none of the choices.

    Args:
        parameter: as the notebook has it.
        value: of the parameter's type; paths are absolute.
        notebook: its name, for the message.
    """
    name, what = parameter.name, f"parameter {parameter.name} of {notebook}"
    known, default = choices(name), _parts(parameter.default)
    if known and set(default) <= set(known):
        if not _parts(value):
            raise ConfigError(f"{what} is empty; known: {', '.join(known)}")
        for text in _parts(value):
            if text not in known:
                raise ConfigError(f"{what} cannot be {shown(text)}; {nearest_name(text, known)}")
    if parameter.type != "str" or value == parameter.default:
        return
    if name == "device" and not DEVICE.fullmatch(value):
        raise ConfigError(f"{what} cannot be {shown(value)}; give cpu, cuda, cuda:1 ... or auto")
    if name == "sweep_share":
        try:
            parse_share(value)
        except ConfigError:
            raise ConfigError(f"{what} wants I/N, whole numbers with 0 <= I < N, got {shown(value)}") from None
    if value and name in FILES and not os.path.isfile(value):
        raise ConfigError(f"{what}: {_path(value)} is no file")
    if value and name in FOLDERS and not os.path.isdir(value):
        raise ConfigError(f"{what}: {_path(value)} is no folder")


def _parts(value: Any) -> list[str]:
    return [str(part) for part in value] if isinstance(value, list) else [str(value)]


def _path(value: str) -> str:
    """For a message; of a very long one its end, which says most."""
    return repr(value if len(value) <= 400 else f"...{value[-400:]}")
