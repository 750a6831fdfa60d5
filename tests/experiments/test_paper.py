"""The experiment and the sweep at the smallest size: folders, resuming, comparison, statistics."""

from __future__ import annotations

import json
from dataclasses import replace

import numpy as np
import pytest
import torch

from dccrn_lib.evaluation import systems
from dccrn_lib.experiments import grid, paper
from dccrn_lib.networks.presets import build_from_config, build_model
from dccrn_lib.networks.weights import save_model
from dccrn_lib.results.records import load_result
from dccrn_lib.runtime.errors import ConfigError, WeightsError
from dccrn_lib.runtime.files import write_json
from dccrn_lib.training.profiles import get_profile

pytestmark = pytest.mark.usefixtures("one_thread")


TINY = replace(
    get_profile("smoke"),
    segment_seconds=0.5,
    teacher_steps=2,
    student_steps=2,
    valid_mixtures=1,
    test_mixtures=3,
    test_seconds=1.0,
)


def items(values, metric="si_snr_db"):
    return [{metric: v} for v in values]


# ---- configs and folders


def test_students_differ_in_the_teaching_only(corpus, tmp_path):
    alone, taught = (paper.train_config(n, TINY, corpus, tmp_path) for n in ("student", "student_at_kl"))
    assert replace(taught, out=alone.out, method="none", teacher="") == alone
    assert (alone.method, taught.method) == ("none", "at_kl")
    assert taught.teacher == str(tmp_path / "teacher" / "best.safetensors")
    with pytest.raises(ConfigError, match="unknown system 'noisy'"):
        paper.train_config("noisy", TINY, corpus, tmp_path)


def test_folder_depends_on_what_is_computed_and_not_on_where(corpus, tmp_path):
    def folder(seed=0, out="a", **changes):
        c = [paper.train_config(n, TINY, corpus, out, seed, **changes) for n in paper.TRAINED]
        return paper.experiment_folder(out, c).name

    same = folder()
    assert same == folder(out="b") == folder(device="auto", workers=3)
    others = {folder(seed=1), folder(steps=3), folder(output_weight=0.0), folder(normalisation="softmax")}
    assert len(others) == 4 and same not in others


def test_folder_follows_the_manifests(corpus, tmp_path):
    other = tmp_path / "speech.jsonl"
    with open(corpus["speech"], encoding="utf-8") as stream:
        lines = stream.readlines()
    other.write_text("".join(lines[:-1]), encoding="utf-8")
    assert paper.data_hash(corpus) != paper.data_hash({**corpus, "speech": str(other)})


def test_find_experiment_wants_all_three_and_the_profile(corpus, tmp_path):
    folder = tmp_path / "experiment-x"
    assert paper.find_experiment(tmp_path, "smoke") is None
    for name in paper.TRAINED:
        assert paper.find_experiment(tmp_path, "smoke") is None
        save_model(build_model("distil_dccrn_mini"), folder / name / "best")
        paper.record_experiment(folder, "smoke", 0, corpus, "at_kl")
        for step in (None, 1, 2):  # weights of a training that was stopped are not its end
            assert paper.find_experiment(tmp_path, "smoke") is None
            write_json(folder / name / "config.json", {"steps": 2})
            write_json(folder / name / "history.json", {"valid": [{"step": step}] if step else []})
    assert paper.find_experiment(tmp_path, "smoke")["folder"] == folder
    assert paper.find_experiment(tmp_path, "quick") is None
    assert list(paper.load_systems(folder)) == list(paper.TRAINED)
    with pytest.raises(WeightsError):
        paper.load_systems(tmp_path / "nothing")


# ---- sweep


def test_variant_names():
    assert grid.Variant.parse("at_kl:frequency:softmax").normalisation == "softmax"
    wrong = {"atkl": "did you mean at_kl", "output:time_frequency": "write at_kl", "at_kl:x": "unknown 'x'"}
    for text, message in wrong.items():
        with pytest.raises(ConfigError, match=message):
            grid.Variant.parse(text)


def test_methods_are_compared_within_a_seed():
    runs = [grid.SweepRun("none", s, items([10.0 * s] * 2)) for s in (0, 1, 2)]
    runs += [grid.SweepRun("at_kl", s, items([10.0 * s + 1 + 0.1 * s] * 2)) for s in (0, 1, 2)]
    runs += [grid.SweepRun("output", 0, items([None, 3.0]))]
    none, at_kl, output = grid.compare_methods(runs)
    assert none["verdict"] == "baseline" and none["difference"] is None
    assert at_kl["difference"] == pytest.approx(1.1) and at_kl["verdict"] == "better" and at_kl["seeds"] == 3
    assert at_kl["low"] > 0 and at_kl["std"] > 5  # seeds scatter by 10 dB, the difference by 0.1
    assert output["verdict"] == "one seed: no interval" and output["mean"] == 3.0
    with pytest.raises(ConfigError, match="no run of 'fitnets'"):
        grid.compare_methods(runs, baseline="fitnets")


def test_sweep_resumes_shares_and_refuses(corpus, tmp_path, monkeypatch):
    arguments = {"profile": TINY, "out": tmp_path, "corpus": corpus, "metrics": ("si_snr_db",), "progress": False}
    first = grid.run_sweep(["none", "at_kl:time_frequency"], [0, 1], share=(0, 2), **arguments)
    assert [(r.method, r.seed) for r in first] == [("none", 0), ("at_kl:time_frequency", 0)]
    rows = load_result("sweep", tmp_path)["rows"]
    assert {(r["method"], r["seed"]) for r in rows} == {("none", 0), ("at_kl:time_frequency", 0)}

    second = grid.run_sweep(["none", "at_kl:time_frequency"], [0, 1], share=(1, 2), **arguments)
    assert [(r.method, r.seed) for r in second] == [("none", 1), ("at_kl:time_frequency", 1)]
    assert [(r.method, r.seed) for r in grid.load_runs(tmp_path)] == [
        ("at_kl:time_frequency", 0),
        ("at_kl:time_frequency", 1),
        ("none", 0),
        ("none", 1),
    ]

    monkeypatch.setattr(systems, "score_many", None)  # a finished run is read, not scored again
    whole = grid.run_sweep(["none", "at_kl:time_frequency"], [0, 1], **arguments)
    assert [r.items for r in whole] == [first[0].items, second[0].items, first[1].items, second[1].items]
    with pytest.raises(ConfigError, match="the run there has"):
        grid.run_sweep(["none"], [0], learning_rate=1e-9, **arguments)
    for wrong in ({"methods": [], "seeds": [0]}, {"methods": ["none"], "seeds": [0], "share": (2, 2)}):
        with pytest.raises(ConfigError):
            grid.run_sweep(**wrong, **arguments)


def test_a_system_that_was_told_to_stop_is_no_result(corpus, tmp_path, monkeypatch):
    """Lesson 05 goes on to score what ``run_system`` returns, and lesson 06 reads it."""
    real, config = paper.train, paper.train_config("student", TINY, corpus, tmp_path)
    with monkeypatch.context() as patch:
        patch.setattr(paper, "train", lambda config, **options: real(config, **options, stop_after=1))
        with pytest.raises(KeyboardInterrupt):
            paper.run_system(config, progress=False)
    assert not paper.run_system(config, progress=False).stopped


def test_a_teacher_that_was_told_to_stop_teaches_nobody(corpus, tmp_path, monkeypatch):
    real = paper.train
    monkeypatch.setattr(paper, "train", lambda config, **options: real(config, **options, stop_after=1))
    arguments = {"profile": TINY, "out": tmp_path, "corpus": corpus, "metrics": ("si_snr_db",), "progress": False}
    with pytest.raises(KeyboardInterrupt):
        grid.run_sweep(["none", "at_kl"], [0], **arguments)
    assert sorted(path.name for path in tmp_path.iterdir() if path.is_dir()) == ["teacher"]


def test_what_a_teacher_taught_is_not_taken_for_what_another_one_teaches(corpus, tmp_path):
    arguments = {"profile": TINY, "out": tmp_path, "corpus": corpus, "metrics": ("si_snr_db",), "progress": False}
    torch.manual_seed(0)
    teacher = save_model(build_model("uformer_mini"), tmp_path / "own")
    grid.run_sweep(["at_kl"], [0], teacher=str(teacher), **arguments)
    save_model(build_model("uformer_mini"), tmp_path / "own")
    with pytest.raises(ConfigError, match="the contents of teacher are no longer those that the run began with"):
        grid.run_sweep(["at_kl"], [0], teacher=str(teacher), **arguments)
    teacher.unlink()  # a run that is finished needs it no longer
    assert len(grid.load_runs(tmp_path)) == 1


def test_no_training_follows_one_that_was_told_to_stop(corpus, tmp_path, monkeypatch):
    real = paper.train
    monkeypatch.setattr(paper, "train", lambda config, **options: real(config, **options, stop_after=1))
    monkeypatch.setattr(paper, "usable_cores", lambda: 1)
    both = [paper.train_config(name, TINY, corpus, tmp_path) for name in ("teacher", "student")]
    with pytest.raises(KeyboardInterrupt):
        paper.run_systems(both)
    assert (tmp_path / "teacher" / "checkpoint.pt").is_file() and not (tmp_path / "student").exists()


def test_a_metric_that_nothing_can_score_is_refused_before_the_training(corpus, tmp_path, monkeypatch):
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(ConfigError, match="pesq_wb needs pesq, which is not installed"):
        grid.run_sweep(["none"], [0], profile=TINY, out=tmp_path / "x", corpus=corpus, metrics=("pesq_wb",))
    assert not (tmp_path / "x").exists()


def test_a_method_without_a_common_seed_is_no_baseline():
    runs = [grid.SweepRun("none", 0, items([1.0])), grid.SweepRun("at_kl", 1, items([2.0]))]
    assert [row["verdict"] for row in grid.compare_methods(runs)] == ["baseline", "no common seed"]


def test_scores_of_another_mask_are_not_taken(corpus, tmp_path):
    torch.manual_seed(0)
    tests = paper.test_mixtures(TINY, corpus)
    model = build_model("distil_dccrn_mini")
    other = build_from_config(replace(model.config, mask="C"))
    other.load_state_dict(model.state_dict())
    arguments = {"metrics": ("si_snr_db",), "workers": 1, "progress": False, "keep": tmp_path / "scores.json"}
    first = systems.evaluate_systems({"student": model}, tests, **arguments)
    assert systems.evaluate_systems({"student": other}, tests, **arguments) != first


def test_scores_are_kept_for_the_same_weights_mixtures_and_metrics(corpus, tmp_path, monkeypatch):
    torch.manual_seed(0)
    tests = paper.test_mixtures(TINY, corpus)
    models = {"noisy": None, "student": build_model("distil_dccrn_mini")}
    arguments = {"metrics": ("si_snr_db",), "workers": 1, "progress": False, "keep": tmp_path / "scores.json"}
    first = systems.evaluate_systems(models, tests, **arguments)
    scored = []
    monkeypatch.setattr(systems, "_score", lambda pair, metrics: scored.append(pair) or {"si_snr_db": 0.0})
    assert systems.evaluate_systems(dict(reversed(models.items())), tests, **arguments) == first and not scored
    with torch.no_grad():
        next(models["student"].parameters()).add_(1e-3)
    changed = systems.evaluate_systems(models, tests, **arguments)
    assert len(scored) == 2 * len(tests) and changed["student"][0]["si_snr_db"] == 0.0
    systems.evaluate_systems(models, tests, **{**arguments, "metrics": ("si_snr_db", "gain")})
    other = paper.test_mixtures(TINY, corpus, count=2)
    systems.evaluate_systems(models, other, **arguments)
    assert len(scored) == 4 * len(tests) + 2 * 2


def test_evaluation_of_other_weights_is_not_reused(corpus, tmp_path):
    arguments = {"profile": TINY, "corpus": corpus, "metrics": ("si_snr_db",), "progress": False}
    run = grid.run_sweep(["none"], [0], out=tmp_path, **arguments)[0]
    file = tmp_path / "none" / "seed0" / "evaluation.json"
    record = json.loads(file.read_text())
    assert record["key"]["mixtures"][2] == 3 and list(record["items"]) == ["none"]
    record["key"]["weights"], record["items"] = "other", {"none": []}
    file.write_text(json.dumps(record))
    assert grid.run_sweep(["none"], [0], out=tmp_path, **arguments)[0].items == run.items


def test_scores_of_an_earlier_version_are_named(tmp_path):
    file = tmp_path / "none" / "seed0" / "evaluation.json"
    file.parent.mkdir(parents=True)
    file.write_text(json.dumps({"key": {}, "items": items([1.0])}))
    with pytest.raises(ConfigError, match="earlier version; give the command"):
        grid.load_runs(tmp_path)


def test_history_keeps_spread_and_layers(corpus, tmp_path):
    c = [paper.train_config(n, TINY, corpus, tmp_path, steps=4, valid_every=2) for n in ("teacher", "student_at_kl")]
    paper.run_system(c[0], progress=False)
    row = paper.run_system(c[1], progress=False).history["train"][0]
    assert row["clean_std"] > 0
    layers = [k for k in row if k.startswith("layer ")]
    assert len(layers) == 12 and np.mean([row[k] for k in layers]) == pytest.approx(row["features"], rel=1e-5)


def test_systems_side_by_side_are_what_they_are_one_by_one(corpus, tmp_path):
    both = [paper.train_config(name, "smoke", corpus, tmp_path / "both") for name in ("teacher", "student")]
    paper.run_systems(both)
    alone = paper.train_config("student", "smoke", corpus, tmp_path / "alone")
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    paper.run_system(alone, progress=False)
    torch.set_num_threads(threads)
    weights = [tmp_path / where / "student" / "best.safetensors" for where in ("both", "alone")]
    assert weights[0].read_bytes() == weights[1].read_bytes()
    before = weights[0].stat().st_mtime_ns
    paper.run_systems(both)  # finished: nothing is trained again
    assert weights[0].stat().st_mtime_ns == before


def test_a_finished_run_is_loaded_and_nothing_is_built(corpus, tmp_path, monkeypatch):
    c = paper.train_config("teacher", TINY, corpus, tmp_path)
    first = paper.run_system(c, progress=False)
    monkeypatch.setattr("dccrn_lib.training.session.MixtureDataset", None)
    again = paper.run_system(c, progress=False)
    assert again.history == first.history and not again.stopped
    for a, b in zip(first.model.state_dict().values(), again.model.state_dict().values(), strict=True):
        assert torch.equal(a, b)


def test_only_the_test_split_judges(corpus):
    assert {e.split for e in paper.test_mixtures(TINY, corpus).planner.entries} == {"test"}
