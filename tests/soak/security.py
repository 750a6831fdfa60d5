"""What others wrote does nothing: no code of foreign files runs, no network, nothing outside the folders named."""

from __future__ import annotations

import hashlib
import html.parser
import io
import json
import os
import pickle
import shutil
import subprocess
import sys
import tarfile
import zipfile
from collections.abc import Callable
from functools import partial
from pathlib import Path

import numpy as np

from dccrn_lib.runtime.errors import DccrnError
from tests.soak.commands import Command
from tests.soak.place import Place
from tests.soak.rows import Row

# ---- foreign pickles


class _Does:
    """Calls ``function(*arguments)`` when it is unpickled."""

    def __init__(self, function: Callable, *arguments: object) -> None:
        self.function, self.arguments = function, arguments

    def __reduce__(self):
        return self.function, self.arguments


def _payloads(marker: Path) -> dict[str, _Does]:
    """Name -> what makes the file ``marker`` when it is unpickled."""
    code = f"open({str(marker)!r}, 'w').close()"
    return {
        "exec": _Does(exec, code),
        "eval": _Does(eval, code),
        "os.system": _Does(os.system, f"touch {marker}"),
        "open": _Does(open, str(marker), "w"),
        "os.mkdir": _Does(os.mkdir, str(marker)),
        "subprocess": _Does(subprocess.call, ["touch", str(marker)]),
        "partial": _Does(partial(exec, code)),
    }


def _torch_file(data: bytes) -> bytes:
    """A pickle as ``torch.save`` lays it out."""
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w") as archive:
        for name, content in (("data.pkl", data), ("byteorder", b"little"), ("version", b"3\n")):
            archive.writestr(f"archive/{name}", content)
    return file.getvalue()


def _object_array(does: _Does) -> bytes:
    file, held = io.BytesIO(), np.empty(1, dtype=object)
    held[0] = does
    np.save(file, held, allow_pickle=True)
    return file.getvalue()


def _open_checkpoint(file: Path, place: Place) -> None:
    from dccrn_lib.training.config import MAY_CHANGE, TrainConfig
    from dccrn_lib.training.run_folder import open_run

    shutil.copy(file, file.parent / "checkpoint.pt")
    config = TrainConfig(out=str(file.parent), speech="a", noise="b")
    open_run(file.parent, config, resume=True, may_change=MAY_CHANGE)


def _load_weights(file: Path, place: Place) -> None:
    from dccrn_lib import load_model

    card = json.loads(place.weights.with_suffix(".json").read_text())
    card["sha256"] = hashlib.sha256(file.read_bytes()).hexdigest()  # an attacker can make the hash right
    weights = file.with_name("foreign.safetensors")
    shutil.copy(file, weights)
    weights.with_suffix(".json").write_text(json.dumps(card))
    load_model(weights)


def _run_exported(file: Path, place: Place) -> None:
    from dccrn_lib.enhancement.onnx_runtime import OnnxEnhancer

    OnnxEnhancer(file)


def _read_audio(file: Path, place: Place) -> None:
    from dccrn_lib.audio.files import audio_info

    audio_info(file)


READERS = {
    "checkpoint": _open_checkpoint, "weights": _load_weights, "exported model": _run_exported, "recording": _read_audio,
}  # fmt: skip


def pickles(place: Place) -> Row:
    """Files that would run code when unpickled, given to every reader: an error of ours, and nothing runs."""
    row, random = Row("security", "pickles"), place.random("pickles")
    cases = [
        (reader, name, form)
        for reader in READERS
        for name in _payloads(Path("marker"))
        for form in ("pickle 0", "pickle 2", "pickle 4", "pickle 5", "torch", "numpy", "torch, nested")
    ]
    chosen = random.permutation(len(cases))[: place.count(len(cases), 10)]
    working = place.new("pickles") / "control"
    _payloads(working)["exec"].function(*_payloads(working)["exec"].arguments)
    if not working.exists():
        row.trial(["the payload does nothing even where it is called: this case would show nothing"])
    for k in chosen:
        reader, name, form = cases[k]
        folder = place.new("pickle")
        marker, file = folder / "marker", folder / "foreign.pth"
        does = _payloads(marker)[name]
        if form == "numpy":
            file.write_bytes(_object_array(does))
        elif form.startswith("torch"):
            content = {"step": 1, "model": [does]} if form.endswith("nested") else does
            file.write_bytes(_torch_file(pickle.dumps(content, protocol=2)))
        else:
            file.write_bytes(pickle.dumps({"model": does}, protocol=int(form[-1])))
        row.trial(_refused(READERS[reader], file, place, marker), f"{name} as {form} for {reader}")
    ran = sum("its code ran" in failure for failure in row.failures)
    row.note = (
        f"{len(READERS)} readers, {len(_payloads(Path()))} ways to run code, 7 forms of files; code ran {ran} times"
    )
    return row


def _refused(reader: Callable, file: Path, place: Place, marker: Path) -> list[str]:
    try:
        reader(file, place)
        problems = ["was read without an error"]
    except DccrnError as error:
        advice = "weights_only" in str(error)
        problems = ["the message advises to set weights_only=False"] if advice else []
    except Exception as error:
        problems = [f"an undocumented error, {type(error).__name__}: {str(error).splitlines()[0][:120]}"]
    return problems + (["its code ran"] if marker.exists() else [])


# ---- network and home folder

_COUNT = """
import fcntl, socket, struct, subprocess, sys
words = sys.argv[1:]
with socket.socket() as any_socket:  # lo up: kernels of notebooks are spoken to over it
    fcntl.ioctl(any_socket, 0x8914, struct.pack("16sh14x", b"lo", 1))
code = subprocess.run(words).returncode
fields = {}
for file in ("/proc/net/snmp", "/proc/net/snmp6"):
    lines = [line.split() for line in open(file)]
    if file.endswith("6"):
        fields |= {line[0]: int(line[1]) for line in lines if len(line) == 2}
    else:
        for names, values in zip(lines[::2], lines[1::2]):
            fields |= {names[0] + name: int(value) for name, value in zip(names[1:], values[1:])}
tried = fields.get("Ip:OutNoRoutes", 0) + fields.get("Ip6OutNoRoutes", 0) + fields.get("Udp:NoPorts", 0)
print("ATTEMPTS", tried)
sys.exit(code)
"""


def _in_namespace(
    words: list[str], module: list[str], home: Path, environment: dict[str, str]
) -> tuple[Command, int | None]:
    """Run in a network namespace without a way out -> (the command, how often it tried to leave)."""
    before = ["unshare", "-n", sys.executable, "-c", _COUNT]
    with Command(words, {"HOME": str(home), **environment}, before=before, module=module) as command:
        command.wait()
    line = next((line for line in command.output.splitlines() if line.startswith("ATTEMPTS ")), None)
    return command, int(line.split()[1]) if line else None


def _can_unshare() -> bool:
    if shutil.which("unshare") is None:
        return False
    return subprocess.run(["unshare", "-n", "true"], capture_output=True).returncode == 0


def network(place: Place) -> Row:
    """Commands where there is no network: they work, never try to reach one, and write nothing into the home folder."""
    row = Row("security", "network and home folder")
    if not _can_unshare():
        row.note = "not tried: network namespaces are not permitted here"
        return row
    out = place.new("network")
    reach = "import socket\ntry: socket.create_connection(('192.0.2.1', 80), 2)\nexcept OSError: pass"
    control, tried = _in_namespace([], ["-c", reach], out, {})
    if not tried:
        row.trial([f"an attempt to reach a host is not counted ({control.output.strip()[-200:]}): nothing is shown"])
    corpus, name = place.corpus, str(place.weights)
    scores = ["--metrics", "si_snr_db,pesq_wb,stoi", "--workers", "1", "--quiet"]
    folder = str(place.recordings)
    noisy = str(next(Path(folder).glob("*.wav")))
    wait = "import dccrn_lib, onnxruntime, time; time.sleep(20)"
    commands: dict[str, list[str]] = {
        "enhance": ["enhance", noisy, "--out", str(out / "e"), "--model", name, "--quiet"],
        "export": ["export", "--model", name, "--out", str(out / "m.onnx")],
        "run-onnx": ["run-onnx", str(out / "m.onnx"), noisy, str(out / "o.wav")],
        "run-notebooks": ["run-notebooks", "--profile", "smoke", "--out", str(out / "r"), "--jobs", "1", "--quiet"],
        "train": _training(corpus, out / "t"),
        "corpus scan": ["corpus", "scan", folder, "--kind", "noise", "--out", str(out / "s.jsonl"), "--quiet"],
        "corpus pack": ["corpus", "pack", str(corpus / "noise.jsonl"), "--out", str(out / "p"), "--quiet"],
        "evaluate": ["evaluate", "--clean", folder, "--noisy", folder, "--json", str(out / "s.json"), *scores],
        "onnxruntime, 20 s": ["-c", wait],
    }
    for label, words in list(commands.items())[: place.count(len(commands), 3)]:
        home = place.new("home")
        module = [] if words[0] == "-c" else ["-m", "dccrn_lib"]
        command, tried = _in_namespace(
            words, module, home, {"DCCRN_ROOT": str(place.lessons)} if "note" in label else {}
        )
        problems = command.talk(0)
        if tried != 0:
            problems.append(f"{tried} attempts to reach a network")
        if written := _written(home):
            problems.append(f"wrote into the home folder: {', '.join(written[:4])}")
        row.trial(problems, label)
    row.note = "in a network namespace without a way out; attempts are counted by the kernel"
    row.note += "; matplotlib may write its list of fonts"
    return row


def _written(home: Path) -> list[str]:
    """The files in a home folder, but for matplotlib's list of fonts in its place among the caches."""
    found = sorted(path.relative_to(home) for path in home.rglob("*") if path.is_file())
    return [str(path) for path in found if path.parent != Path(".cache/matplotlib")]


def _training(corpus: Path, out: Path) -> list[str]:
    fields = {
        "profile": "smoke",
        "model": "distil_dccrn_mini",
        "speech": corpus / "speech.jsonl",
        "out": out,
        "steps": 2,
    }
    fields |= {"noise": corpus / "noise.jsonl", "mix.segment_seconds": 0.5}
    return ["train", *(word for key, value in fields.items() for word in (f"--{key}", str(value))), "--quiet"]


# ---- archives


_TYPES = {
    "file": tarfile.REGTYPE, "link": tarfile.SYMTYPE, "hard link": tarfile.LNKTYPE, "device": tarfile.CHRTYPE,
}  # fmt: skip


def archives(place: Place) -> Row:
    """Shards and manifests with paths that lead out of the folder: nothing is written outside it, nothing is followed."""
    from dccrn_lib.corpus.packing import pack_corpus, unpack_corpus

    row, random = Row("security", "archives"), place.random("archives")
    packed = place.new("archives") / "packed"
    pack_corpus([place.corpus / "noise.jsonl"], packed, codec="flac", workers=1, progress=False)
    line = json.loads((packed / "noise.jsonl").read_text().splitlines()[0])
    member = (packed / "noise-000.tar").read_bytes()[line["offset"] : line["offset"] + line["bytes"]]
    evil = ("../{}", "../../{}", "/{}", "a/../../{}", "..", "./../{}", "{}\x00.flac", "..\\..\\{}", "%2e%2e/{}", "~/{}")
    for _ in place.trials(200, 5):
        home = place.new("archive")
        source, out = home / "in", home / "deep" / "out"
        source.mkdir()
        name = str(random.choice(evil)).format("escaped.flac")
        if name.startswith("/"):
            name = str(home / "absolute.flac")
        kind = str(random.choice(["file", "link", "hard link", "device"]))
        with tarfile.open(source / "noise-000.tar", "w", format=tarfile.PAX_FORMAT) as shard:
            info = tarfile.TarInfo(name.replace("\x00", "_"))
            info.type = _TYPES[kind]
            info.linkname = "/etc/passwd" if kind.endswith("link") else ""
            info.size = len(member) if kind == "file" else 0
            shard.addfile(info, io.BytesIO(member) if kind == "file" else None)
            offset = shard.offset - (len(member) + 511) // 512 * 512 if kind == "file" else 0
        entry = {**line, "path": f"noise-000.tar::{name}", "offset": offset, "bytes": info.size or 512}
        for key in ("speaker", "recording", "label", "corpus"):
            entry[key] = name if random.random() < 0.5 else entry.get(key)
        (source / "noise.jsonl").write_text(json.dumps(entry) + "\n")
        before = _tree(home)
        try:
            unpack_corpus([source / "noise.jsonl"], out, progress=False)
            problems = []
        except (DccrnError, OSError) as error:  # an OSError becomes one line on the command line
            problems = [] if str(error) else ["an error without words"]
        except Exception as error:
            problems = [f"an undocumented error, {type(error).__name__}: {error}"]
        outside = {path for path in _tree(home) - before if not path.startswith("deep")}
        if outside:
            problems.append(f"written outside the folder: {', '.join(sorted(outside)[:3])}")
        if any(path.is_symlink() for path in home.rglob("*")):
            problems.append("a link was made")
        row.trial(problems, f"{kind} {name!r}")
        shutil.rmtree(home)
    row.note = "tar members as files, links and devices with names that lead elsewhere, unpacked"
    return row


def _tree(folder: Path) -> set[str]:
    return {str(path.relative_to(folder)) for path in folder.rglob("*")}


# ---- the report


class _Tags(html.parser.HTMLParser):
    """Tags and attributes of a page."""

    def __init__(self) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict]] = []

    def handle_starttag(self, tag: str, attrs: list) -> None:
        self.tags.append((tag, dict(attrs)))


def report(place: Place) -> Row:
    """Names, errors, parameters and outputs that hold HTML come into the report as text."""
    import nbformat

    from dccrn_lib.lessons.running.execution import NotebookRun
    from dccrn_lib.lessons.running.report import write_report

    row, random = Row("security", "report"), place.random("report")
    evil = (
        "<script>soak()</script>", "<img src=x onerror=soak()>", '"><svg onload=soak()>', "'><iframe src=//soak>",
        "</pre><script>soak()</script>", "</title><script>soak()</script>", "<style>@import 'soak'</style>",
        '" onmouseover="soak()', "&lt;script&gt;soak()&lt;/script&gt;<b onclick=soak()>",
    )  # fmt: skip
    places = ("file name", "error", "parameter", "printed", "code", "traceback", "title")
    cases = [(where, text) for where in places for text in evil]
    for k in random.permutation(len(cases))[: place.count(len(cases), 7)]:
        where, text = cases[k]
        folder = place.new("report")
        name = text.replace("/", "_") if where == "file name" else "01_first"
        outputs = []
        if where == "printed":
            outputs = [nbformat.v4.new_output("stream", text=text)]
        if where == "traceback":
            outputs = [nbformat.v4.new_output("error", ename="E", evalue=text, traceback=[text])]
        code = nbformat.v4.new_code_cell(f"x = {text!r}" if where == "code" else "x = 1", outputs=outputs)
        cells = [nbformat.v4.new_markdown_cell("# Lesson"), code]
        nbformat.write(nbformat.v4.new_notebook(cells=cells), folder / f"{name}.ipynb")
        error, values = (text if where == "error" else None), ({"p": text} if where == "parameter" else {})
        done = NotebookRun(name, "failed" if error else "ok", 1.0, f"{name}.ipynb", error, values)
        title = text if where == "title" else "Run"
        page = _Tags()
        page.feed(write_report(folder / "report.html", folder, [done], title).read_text(encoding="utf-8"))
        problems = [
            f"<{tag} {' '.join(attributes)}> comes out of it"
            for tag, attributes in page.tags
            if tag in ("script", "iframe", "object", "embed") or any(key.startswith("on") for key in attributes)
        ]
        row.trial(problems[:2], f"{text!r} as {where}")
    row.note = "names of files, errors, parameters, printed text, code, tracebacks and titles that hold HTML"
    return row


CASES = {"pickles": pickles, "network and home folder": network, "archives": archives, "report": report}
