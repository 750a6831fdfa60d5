"""The experiment on a teacher's gradients: those of a training step, and their directions."""

from __future__ import annotations

import json
import math

import numpy as np
import pytest
import torch

from dccrn_lib.cli import main as cli
from dccrn_lib.distillation.taps import FeatureTap
from dccrn_lib.experiments.recipe import recipe
from dccrn_lib.experiments.teaching_signal import TERMS, Terms, over_batches, row_of, together, towards_others
from dccrn_lib.networks.presets import build_model
from dccrn_lib.networks.weights import save_model
from dccrn_lib.runtime.errors import ConfigError
from dccrn_lib.training.config import TrainConfig
from dccrn_lib.training.objective import build_loss


@pytest.fixture(scope="module")
def networks():
    torch.manual_seed(0)
    return build_model("distil_dccrn_mini").eval(), build_model("uformer_mini").eval()


@pytest.fixture(scope="module")
def config(corpus) -> TrainConfig:
    return recipe(corpus, "", "smoke")


def waveforms(seed: int, count: int = 2):
    g = torch.Generator().manual_seed(seed)
    clean = torch.randn(count, 8000, generator=g)
    return clean + 0.5 * torch.randn(count, 8000, generator=g), clean


@pytest.mark.parametrize("normalisation", ["softmax", "sum"])
def test_the_gradients_are_those_of_the_training_loss(networks, config, normalisation):
    student, teacher = networks
    noisy, clean = waveforms(1)
    terms = Terms(student, teacher, config)
    gradients, values, lead = terms.measure(noisy, clean)
    terms.close()
    assert set(gradients) == set(values) == set(TERMS) and lead.shape == (2,)

    # the loss that a training of this method minimises, with fixed weights of its parts
    taught = TrainConfig(
        out="",
        speech="",
        noise="",
        method="at_kl",
        normalisation=normalisation,
        teacher="x",
        output_weight=0.3,
        feature_weight=2.0,
        spectral_weight=config.spectral_weight,
        level_weight=config.level_weight,
    )
    loss, tap, watched = build_loss(taught, student, teacher), FeatureTap(student), FeatureTap(teacher)
    with torch.no_grad():
        target = teacher(noisy)
    total = loss(student(noisy), clean, target, tap.features, watched.features)["total"]
    expected = torch.autograd.grad(total, list(student.parameters()), allow_unused=True)
    flat = torch.cat(
        [
            (torch.zeros_like(p) if g is None else g).flatten()
            for g, p in zip(expected, student.parameters(), strict=True)
        ]
    )
    sum_ = 0.7 * gradients["clean"] + 0.3 * gradients["output"] + 2.0 * gradients[f"at_kl_{normalisation}"]
    torch.testing.assert_close(sum_, flat, rtol=1e-4, atol=1e-5 * flat.abs().max().item())
    for each in (tap, watched):
        each.close()


def test_measuring_changes_no_network(networks, config):
    student, teacher = networks
    before = {name: value.clone() for name, value in [*student.state_dict().items()]}
    terms = Terms(student, teacher, config)
    terms.measure(*waveforms(2))
    terms.close()
    assert all(torch.equal(value, before[name]) for name, value in student.state_dict().items())
    assert all(p.grad is None for p in student.parameters())


def test_a_batch_is_compared_with_the_others_only():
    clean = [torch.tensor(v) for v in ([1.0, 0.0], [0.0, 1.0], [1.0, 1.0])]
    half = 0.5**0.5
    wanted = [[math.nan, 0, half], [0, math.nan, half], [half, half, math.nan]]
    np.testing.assert_allclose(towards_others(clean, clean), wanted, atol=1e-6)
    assert over_batches(towards_others(clean, clean)).mean == pytest.approx(2 * half / 3)
    with pytest.raises(ConfigError, match="at least 3 batches"):
        over_batches(towards_others(clean[:2], clean[:2]))


def test_a_term_that_has_nothing_to_do_with_the_others_is_not_called_helpful():
    """As AT-KL it hardly changes from batch to batch: all its cosines share what the clean gradients have in common."""
    g, held = torch.Generator().manual_seed(0), 0
    for _ in range(40):
        clean = list(torch.randn(24, 20, generator=g))
        steady = [torch.eye(20)[0] + 0.1 * torch.randn(20, generator=g) for _ in range(24)]
        found = over_batches(towards_others(steady, clean))
        held += found.low < 0 < found.high
    assert held >= 34  # 39; with the cosines taken for independent 6


def test_a_teacher_that_knows_the_way_is_called_better_and_one_that_misleads_worse(config):
    """Clean gradients scatter about one direction; the teacher's points along it, or against it, without scatter."""
    way = torch.zeros(50)
    way[0] = 1.0
    g = torch.Generator().manual_seed(0)
    noisy = [way + torch.randn(50, generator=g) for _ in range(12)]
    for sign, verdict in ((1.0, "better"), (-1.0, "worse")):
        found = [
            (
                {"clean": own, "output": 5 * sign * way, "at_kl_softmax": sign * way, "at_kl_sum": sign * way},
                dict.fromkeys(TERMS, 0.5),
                torch.tensor([1.0, 2.0]),
            )
            for own in noisy
        ]
        row = row_of(found, config)
        assert row["taught_minus_clean"].endswith(verdict)
        assert row["lead_db"].startswith("+1.5") and row["ahead_on"] == 1.0 and row["kl_sum"] == 0.5
        assert float(row["output_to_others"].split()[0]) * sign > 0.1  # 1 / sqrt(51) by construction


def test_the_share_of_the_features_is_of_the_norm_of_the_rest():
    gradients = {name: torch.randn(20) for name in TERMS}
    waveform = 0.5 * gradients["clean"] + 0.5 * gradients["output"]
    features = together(gradients, 0.5, 0.1) - waveform
    assert features.norm().item() == pytest.approx(0.1 * waveform.norm().item(), rel=1e-4)


def test_the_command_writes_a_row_for_each_student(corpus, tmp_path, capsys):
    torch.manual_seed(1)
    teacher = save_model(build_model("uformer_mini"), tmp_path / "teacher")
    student = save_model(build_model("distil_dccrn_mini"), tmp_path / "student", {"hours_of_audio": 0.5})
    words = [f"--{kind}={path}" for kind, path in corpus.items()]
    words += ["--teacher", str(teacher), "--batch-size", "1", "--seconds", "0.5", "--results", str(tmp_path), "--quiet"]
    assert cli.main(["experiment", "teaching-signal", f"a={student}", "b=untrained", *words, "--batches", "3"]) == 0
    record = json.loads((tmp_path / "teaching_signal.json").read_text())
    assert [(row["student"], row["hours"], row["n"]) for row in record["rows"]] == [("a", 0.5, 3), ("b", 0, 3)]
    assert record["columns"][-1] == "taught_minus_clean" and str(tmp_path) not in json.dumps(record)
    capsys.readouterr()
    assert cli.main(["experiment", "teaching-signal", f"a={student}", *words, "--batches", "2"]) == 2
    assert "at least 3 batches" in capsys.readouterr().err
    assert cli.main(["experiment", "teaching-signal", "student", *words]) == 2
    assert "name=weights" in capsys.readouterr().err


def test_a_slip_in_the_last_name_costs_no_measuring(corpus, tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(Terms, "measure", lambda *_: pytest.fail("measured before all names were looked at"))
    teacher = save_model(build_model("uformer_mini"), tmp_path / "teacher")
    words = ["--speech", corpus["speech"], "--noise", corpus["noise"], "--results", str(tmp_path), "--quiet"]
    command = ["experiment", "teaching-signal", "fresh=untrained", f"late={tmp_path}/slip", *words]
    assert cli.main([*command, "--teacher", str(teacher)]) == 1
    assert "slip" in capsys.readouterr().err
