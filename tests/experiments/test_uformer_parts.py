"""The ablation of Uformer at its smallest: every part with every seed, the same on an executor."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace

import pytest

from dccrn_lib.cli import main as cli
from dccrn_lib.corpus.synthesis.corpus import generated_corpus
from dccrn_lib.experiments import uformer_parts
from dccrn_lib.experiments.recipe import part_recipe
from dccrn_lib.results.records import load_result, save_result
from dccrn_lib.runtime.errors import ConfigError
from dccrn_lib.runtime.paths import results_dir


@pytest.fixture
def small_corpus(tmp_path, monkeypatch, one_thread, flushed):
    made = generated_corpus(0.02, root=tmp_path / "corpus", progress=False)
    corpus = {"speech": str(made.speech), "noise": str(made.noise), "rir": str(made.rir)}
    monkeypatch.setattr(uformer_parts, "corpus_of", lambda profile, progress: corpus)
    uformer_parts._batches.cache_clear()
    yield
    uformer_parts._batches.cache_clear()


@pytest.mark.slow
def test_every_part_is_left_out_with_every_seed_and_an_executor_changes_nothing(small_corpus, tmp_path, capsys):
    recipe = replace(part_recipe("smoke"), steps=1, tests=2)
    study = uformer_parts.run_study("smoke", seeds=2, recipe=recipe)
    assert list(study["systems"]) == list(uformer_parts.VARIANTS) and study["seed"] == [0, 1]
    for system in study["systems"].values():
        assert [item["id"].split("/")[0] for item in system["items"]] == ["seed0", "seed0", "seed1", "seed1"]
        assert [len(curve) for curve in system["curves"]] == [1, 1]
    parameters = {name: system["parameters"] for name, system in study["systems"].items()}
    assert parameters["neither"] == parameters["no attention"] < parameters["no fusion"] == parameters["full"]
    assert capsys.readouterr().out.count("SI-SNR gain") == 8
    with ThreadPoolExecutor(2) as pool:
        again = uformer_parts.run_study("smoke", seeds=1, recipe=recipe, executor=pool)["systems"]
    assert all(again[name]["items"] == system["items"][:2] for name, system in study["systems"].items())
    save_result("ablation", study, tmp_path)
    assert load_result("ablation", tmp_path)["systems"]["full"]["n"] == 4


@pytest.mark.slow
def test_every_field_of_the_recipe_is_an_option_and_stands_in_the_result(small_corpus, tmp_path):
    (tmp_path / "recipe.json").write_text('{"steps": 1, "tests": 3, "mix": {"snr_db": [0.0, 5.0]}}')
    words = ["--profile", "smoke", "--seeds", "1", "--config", str(tmp_path / "recipe.json"), "--tests", "2"]
    words += ["--results", str(tmp_path)]
    assert cli.main(["experiment", "uformer-parts", *words, "--mix.segment_seconds", "0.5", "--name", "parts"]) == 0
    record = load_result("parts", tmp_path)
    assert (record["config"]["steps"], record["config"]["tests"]) == (1, 2)
    assert record["config"]["mix"]["snr_db"] == [0.0, 5.0] and record["config"]["mix"]["segment_seconds"] == 0.5
    published = load_result("uformer_ablation", results_dir())["config"]
    assert published.keys() <= record["config"].keys()  # lesson 03 reads either
    assert record["systems"]["no fusion"]["n"] == 2


@pytest.mark.parametrize(("field", "value"), [("steps", 0), ("tests", 0), ("batch_size", -1), ("clip", 0.0)])
def test_a_recipe_out_of_range_is_refused_by_name(field, value):
    with pytest.raises(ConfigError, match=field):
        replace(part_recipe("smoke"), **{field: value})


def test_a_part_that_diverged_is_counted_and_costs_no_other(small_corpus, monkeypatch, capsys):
    monkeypatch.setattr(uformer_parts, "VARIANTS", {"full": {}})
    recipe = replace(part_recipe("smoke"), steps=2, batch_size=2, tests=2, learning_rate=1e9)
    items = uformer_parts.run_study("smoke", seeds=1, recipe=recipe)["systems"]["full"]["items"]
    assert [item["gain_db"] for item in items] == [None, None] and all(item["reasons"] for item in items)
    assert "nothing could be scored (n = 0 of 2)" in capsys.readouterr().out
