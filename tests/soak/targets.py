"""The commands that write much, as targets: how they are called, when their work has begun, and what must be whole."""

from __future__ import annotations

import json
import os
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import soundfile

from tests.soak.commands import Command
from tests.soak.place import Place


@dataclass
class Target:
    """A command that writes into a folder. ``reference`` is what an unbroken run wrote, ``span`` the seconds that the
    work took there, from its first sign on.
    """

    place: Place
    reference: Path = field(init=False)
    span: float = field(init=False)
    name = ""
    environment: dict[str, str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.reference = self.place.folder / "references" / self.name / "out"
        self.reference.parent.mkdir(parents=True)
        with self.start(self.reference) as command:
            command.wait(lambda: begun(self.reference, command))
            seen = time.monotonic() - command.started
            command.wait()
        problems = command.talk(0) + self.whole(self.reference) + leftovers(self.reference)
        if problems:
            raise RuntimeError(f"{self.name} fails when nothing disturbs it: {'; '.join(problems)}")
        self.span = max(0.2, command.seconds - seen)

    def start(self, out: Path, **options: Any) -> Command:
        return Command(self.words(out), environment=self.environment, **options)

    def words(self, out: Path) -> list[str]:
        raise NotImplementedError

    def whole(self, out: Path) -> list[str]:
        """Problems of what lies under final names."""
        raise NotImplementedError

    def same(self, out: Path) -> list[str]:
        """Problems where a finished run differs from the reference."""
        return different_files(out, self.reference)


def begun(out: Path, command: Command) -> bool:
    """Whether a command has written something, into its folder or beside it; each ``out`` has a folder to itself."""
    for folder, _, files in os.walk(out.parent):  # which passes over folders that go away meanwhile
        for path in (folder, *(os.path.join(folder, name) for name in files)):
            try:
                if os.stat(path).st_mtime > command.begin:
                    return True
            except OSError:
                continue  # a temporary file that has gone
    return False


class Train(Target):
    """A training that writes a checkpoint after every step."""

    name = "train"
    steps = 40

    def words(self, out: Path) -> list[str]:
        corpus = self.place.corpus
        fields = {
            "profile": "smoke", "model": "distil_dccrn_mini", "speech": corpus / "speech.jsonl",
            "noise": corpus / "noise.jsonl", "out": out, "steps": self.steps, "batch_size": 2, "seed": 3,
            "mix.segment_seconds": 0.5, "checkpoint_minutes": 1e-5, "valid_every": 8, "valid_mixtures": 2,
            "ema_decay": 0.9,
        }  # fmt: skip
        options = [word for key, value in fields.items() for word in (f"--{key}", str(value))]
        return ["train", *options, "--resume", "--quiet"]

    def whole(self, out: Path) -> list[str]:
        import torch

        from dccrn_lib import load_model
        from dccrn_lib.runtime.errors import DccrnError

        problems = _broken_json(out.glob("*.json"))
        try:
            if (out / "checkpoint.pt").exists():
                torch.load(out / "checkpoint.pt", weights_only=True)
            if (out / "best.safetensors").exists() and (out / "best.json").exists():
                load_model(out / "best.safetensors")
        except (DccrnError, OSError, RuntimeError, EOFError) as error:
            problems.append(f"cannot be loaded: {error}")
        return problems

    def step(self, out: Path) -> int:
        """How far the checkpoint is."""
        import torch

        file = out / "checkpoint.pt"
        return torch.load(file, weights_only=True)["step"] if file.exists() else 0

    def same(self, out: Path) -> list[str]:
        import torch

        files = [folder / "best.safetensors" for folder in (out, self.reference)]
        problems = [] if files[0].read_bytes() == files[1].read_bytes() else ["other weights than the unbroken run"]
        mine, theirs = (torch.load(folder / "checkpoint.pt", weights_only=True) for folder in (out, self.reference))
        for state in (mine, theirs):
            state["history"].pop("seconds")
        if difference := _difference(mine, theirs):
            problems.append(f"another checkpoint than the unbroken run: {difference}")
        return problems


class Synth(Target):
    """The smallest generated corpus."""

    name = "synth"

    def words(self, out: Path) -> list[str]:
        return ["corpus", "synth", "--out", str(out), "--hours", "0.001", "--workers", "2", "--quiet"]

    def whole(self, out: Path) -> list[str]:
        return different_files(out, self.reference) if out.exists() and any(out.iterdir()) else []


class Pack(Target):
    """Packing of a small corpus, four times the same files, into FLAC."""

    name = "pack"

    def words(self, out: Path) -> list[str]:
        folder = self.place.corpus / "many"
        if not folder.exists():
            folder.mkdir()
            for kind in ("speech", "noise"):
                lines = (self.place.corpus / f"{kind}.jsonl").read_text().replace('"path": "', '"path": "../')
                (folder / f"{kind}.jsonl").write_text(lines * 4)
        manifests = [str(folder / f"{kind}.jsonl") for kind in ("speech", "noise")]
        # the serial numbers in an Ogg stream (Opus, Vorbis) are drawn anew by libsndfile each time
        return ["corpus", "pack", *manifests, "--out", str(out), "--codec", "flac", "--workers", "2", "--quiet"]

    def whole(self, out: Path) -> list[str]:
        return different_files(out, self.reference) if out.exists() and any(out.iterdir()) else []


class Enhance(Target):
    """Enhancement of a folder in two processes."""

    name = "enhance"
    workers = 2

    def words(self, out: Path) -> list[str]:
        place = self.place
        options = ["--model", str(place.weights), "--workers", str(self.workers), "--overwrite", "--quiet"]
        return ["enhance", str(place.recordings), "--out", str(out), *options]

    def whole(self, out: Path) -> list[str]:
        problems = []
        for file in sorted(out.rglob("[!.]*.wav")):
            try:
                samples, _ = soundfile.read(file)
            except soundfile.LibsndfileError as error:
                problems.append(f"{file.name} cannot be read: {error}")
                continue
            if len(samples) != soundfile.info(self.place.recordings / file.name).frames:
                problems.append(f"{file.name} is half written")
        return problems


class Notebooks(Target):
    """Two notebooks, each executed in a process and a kernel of its own."""

    name = "run-notebooks"

    def __post_init__(self) -> None:
        self.environment = {"DCCRN_ROOT": str(self.place.lessons)}
        super().__post_init__()

    def words(self, out: Path) -> list[str]:
        return ["run-notebooks", "--profile", "smoke", "--out", str(out), "--jobs", "2", "--quiet"]

    def whole(self, out: Path) -> list[str]:
        return _broken_json([*out.glob("[!.]*.ipynb"), *out.glob("*.json")])

    def same(self, out: Path) -> list[str]:
        problems = [] if json.loads((out / "run.json").read_text())["ok"] else ["run.json says that not all went well"]
        for file in sorted(self.reference.glob("*.ipynb")):
            if not (out / file.name).exists():
                problems.append(f"{file.name} is missing")
            elif difference := _difference(_printed(out / file.name), _printed(file)):
                problems.append(f"{file.name} prints something else than the unbroken run: {difference}")
        return problems


TARGETS = {target.name: target for target in (Train, Synth, Pack, Enhance, Notebooks)}


def target(place: Place, name: str) -> Target:
    """A target with its reference, made once."""
    known = place.__dict__.setdefault("_targets", {})
    if name not in known:
        known[name] = TARGETS[name](place)
    return known[name]


def leftovers(out: Path) -> list[str]:
    """A problem where temporary files or folders lie in or beside ``out``; a lock may stay."""
    hidden = [*out.parent.glob(".*"), *out.rglob(".*")]
    left = sorted(str(path.relative_to(out.parent)) for path in hidden if not path.name.endswith("lock"))
    return [f"left behind: {', '.join(left[:3])}{' ...' if len(left) > 3 else ''}"] if left else []


def different_files(out: Path, reference: Path) -> list[str]:
    """Problems where two folders do not hold the same files."""
    mine, theirs = ({str(p.relative_to(f)) for p in visible_files(f)} for f in (out, reference))
    problems = [f"{name} is missing" for name in sorted(theirs - mine)]
    problems += [f"{name} is too many" for name in sorted(mine - theirs)]
    for name in sorted(mine & theirs):
        if (out / name).read_bytes() != (reference / name).read_bytes():
            problems.append(f"{name} differs")
    return problems[:5]


def visible_files(folder: Path) -> list[Path]:
    """Files below a folder; a lock is none of them, nor is what is hidden."""
    files = (path for path in folder.rglob("*") if path.is_file())
    return [p for p in files if not any(part.startswith(".") for part in p.relative_to(folder).parts)]


def _broken_json(files: Any) -> list[str]:
    problems = []
    for file in files:
        try:
            json.loads(file.read_text(encoding="utf-8"))
        except ValueError:
            problems.append(f"{file.name} is half written ({os.path.getsize(file)} bytes)")
    return problems


def _printed(file: Path) -> list:
    cells = json.loads(file.read_text(encoding="utf-8"))["cells"]
    return [output.get("text") for cell in cells for output in cell.get("outputs", [])]


def _difference(mine: Any, theirs: Any, where: str = "") -> str | None:
    """Where two states differ first, and how; None where they are equal."""
    import torch

    if isinstance(mine, torch.Tensor) and isinstance(theirs, torch.Tensor):
        return None if torch.equal(mine, theirs) else f"{where} differs"
    if isinstance(mine, dict) and isinstance(theirs, dict) and mine.keys() == theirs.keys():
        return next(filter(None, (_difference(mine[key], theirs[key], f"{where}.{key}") for key in mine)), None)
    if isinstance(mine, list | tuple) and isinstance(theirs, list | tuple) and len(mine) == len(theirs):
        return next(filter(None, (_difference(a, b, f"{where}[]") for a, b in zip(mine, theirs, strict=True))), None)
    same = mine == theirs or (mine != mine and theirs != theirs)
    return None if same else f"{where} is {str(mine)[:60]} instead of {str(theirs)[:60]}"
