"""The ablation of Uformer at its smallest: every part with every seed, the same on an executor."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor

import pytest

from dccrn_lib.corpus.synthesis.corpus import generated_corpus
from dccrn_lib.experiments import uformer_parts
from dccrn_lib.results.records import load_result, save_result


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
    study = uformer_parts.run_study("smoke", seeds=2, steps=1, tests=2)
    assert list(study["systems"]) == list(uformer_parts.VARIANTS) and study["seed"] == [0, 1]
    for system in study["systems"].values():
        assert [item["id"].split("/")[0] for item in system["items"]] == ["seed0", "seed0", "seed1", "seed1"]
        assert [len(curve) for curve in system["curves"]] == [1, 1]
    parameters = {name: system["parameters"] for name, system in study["systems"].items()}
    assert parameters["neither"] == parameters["no attention"] < parameters["no fusion"] == parameters["full"]
    assert capsys.readouterr().out.count("SI-SNR gain") == 8
    with ThreadPoolExecutor(2) as pool:
        again = uformer_parts.run_study("smoke", seeds=1, steps=1, tests=2, executor=pool)["systems"]
    assert all(again[name]["items"] == system["items"][:2] for name, system in study["systems"].items())
    save_result("ablation", study, tmp_path)
    assert load_result("ablation", tmp_path)["systems"]["full"]["n"] == 4
