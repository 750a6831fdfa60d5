"""Fields of a frozen config set from the command line: ``NAME=VALUE``."""

from __future__ import annotations

import dataclasses
from typing import Any

from dccrn_lib.lessons.running.parameters import Parameter
from dccrn_lib.runtime.errors import ConfigError, nearest_name


def override(config: Any, values: dict[str, str]) -> Any:
    """A frozen dataclass with fields replaced by texts; ``mix.snr_db`` reaches into the field ``mix``.

    Args:
        config: instance of a dataclass whose fields are int, float, bool, str, pairs of float or dataclasses.
        values: field name -> text, as :func:`split_assignments` gives.

    Raises:
        ConfigError: an unknown field (the nearest one is named) or a value of the wrong type.
    """
    kinds = {field.name: str(field.type) for field in dataclasses.fields(config)}
    changes: dict[str, Any] = {}
    for name, text in values.items():
        outer, dot, inner = name.partition(".")
        if outer not in kinds or bool(dot) != dataclasses.is_dataclass(getattr(config, outer)):
            known = [
                f"{key}.*" if dataclasses.is_dataclass(getattr(config, key)) else key for key in sorted(kinds)
            ]
            raise ConfigError(f"no setting {name!r}; {nearest_name(name, known)}")
        if dot:
            changes[outer] = override(changes.get(outer, getattr(config, outer)), {inner: text})
        elif kinds[outer].startswith("tuple[float"):
            pair = [Parameter(name, "float", 0.0, "").parse(part) for part in text.split(",")]
            if len(pair) != len(getattr(config, outer)):
                raise ConfigError(
                    f"parameter {name}: {text!r} needs {len(getattr(config, outer))} numbers: a,b"
                )
            changes[outer] = tuple(pair)
        else:
            changes[outer] = Parameter(name, kinds[outer], None, "").parse(text)
    return dataclasses.replace(config, **changes)
