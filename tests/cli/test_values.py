"""Values out of range and malformed files of others: refused by the documented error before anything is written."""

from __future__ import annotations

import json
import os
import resource
import stat
from collections.abc import Callable
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pytest

from dccrn_lib.audio.files import write_audio
from dccrn_lib.cli import main as cli
from dccrn_lib.corpus.decoding import decode
from dccrn_lib.corpus.entry import Entry
from dccrn_lib.corpus.manifest import read_manifest, write_manifest
from dccrn_lib.corpus.mixing import MixConfig
from dccrn_lib.corpus.packing import pack_corpus, unpack_corpus
from dccrn_lib.networks.weights import load_model, save_model
from dccrn_lib.runtime.distributed import Processes
from dccrn_lib.runtime.errors import ConfigError, DccrnError, ManifestError, WeightsError
from dccrn_lib.runtime.settings import Interval, Parameter, parse_seeds, parse_share
from dccrn_lib.training.config import TrainConfig


def exit_code(*argv: str) -> int:
    """Exit code of a command run in this process."""
    try:
        return cli.main(list(argv))
    except SystemExit as stop:
        return int(stop.code or 0)


# ---- numbers of a run


@pytest.mark.parametrize(
    "setting",
    [
        "seed=-1", f"seed={2**63}", "workers=-1", "workers=100000", "learning_rate=-1", "learning_rate=1e300",
        "learning_rate=nan", "muon_learning_rate=0", "gradient_clip=-1", "gradient_clip=1e400", "ema_decay=2", "steps=0",
        f"steps={10**30}", "batch_size=100000000000000", "valid_every=0", "warmup_steps=-1", "decay_fraction=1.5",
        "output_weight=-0.1", "spectral_weight=1e300", "checkpoint_minutes=0", "max_bad_batches=-1",
        "mix.segment_seconds=0", "mix.segment_seconds=1e-9", "mix.segment_seconds=1e12", "mix.early_ms=-1",
        "mix.snr_db=-1e300,1e301", "mix.snr_db=nan,1", "mix.level_dbfs=0,-5", "mix.equaliser_db=-1",
        "mix.equaliser_db=1e9", "mix.group_power=1e9", "mix.noise_corpus_power=-1e9", "mix.babble_probability=2",
        "seed=" + "9" * 5000,
    ],
)  # fmt: skip
def test_a_number_out_of_range_is_refused_before_anything_is_written(
    setting: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
):
    corpus = ["--speech", str(tmp_path / "s.jsonl"), "--noise", str(tmp_path / "n.jsonl")]
    assert exit_code("train", "--profile", "smoke", "--out", str(tmp_path / "o"), *corpus, "--set", setting) == 2
    error = capsys.readouterr().err
    name = setting.partition("=")[0].rpartition(".")[2]
    assert error.startswith("error: ") and error.count("\n") == 1 and name in error and len(error) < 300
    assert list(tmp_path.iterdir()) == []


def test_a_recording_that_cannot_be_mixed_leaves_no_run(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    def entry(kind: str, split: str) -> Entry:
        path = tmp_path / f"{split}_{kind}.wav"
        write_audio(path, np.random.default_rng(0).normal(0, 0.1, 16000), 16000)
        return Entry(str(path), kind, "c", 1.0, 16000, split, speaker=split, recording=split)

    for name in ("speech", "noise"):
        write_manifest(tmp_path / f"{name}.jsonl", [entry(name, split) for split in ("train", "valid")])
    (tmp_path / "train_speech.wav").write_bytes(b"no recording")
    corpus = [f"--{name}={tmp_path / name}.jsonl" for name in ("speech", "noise")]
    assert exit_code("train", "--profile", "smoke", "--quiet", "--out", str(tmp_path / "o"), *corpus) == 1
    error = capsys.readouterr().err
    assert "train_speech.wav" in error and "splits" not in error and not (tmp_path / "o" / "config.json").exists()


@pytest.mark.parametrize(
    "environment",
    [
        {"RANK": "x"}, {"WORLD_SIZE": "x"}, {"LOCAL_RANK": ""}, {"WORLD_SIZE": "0"}, {"WORLD_SIZE": "-1"}, {"RANK": "-1"},
        {"RANK": "5"}, {"LOCAL_RANK": "-3"}, {"WORLD_SIZE": "2"}, {"WORLD_SIZE": "2", "MASTER_ADDR": "localhost"},
        {"WORLD_SIZE": "2", "MASTER_ADDR": "localhost", "MASTER_PORT": "x"},
        {"WORLD_SIZE": "2", "MASTER_ADDR": "localhost", "MASTER_PORT": "70000"}, {"RANK": "9" * 5000},
    ],
)  # fmt: skip
def test_an_environment_that_torchrun_would_not_set_is_named(environment: dict, monkeypatch: pytest.MonkeyPatch):
    for name in ("RANK", "WORLD_SIZE", "LOCAL_RANK", "MASTER_ADDR", "MASTER_PORT"):
        monkeypatch.delenv(name, raising=False)
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    with pytest.raises(ConfigError, match="the environment says|MASTER_ADDR") as refused:
        Processes.start("cpu")
    assert "torchrun" in str(refused.value) and len(str(refused.value)) < 300


@pytest.mark.parametrize("text", ["", "a", "-1", "0,0", "1,", "1.5", str(2**64), "[" * 5000])
def test_wrong_seeds_are_refused(text: str):
    with pytest.raises(ConfigError):
        parse_seeds(text)


@pytest.mark.parametrize("text", ["", "1", "1/1", "2/1", "-1/2", "0/0", "a/b", "0/2/3", "9" * 5000 + "/1"])
def test_a_wrong_share_is_refused(text: str):
    with pytest.raises(ConfigError, match="share"):
        parse_share(text)


def test_a_record_with_an_odd_pair_is_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    for pair in ([1], ["a", "b"], [[], {}], [1, 2, 3], [0, 10**400]):
        (tmp_path / "c.json").write_text(json.dumps({"mix": {"snr_db": pair}}))
        own = ["--out", str(tmp_path / "o"), "--speech", "s", "--noise", "n"]
        assert exit_code("train", *own, "--config", str(tmp_path / "c.json")) == 2, pair
        assert "snr_db" in capsys.readouterr().err
    (tmp_path / "c.json").write_text("[" * 100_000)
    assert exit_code("train", *own, "--config", str(tmp_path / "c.json")) == 2


@pytest.mark.parametrize(
    ("kind", "text"),
    [
        ("list[int]", "[" * 300),
        ("list[int]", "[" * 100_000),
        ("int", "9" * 400),
        ("float", "1e999"),
        ("list[int]", "[{}: 1]"),
    ],
)
def test_a_text_that_python_chokes_on_is_a_wrong_value(kind: str, text: str):
    with pytest.raises(ConfigError, match="parameter x") as refused:
        Parameter("x", kind, None, "").parse(text)
    assert len(str(refused.value)) < 200


def test_intervals_hold_numbers_only():
    assert Interval(0, 1).holds(0) and Interval(0, 1).holds(1.0) and not Interval(0, 1, below=True).holds(1)
    for value in (True, "1", None, float("nan"), float("inf"), 10**400, []):
        assert not Interval(0, 1e9).holds(value), value
    assert not Interval(0).holds(float("inf")) and Interval(0).holds(10**400)


def test_what_was_in_range_still_is():
    TrainConfig(out="o", speech="s", noise="n", seed=2**63 - 1, workers=0, warmup_steps=0, ema_decay=0.9999)
    assert MixConfig(early_ms=0, snr_db=(-5, -5), group_power=0, noise_corpus_power=1).early_ms == 0


# ---- manifests

LINE = {"path": "a.wav", "kind": "speech", "seconds": 1.0, "sample_rate": 16000, "split": "train"}


@pytest.mark.parametrize(
    "line",
    [
        json.dumps({**LINE, "sample_rate": float("inf")}), json.dumps({**LINE, "seconds": float("inf")}),
        json.dumps({**LINE, "seconds": "9" * 400}), json.dumps({**LINE, "seconds": 10**400}),
        json.dumps({**LINE, "sample_rate": 10**400}), json.dumps({**LINE, "sample_rate": True}),
        json.dumps({**LINE, "seconds": [1]}), '{"a":' * 100_000, "[" * 100_000,
        json.dumps(LINE)[:-1] + ', "x": ' + "[" * 9999,
        json.dumps({**LINE, "path": "s.tar::a.wav", "offset": 10**30, "bytes": 1}),
        json.dumps({**LINE, "path": "s.tar::a.wav", "offset": 0, "bytes": 2**63}),
        json.dumps({**LINE, "path": "a\0b.wav"}), json.dumps({**LINE, "path": "\ud800.wav"}),
        json.dumps({**LINE, "path": {}}), json.dumps({**LINE, "kind": [1]}), json.dumps({**LINE, "split": {}}),
        json.dumps({**LINE, "speaker": ["a"]}), json.dumps({**LINE, "corpus": {"a": 1}}),
        json.dumps({**LINE, "label": 1.5}),
        json.dumps(LINE).replace("1.0", "9" * 5000), "\0",
    ],
)  # fmt: skip
def test_an_odd_line_of_a_manifest_is_named(line: str, tmp_path: Path):
    (tmp_path / "m.jsonl").write_text(json.dumps(LINE) + "\n" + line + "\n", encoding="utf-8")
    with pytest.raises(ManifestError, match="m.jsonl, line 2: ") as refused:
        read_manifest(tmp_path / "m.jsonl")
    assert len(str(refused.value)) < 600 and "\n" not in str(refused.value)


def test_a_manifest_with_a_nul_in_its_name_is_refused():
    with pytest.raises(ManifestError, match="cannot be read"):
        read_manifest("a\0b.jsonl")


def test_speakers_may_be_numbers_and_null_is_nothing(tmp_path: Path):
    (tmp_path / "m.jsonl").write_text(json.dumps({**LINE, "speaker": 0, "corpus": None, "offset": None}))
    (entry,) = read_manifest(tmp_path / "m.jsonl")
    assert (entry.group, entry.corpus, entry.offset) == ("0", tmp_path.name, None)


# ---- packed corpora


def test_a_folder_may_have_the_separator_in_its_name(tmp_path: Path):
    hum = 0.3 * np.sin(np.arange(1600) / 5)
    write_audio(tmp_path / "a.wav", hum, 16000)
    write_manifest(tmp_path / "m.jsonl", [Entry(str(tmp_path / "a.wav"), "speech", "c", 0.1, 16000, "train")])
    before = os.umask(0o077)
    try:
        pack_corpus([tmp_path / "m.jsonl"], tmp_path / "a::b", "flac", workers=1, progress=False)
    finally:
        os.umask(before)
    assert stat.S_IMODE((tmp_path / "a::b").stat().st_mode) == 0o700
    (entry,) = read_manifest(tmp_path / "a::b" / "m.jsonl")
    assert np.abs(decode(entry, 0.0, 1.0) - hum).max() < 1e-3
    unpack_corpus([tmp_path / "a::b" / "m.jsonl"], tmp_path / "c::d", progress=False)
    assert len(read_manifest(tmp_path / "c::d" / "m.jsonl")) == 1


def test_a_missing_shard_is_named_and_no_hidden_folder(tmp_path: Path):
    (tmp_path / "m.jsonl").write_text(json.dumps({**LINE, "path": "s.tar::a.wav", "offset": 0, "bytes": 10}))
    with pytest.raises(ManifestError, match="s.tar: cannot be read") as refused:
        unpack_corpus([tmp_path / "m.jsonl"], tmp_path / "out", progress=False)
    assert "/." not in str(refused.value) and [p.name for p in tmp_path.iterdir()] == ["m.jsonl"]


# ---- weights


@pytest.fixture
def weights(tmp_path: Path) -> Path:
    from dccrn_lib.networks.dccrn import DCCRN, DCCRNConfig

    return save_model(DCCRN(DCCRNConfig(channels=(2,) * 6, rnn_units=2)), tmp_path / "m")


def _with(changes: dict) -> Callable[[dict], object]:
    return lambda record: {**record, **changes}


def _with_config(changes: dict) -> Callable[[dict], object]:
    return lambda record: {**record, "config": {**record["config"], **changes}}


@pytest.mark.parametrize(
    "change",
    [
        _with({"config": "a"}), _with({"config": []}), _with({"sha256": 5}), _with({"card": 3}), lambda record: "a",
        lambda record: [record], _with_config({"family": []}), _with_config({"family": "x"}), _with_config({"stft": 5}),
        _with_config({"stft": {"window": []}}), _with_config({"channels": "a"}), _with_config({"channels": [2] * 10**5}),
        _with_config({"channels": [2.0] * 6}), _with_config({"rnn_units": 12000}), _with_config({"rnn_units": 10**30}),
        _with_config({"rnn_layers": 10**9}), _with_config({"rnn_units": "2"}), _with_config({"lstm": {}}),
        _with_config({"stft": {"fft_size": 2**40}}), _with_config({"initial_mask": "x"}), _with_config({"x": 1}),
        _with_config({"initial_mask": 10**400}),
    ],
)  # fmt: skip
def test_an_odd_card_is_refused_without_memory(change: Callable[[dict], object], weights: Path):
    card = weights.with_suffix(".json")
    card.write_text(json.dumps(change(json.loads(card.read_text()))))
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss  # KiB
    with pytest.raises(WeightsError) as refused:
        load_model(weights)
    assert "\n" not in str(refused.value) and len(str(refused.value)) < 600
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 400 * 1024


@pytest.mark.parametrize("text", ["[" * 100_000, '{"config":' * 100_000, "", "\0", '{"sha256": "a"}'])
def test_a_card_that_is_no_card_is_refused(text: str, weights: Path):
    weights.with_suffix(".json").write_text(text)
    with pytest.raises(WeightsError, match="not a model config"):
        load_model(weights)


@pytest.mark.parametrize("name", ["a" * 5000, "a\0b", "\udcff\0"])
def test_a_name_that_no_file_can_have_is_refused(name: str):
    with pytest.raises(WeightsError):
        load_model(name)


def test_the_check_of_shapes_draws_no_random_numbers(weights: Path):
    import torch

    from dccrn_lib.networks.presets import build_model
    from dccrn_lib.networks.weights import _require_fit

    model = build_model("uformer_mini")
    state = torch.get_rng_state()
    _require_fit(model.config, model.state_dict())
    assert torch.equal(state, torch.get_rng_state())
    assert load_model(weights).config.rnn_units == 2


# ---- notebooks

EVIL = "01_<img src=x onerror=alert(1)>\"'"


class _Tags(HTMLParser):
    def __init__(self) -> None:
        super().__init__()
        self.seen: list[tuple[str, dict]] = []

    def handle_starttag(self, tag: str, attributes: list) -> None:
        self.seen.append((tag, dict(attributes)))


def test_the_name_of_a_notebook_is_text_in_the_report(tmp_path: Path):
    nbformat = pytest.importorskip("nbformat")
    from dccrn_lib.lessons.running.execution import NotebookRun
    from dccrn_lib.lessons.running.report import write_report

    notebook = nbformat.v4.new_notebook(cells=[nbformat.v4.new_markdown_cell("no title\n\n## Part")])
    nbformat.write(notebook, tmp_path / "a.ipynb")
    runs = [NotebookRun(EVIL, "ok", 1.0, "a.ipynb"), NotebookRun(EVIL + "2", "failed", 1.0, "none.ipynb", "<script>")]
    tags = _Tags()
    tags.feed(write_report(tmp_path / "r.html", tmp_path, runs).read_text())
    assert [tag for tag, _ in tags.seen if tag in ("img", "script")] == []
    assert not any("onerror" in attributes for _, attributes in tags.seen)
    from urllib.parse import unquote

    ids = {attributes["id"] for _, attributes in tags.seen if "id" in attributes}
    targets = [attributes["href"] for tag, attributes in tags.seen if tag == "a"]
    assert EVIL in ids and {unquote(target[1:]) for target in targets} <= ids


def test_a_label_is_text_in_the_widgets():
    widgets = pytest.importorskip("ipywidgets")
    import torch
    from torch import nn

    from dccrn_lib.lessons.distillation.widgets import mixture_browser

    sound = torch.randn(16000) * 0.05
    item = {"noisy": sound, "clean": sound, "label": "<img src=x onerror=alert(1)>", "snr_db": 1.0, "id": "s0_e0_i0"}

    class Mixtures(list):
        samples = 16000

    class Half(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.gain = nn.Parameter(torch.tensor(0.5))

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return self.gain * x

    box = mixture_browser(Mixtures([item]), {"student": Half()})
    values = [child.value for child in box.children if isinstance(child, widgets.HTML)]
    assert any("&lt;img" in value for value in values) and not any("<img" in value for value in values)


@pytest.mark.parametrize(
    "text",
    [
        "", "[]", "{}", "[" * 100_000, '{"cells": 5}', '{"nbformat": 4, "nbformat_minor": 5, "metadata": {}, "cells": [1]}',
        '{"nbformat": 4, "nbformat_minor": 5, "metadata": {"dccrn": 3}, "cells": []}',
        '{"nbformat": 4, "nbformat_minor": 5, "metadata": {"dccrn": {"needs": [[]]}}, "cells": []}',
        '{"nbformat": 4, "nbformat_minor": 5, "metadata": null, "cells": []}', '{"nbformat": "4", "cells": []}',
        '{"nbformat": 3, "nbformat_minor": 0, "metadata": {}, "worksheets": []}', "\0\1",
        '{"nbformat": 4, "nbformat_minor": 5, "metadata": {}, "cells": [{"cell_type": "code", "metadata": {"tags": 5}, '
        '"source": 3, "outputs": [], "execution_count": null, "id": "a"}]}',
    ],
)  # fmt: skip
def test_a_malformed_notebook_is_named_and_nothing_runs(text: str, tmp_path: Path):
    pytest.importorskip("papermill")
    from dccrn_lib.lessons.running.cleaning import clean_notebook
    from dccrn_lib.lessons.running.notebooks import describe_parameters, execute_in_place, run_notebooks

    folder = tmp_path / "n"
    folder.mkdir()
    (folder / "01_a.ipynb").write_text(text)
    for use in (
        lambda: describe_parameters(None, folder),
        lambda: run_notebooks("smoke", out=tmp_path / "out", notebooks_dir=folder, progress=False, jobs=1),
        lambda: execute_in_place(notebooks_dir=folder, progress=False),
        lambda: clean_notebook(folder / "01_a.ipynb"),
    ):
        with pytest.raises(ConfigError, match="01_a.ipynb: not a readable notebook"):
            use()
    assert not (tmp_path / "out").exists() and (folder / "01_a.ipynb").read_text() == text


@pytest.mark.parametrize(
    "source", ["x: int = " + "[" * 300, "x: int = '\0'", "x: int = " + "-" * 9000 + "1", "x: str = {[]: 1}  # h"]
)
def test_a_parameters_cell_that_python_chokes_on_is_refused(source: str):
    pytest.importorskip("nbformat")
    from dccrn_lib.lessons.running.parameters import parse_cell

    with pytest.raises(DccrnError):
        parse_cell(source)


def test_braces_in_the_names_of_folders_are_no_parameters(write_notebook: Callable[..., Path], tmp_path: Path):
    pytest.importorskip("papermill")
    from dccrn_lib.lessons.running.notebooks import run_notebooks

    folder = write_notebook("01_a", 'out: str = ""  # where\n', "print('here')")
    folder = folder.rename(tmp_path / "n{seed}")
    report = run_notebooks("smoke", out=tmp_path / "r{x}", notebooks_dir=folder, progress=False, jobs=1)
    assert report.ok and sorted(p.name for p in (tmp_path / "r{x}").iterdir() if p.is_file()) >= [
        "01_a.ipynb",
        "report.html",
    ]


@pytest.mark.parametrize(
    "record",
    [
        '{"x": {}}',
        '{"mix": 3}',
        '{"mix.snr_db": [0, 1]}',
        '{"seed": {"a": 1}}',
        '{"seed": {}}',
        '{"x": ' + '{"a":' * 300 + "1" + "}" * 301,
    ],
)
def test_a_record_of_another_form_is_refused(record: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    (tmp_path / "config.json").write_text(record)
    command = ["train", "--config", str(tmp_path / "config.json"), "--out", str(tmp_path / "out")]
    assert cli.main(command) == 2
    error = capsys.readouterr().err
    assert error.startswith("error: ") and error.count("\n") == 1 and not (tmp_path / "out").exists()


@pytest.mark.parametrize("value", ["9" * 400, "\udce9"])
def test_an_option_that_no_number_is_made_of_is_refused(value: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    with pytest.raises(SystemExit) as end:
        cli.main(["train", "--out", str(tmp_path / "out"), "--learning_rate", value])
    assert end.value.code == 2
    error = capsys.readouterr().err
    assert error.startswith("error: ") and error.count("\n") == 1
