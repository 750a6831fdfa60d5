"""The published table: fixed mixtures, whole and in groups."""

import json

import pytest
import torch

from dccrn_lib.cli import main as cli
from dccrn_lib.corpus.synthesis.corpus import generated_corpus
from dccrn_lib.evaluation.systems import evaluate_systems
from dccrn_lib.experiments import shipped_weights
from dccrn_lib.networks.presets import build_model
from dccrn_lib.networks.weights import save_model
from dccrn_lib.runtime.devices import has_bfloat16
from dccrn_lib.runtime.errors import ConfigError


def item(group, value):
    return {"group": group, "pesq_wb": value, "stoi": 0.5, "si_snr_db": 1.0}


def test_breakdown_counts_and_averages_each_group_by_system():
    items = {
        "noisy": [item("10 to 15 dB", 1.0), item("-5 to 0 dB", 2.0), item("10 to 15 dB", 3.0)],
        "student": [item("10 to 15 dB", 2.0), item("-5 to 0 dB", 4.0), item("10 to 15 dB", 2.0)],
    }
    rows = shipped_weights.breakdown(items, lambda i: i["group"], "SNR")
    assert [(r["SNR"], r["system"], r["n"], r["pesq_wb"]) for r in rows] == [
        ("-5 to 0 dB", "noisy", 1, 2.0),
        ("-5 to 0 dB", "student", 1, 4.0),
        ("10 to 15 dB", "noisy", 2, 2.0),
        ("10 to 15 dB", "student", 2, 2.0),
    ]
    assert rows[0]["pesq_wb 95 %"] == "-"
    assert rows[3]["pesq_wb 95 %"] == "[2.00, 2.00]"
    few = shipped_weights.breakdown({"noisy": [item("a", v) for v in (1.0, 2.0, 3.0)]}, lambda i: i["group"], "SNR")
    assert few[0]["pesq_wb 95 %"] == "[-0.48, 4.48]"  # Student's t


def test_a_pair_that_could_not_be_scored_does_not_count():
    items = {"noisy": [item("a", 1.0), item("a", 2.0)], "alone": [item("a", 1.5), item("a", None)]}
    [row] = shipped_weights.paired(items, ("pesq_wb",))
    assert row["n"] == 1


def test_pairs_are_taken_by_mixture():
    items = {
        "noisy": [item("a", 1.0), item("a", 2.0), item("a", 3.0)],
        "alone": [item("a", 1.5), item("a", 2.5), item("a", 3.5)],
        "taught": [item("a", 1.25), item("a", 2.25), item("a", 3.25)],
    }
    rows = shipped_weights.paired(items, ("pesq_wb", "gain"))
    assert [(r["system"], r["minus"], r["n"]) for r in rows] == [
        ("alone", "noisy", 3),
        ("taught", "noisy", 3),
        ("taught", "alone", 3),
    ]
    assert [r["pesq_wb"] for r in rows] == [
        "+0.5 [+0.5, +0.5] better",
        "+0.25 [+0.25, +0.25] better",
        "-0.25 [-0.25, -0.25] worse",
    ]


def test_each_system_is_set_beside_its_own_noisy_input():
    items = {"noisy": [item("a", 1.0), item("a", 2.0)], "student": [item("a", 1.5), item("a", 2.75)]}
    rows = shipped_weights.beside_paper(items)
    assert [(r["of"], r["system"], r["n"]) for r in rows[:3]] == [
        ("this project", "noisy", 2),
        ("this project", "student", 2),
        ("the paper's clips", "noisy", 8),
    ]
    assert "WB-PESQ over noisy" not in rows[0]
    assert (rows[1]["WB-PESQ"], rows[1]["WB-PESQ over noisy"]) == (2.125, "+0.625")
    assert rows[1]["DNSMOS OVRL over noisy"] is None
    assert (rows[5]["system"], rows[5]["WB-PESQ over noisy"], rows[5]["SI-SNR dB over noisy"]) == (
        "Distil-DCCRN",
        "+0.952",
        "+7.09",
    )


@pytest.mark.parametrize("models", [{}, {"noisy": "distil_dccrn"}])
def test_a_table_without_models_is_refused(models, tmp_path):
    with pytest.raises(ConfigError, match="system=weights"):
        shipped_weights.publish(models, {"speech": "", "noise": ""}, folder=tmp_path)


def test_command_line_names_what_is_not_a_pair(capsys):
    assert cli.main(["experiment", "shipped-weights", "distil_dccrn", "--speech", "a", "--noise", "b"]) == 2
    assert "'distil_dccrn' is not SYSTEM=WEIGHTS" in capsys.readouterr().err


def test_five_files_from_a_corpus(tmp_path):
    made = generated_corpus(0.02, root=tmp_path / "generated", progress=False)
    weights = save_model(build_model("distil_dccrn_mini"), tmp_path / "m", {"hours_of_audio": 0.5})
    corpus = {"speech": str(made.speech), "noise": str(made.noise)}
    files = shipped_weights.publish(
        {"student": str(weights)}, corpus, 3, tmp_path / "results", workers=1, progress=False, prefix="trial"
    )
    assert [f.name for f in files] == [
        "trial_test.json",
        "trial_paired.json",
        "trial_beside_paper.json",
        "trial_by_snr.json",
        "trial_by_noise.json",
    ]
    whole = json.loads(files[0].read_text())
    assert {k: v["n"] for k, v in whole["systems"].items()} == {"noisy": 3, "student": 3}
    assert "student: 0.5 h" in whole["note"]
    assert whole["command"] == (
        f"python -m dccrn_lib experiment shipped-weights student={tmp_path.name}/m.safetensors --speech=speech.jsonl "
        "--noise=noise.jsonl --split=test --count=3 --prefix=trial"
    )
    [row] = json.loads(files[1].read_text())["rows"]
    assert (row["system"], row["minus"], row["n"]) == ("student", "noisy", 3) and "gain" not in row
    for file in files[3:]:
        rows = json.loads(file.read_text())["rows"]
        assert sum(r["n"] for r in rows if r["system"] == "noisy") == 3


def test_scores_of_a_former_result_are_taken_for_the_same_weights_alone(tmp_path, monkeypatch):
    made = generated_corpus(0.02, root=tmp_path / "generated", progress=False)
    corpus = {"speech": str(made.speech), "noise": str(made.noise)}
    weights = {}
    for seed, name in enumerate(("a", "other")):
        torch.manual_seed(seed)
        weights[name] = str(save_model(build_model("distil_dccrn_mini"), tmp_path / name, {}))
    asked = []

    def publish(reuse, count=2, **models):
        def counted(systems, *rest):
            asked.append(list(systems))
            return evaluate_systems(systems, *rest)

        monkeypatch.setattr(shipped_weights, "evaluate_systems", counted)
        options = {"workers": 1, "progress": False, "reuse": reuse}
        [whole, *_] = shipped_weights.publish(models, corpus, count, tmp_path / "results", **options)
        return {name: system["items"] for name, system in json.loads(whole.read_text())["systems"].items()}

    first = publish(True, student=weights["a"])
    second = publish(True, student=weights["a"], more=weights["other"])
    third = publish(True, student=weights["other"])  # another file under the same name
    publish(True, count=3, student=weights["other"])
    publish(False, count=3, student=weights["other"])
    assert asked == [["noisy", "student"], ["more"], ["student"], *[["noisy", "student"]] * 2]
    assert first["noisy"] == second["noisy"] and first["student"] == second["student"]
    assert third["student"] == second["more"] != first["student"]
    monkeypatch.setattr(shipped_weights, "environment_record", lambda: {"versions": {"pesq": "another"}})
    publish(True, count=3, student=weights["other"])
    assert asked[-1] == ["noisy", "student"]


@pytest.mark.parametrize("text", ["{}", "[]", '{"config": {"mix": 1}}', '{"config": [], "systems": 3}'])
def test_a_former_result_of_another_form_is_refused_with_its_name(text, tmp_path):
    (tmp_path / "real_test.json").write_text(text)
    with pytest.raises(ConfigError, match=r"real_test\.json(: no readable result| is no table of shipped-weights)"):
        shipped_weights._scored_before(tmp_path / "real_test.json", {"config": {"mix": 1}}, ("stoi",), 2)


def test_weights_may_name_a_precision():
    assert shipped_weights._in_precision("distil_dccrn") == ("distil_dccrn", "fp32")
    assert shipped_weights._in_precision("runs/a@b/best@bf16") == ("runs/a@b/best", "bf16")
    assert shipped_weights._in_precision("runs/a@b") == ("runs/a@b", "fp32")  # a path, not a precision


def test_bf16_is_near_and_not_the_same():
    if not has_bfloat16(torch.device("cpu")):
        with pytest.raises(ConfigError, match="no bfloat16"):
            shipped_weights.InPrecision(build_model("distil_dccrn_mini"), "bf16")
        return
    model = build_model("distil_dccrn_mini").eval()
    exact, fast = (shipped_weights.InPrecision(model, kind) for kind in ("fp32", "bf16"))
    for samples in (4000, 90000):  # whole, and in blocks
        x = 0.1 * torch.randn(1, samples)
        with torch.no_grad():
            expected, found = exact(x), fast(x)
            assert torch.equal(expected, model(x))
        assert found.dtype == torch.float32 and not torch.equal(found, expected)
        torch.testing.assert_close(found, expected, atol=0.02, rtol=0)


def test_valid_has_mixtures_of_its_own_and_says_what_it_is_for(tmp_path):
    made = generated_corpus(0.02, root=tmp_path / "generated", progress=False)
    weights = save_model(build_model("distil_dccrn_mini"), tmp_path / "m", {})
    corpus = {"speech": str(made.speech), "noise": str(made.noise)}
    files = shipped_weights.publish(
        {"student": str(weights)}, corpus, 2, tmp_path, workers=1, progress=False, prefix="trial", split="valid"
    )
    assert files[0].name == "trial_valid.json"
    whole = json.loads(files[0].read_text())
    assert whole["title"] == "Real recordings, 2 mixtures of the valid split" and whole["seed"] != 2_000_003
    assert "no training has seen" in whole["note"] and "student: unknown" in whole["note"]
    assert [f.stem for f in files[1:]] == [f"trial_valid_{n}" for n in ("paired", "beside_paper", "by_snr", "by_noise")]
    for split in ("valid", "test"):
        assert {e.split for e in shipped_weights.real_mixtures(corpus, 2, split).planner.entries} == {split}


def test_no_other_split_is_scored():
    with pytest.raises(ConfigError, match="test or valid, not on 'train'"):
        shipped_weights.real_mixtures({"speech": "", "noise": ""}, 1, "train")


def test_every_split_has_a_seed():
    from dccrn_lib.experiments.recipe import SPLITS

    assert tuple(shipped_weights.SEEDS) == SPLITS


def test_a_name_that_comes_twice_is_refused(capsys):
    models = ["a=distil_dccrn", "a=dccrn_e"]
    assert cli.main(["experiment", "shipped-weights", *models, "--speech", "a", "--noise", "b"]) == 2
    assert "system a is given twice" in capsys.readouterr().err


def test_the_gain_over_noisy_is_over_the_mixtures_that_both_have_a_score_of():
    items = {"noisy": [item("a", 1.0), item("a", 3.0)], "student": [item("a", None), item("a", 3.0)]}
    assert shipped_weights.beside_paper(items)[1]["WB-PESQ over noisy"] == "+0"
