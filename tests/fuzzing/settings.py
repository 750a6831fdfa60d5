"""Settings: NAME=VALUE for ``train``, options of other commands, and a recorded config.json."""

from __future__ import annotations

from pathlib import Path

from hypothesis import strategies as st

from dccrn_lib.cli.main import command_parser
from dccrn_lib.runtime.settings import override, split_assignments
from dccrn_lib.training.config import TrainConfig
from tests.fuzzing.mutations import NUMBERS, TEXTS, json_text
from tests.fuzzing.running import Target

BASE = TrainConfig(out="o", speech="s.jsonl", noise="n.jsonl")
_FIELDS = [f for f in TrainConfig.__dataclass_fields__ if f != "mix"]
_MIX = [f"mix.{f}" for f in type(BASE.mix).__dataclass_fields__]
NAMES = (
    st.sampled_from(_FIELDS + _MIX) | st.sampled_from(("mix", "mix.", "mix.snr_db.x", "stepss", "", "out.x")) | TEXTS
)
VALUES = (
    TEXTS
    | NUMBERS.map(lambda number: str(number) if not isinstance(number, int) else f"{number:d}"[:4000])
    | st.lists(st.sampled_from(("1", "-5", "nan", "1e999", "", "x", "[", "]")), max_size=4).map(",".join)
    | st.sampled_from(
        ("true", "False", "[1,2]", "[" * 5000, "{}", "null", "{a: 1}", "!!python/object:x", "1_000", "0x10")
    )
)
ASSIGNMENTS = st.lists(st.tuples(NAMES, VALUES), min_size=1, max_size=3)
RECORD = {
    "out": "o", "speech": "s.jsonl", "noise": "n.jsonl", "steps": 10, "learning_rate": 0.001, "amp": False,
    "model": "distil_dccrn_mini", "mix": {"snr_db": [-5.0, 20.0], "segment_seconds": 1.0},
}  # fmt: skip
COMMANDS = st.sampled_from(
    ("corpus synth --out o --hours", "corpus synth --out o --seed", "corpus synth --out o --workers",
     "corpus scan d --kind speech --out m.jsonl --valid-fraction",
     "corpus scan d --kind speech --out m.jsonl --group-level",
     "corpus pack m.jsonl --out o --bitrate", "corpus pack m.jsonl --out o --shard-mb", "enhance a.wav --out o --workers",
     "enhance a.wav --out o --device", "evaluate --clean c --noisy n --json r.json --workers", "run-notebooks --timeout",
     "run-notebooks --jobs", "bench data --rounds", "campaign --out o --speech s --noise n --steps",
     "experiment uformer-parts --seeds")
)  # fmt: skip


def take(given: tuple, folder: Path) -> None:
    """Parse it; what comes out is a config within its bounds."""
    kind, what = given
    if kind == "set":
        override(BASE, split_assignments([f"{name}={value}" for name, value in what]))
        return
    if kind == "command":
        words, value = what
        *name, last = words.split(" ")
        length = 2 if name[0] in ("corpus", "bench", "experiment") else 1
        command_parser(" ".join(name[:length])).parse_args([*name[length:], f"{last}={value}"])
        return
    own = ["--out", str(folder / "out" / "run"), "--speech", "s.jsonl", "--noise", "n.jsonl"]
    if kind == "option":
        words = [f"--{name}={value}" for name, value in what]
    else:
        (folder / "config.json").write_bytes(what)
        words = ["--config", str(folder / "config.json")]
    parsed = command_parser("train").parse_args([*own, *words])
    assert isinstance(parsed.fields, TrainConfig)


INPUTS = st.one_of(
    st.tuples(st.just("set"), ASSIGNMENTS),
    st.tuples(st.just("option"), ASSIGNMENTS),
    st.tuples(st.just("command"), st.tuples(COMMANDS, VALUES)),
    st.tuples(st.just("record"), json_text(RECORD)),
)
TARGET = Target("settings", INPUTS, take, lambda: ("option", [("steps", "5"), ("mix.snr_db", "-5,5")]))
