"""Damage: to bytes, and to the value of a JSON text."""

from __future__ import annotations

import copy
import json
import struct
from typing import Any

from hypothesis import strategies as st

#: Numbers at the edges of what fields of 8, 16, 32 and 64 bits hold.
EDGES = [0, 1, 2, 7, 255, 256, 2**15, 2**16 - 1, 2**31 - 1, 2**31, 2**32 - 1, 2**62, 2**63 - 1, 2**64 - 1]
HEADER = 200  # bytes; most of the damage is done here


@st.composite
def damaged(draw: st.DrawFn, originals: list[bytes]) -> bytes:
    """One of the originals with one to four places changed, cut or doubled."""
    data = bytearray(draw(st.sampled_from(originals)))
    for _ in range(draw(st.integers(1, 4))):
        if not data:
            break
        place = draw(st.integers(0, min(HEADER, len(data)) - 1) | st.integers(0, len(data) - 1))
        kind = draw(st.sampled_from(("byte", "bit", "number", "number", "cut", "remove", "insert", "double", "text")))
        if kind == "byte":
            data[place] = draw(st.integers(0, 255))
        elif kind == "bit":
            data[place] ^= 1 << draw(st.integers(0, 7))
        elif kind == "number":
            form = draw(st.sampled_from(("<H", ">H", "<I", ">I", "<Q", ">Q")))
            size = struct.calcsize(form)
            number = draw(st.sampled_from(EDGES) | st.integers(0, 2**64 - 1)) % 2 ** (8 * size)
            data[place : place + size] = struct.pack(form, number)
        elif kind == "cut":
            del data[place:]
        elif kind == "remove":
            del data[place : place + draw(st.integers(1, 64))]
        elif kind == "insert":
            data[place:place] = draw(st.binary(min_size=1, max_size=64))
        elif kind == "double":
            data[place:place] = data[place : place + draw(st.integers(1, 2000))]
        else:
            data[place : place + 12] = draw(st.sampled_from((b"../../../x\0\0", b"/etc/passwd\0", b"%s%s%n%n\n\n\n\n")))
    return bytes(data)


#: Texts that have broken programs: empty, long, with NUL, half a letter, a separator of lines, a path upwards, markup.
TEXTS = st.sampled_from(
    ("", " ", "\0", "a\0b", "\ud800", "\udcff", "\u2028", "..", "../../x", "/", "~", "a" * 5000, "{x}", "%s", "nan", "-1",
     "<script>alert(1)</script>", "1e999", "::", "a.tar::b", "\n", "'\"", "${HOME}", "NaN", "9" * 400, "9" * 5000)
) | st.text(max_size=20)  # fmt: skip

NUMBERS = (
    st.integers()
    | st.floats(allow_nan=True, allow_infinity=True)
    | st.sampled_from((10**30, -(10**30), 10**400, 2**63, -1, 0, 1e308, -0.0, 5e-324))
)
JSON = st.recursive(
    st.none() | st.booleans() | NUMBERS | TEXTS,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(TEXTS, inner, max_size=4),
    max_leaves=8,
)


@st.composite
def damaged_json(draw: st.DrawFn, original: Any) -> Any:
    """A JSON value with one to three places in it replaced, removed or added."""
    value = copy.deepcopy(original)
    for _ in range(draw(st.integers(1, 3))):
        value = _damage(draw, value, depth=0)
    return value


def _damage(draw: st.DrawFn, value: Any, depth: int) -> Any:
    inside = isinstance(value, (dict, list)) and len(value) > 0
    if not inside or (depth > 0 and draw(st.integers(0, 5)) == 0) or draw(st.integers(0, 30)) == 0:
        return draw(JSON)
    keys = list(value) if isinstance(value, dict) else list(range(len(value)))
    key = draw(st.sampled_from(keys))
    kind = draw(st.sampled_from(("go in", "go in", "go in", "remove", "add")))
    if kind == "go in":
        value[key] = _damage(draw, value[key], depth + 1)
    elif kind == "remove":
        del value[key]
    elif isinstance(value, dict):
        value[draw(TEXTS)] = draw(JSON)
    else:
        value.insert(key, copy.deepcopy(value[key]) if draw(st.booleans()) else draw(JSON))
    return value


@st.composite
def json_text(draw: st.DrawFn, original: Any) -> bytes:
    """A damaged JSON text as bytes: its value damaged, its text damaged, brackets in brackets, or no damage."""
    kind = draw(st.sampled_from(("value", "value", "value", "value", "text", "deep", "any", "same")))
    if kind == "deep":
        return draw(st.sampled_from((b"[", b'{"a":', b'{"config":', b'[{"path":'))) * draw(
            st.sampled_from((10, 100_000))
        )
    if kind == "any":
        return draw(st.binary(max_size=200))
    if kind == "same":
        return json.dumps(original).encode()
    if kind == "text":
        return draw(damaged([json.dumps(original).encode()]))
    return as_text(draw(damaged_json(original))).encode("utf-8", "surrogatepass")


def as_text(value: Any) -> str:
    """JSON, also of whole numbers that Python does not write out."""
    try:
        return json.dumps(value)
    except ValueError:
        return json.dumps(value, default=str)
