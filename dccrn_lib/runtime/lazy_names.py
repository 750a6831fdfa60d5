"""The public names of a package, each imported when it is first touched.

So ``import dccrn_lib`` takes milliseconds, and a missing extra only matters to the name that needs it.
"""

from __future__ import annotations

import importlib
import sys
from collections.abc import Callable, Mapping
from typing import Any


def lazy_names(package: str, names: Mapping[str, str]) -> tuple[Callable[[str], Any], Callable[[], list[str]]]:
    """``__getattr__`` and ``__dir__`` of a package.

    Args:
        package: its dotted name.
        names: public name -> module below the package that defines it; with a colon behind it, the name stands for
            that module itself.

    Raises:
        AttributeError: from ``__getattr__``, for a name that is not public.

    >>> get, _ = lazy_names("dccrn_lib", {"si_snr_db": "losses"})
    >>> get("si_snr_db").__name__
    'si_snr_db'
    """

    def get(name: str) -> Any:
        if name not in names:
            raise AttributeError(f"module {package!r} has no attribute {name!r}")
        module, colon, _ = names[name].partition(":")
        value: Any = importlib.import_module(f"{package}.{module}")
        if not colon:
            value = getattr(value, name)
        setattr(sys.modules[package], name, value)
        return value

    def names_of() -> list[str]:
        return sorted({*vars(sys.modules[package]), *names})

    return get, names_of
