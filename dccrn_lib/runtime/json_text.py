"""JSON: the text that is written, and texts from elsewhere.

Whatever is wrong with a text, it is a ValueError with a reason of one line.
"""

from __future__ import annotations

import json
from typing import Any


def to_json(value: Any, indent: int | None = 1, allow_nan: bool = True) -> str:
    """JSON text that ends with a newline; letters stand as they are.

    Args:
        value: of lists, mappings, text and numbers.
        indent: spaces a level; None writes one line.
        allow_nan: whether NaN and infinity may stand in it, which other readers than Python refuse.

    Raises:
        TypeError: a value that is none of these.
        ValueError: NaN or infinity where they may not stand.

    >>> to_json({"name": "Zoë"}, indent=None)
    '{"name": "Zoë"}\\n'
    """
    text = json.dumps(value, indent=indent, ensure_ascii=False, allow_nan=allow_nan)
    if any("\ud800" <= letter <= "\udfff" for letter in text):  # of a file name that is no valid text
        text = json.dumps(value, indent=indent, allow_nan=allow_nan)
    return text + "\n"


def parse_json(text: str) -> Any:
    """The value of a JSON text.

    Raises:
        ValueError: not JSON, nested too deeply, or a whole number of thousands of digits.

    >>> parse_json('{"a": [1, 2.5]}')
    {'a': [1, 2.5]}
    >>> parse_json("[" * 100_000)
    Traceback (most recent call last):
    ValueError: nested too deeply
    """
    try:
        return json.loads(text)
    except json.JSONDecodeError as error:
        raise ValueError(f"not JSON: {error.msg}, line {error.lineno} column {error.colno}") from None
    except RecursionError:
        raise ValueError("nested too deeply") from None


def parse_object(text: str) -> dict[str, Any]:
    """The value of a JSON text that is an object, ``{...}``.

    Raises:
        ValueError: as of :func:`parse_json`, or a value of another kind.

    >>> parse_object("[1]")
    Traceback (most recent call last):
    ValueError: expected a JSON object, found list
    """
    value = parse_json(text)
    if not isinstance(value, dict):
        raise ValueError(f"expected a JSON object, found {type(value).__name__}")
    return value
