"""How large matrices have grown, and what of it is chance."""

from __future__ import annotations

import json

import pytest
import torch

from dccrn_lib.cli import main as cli
from dccrn_lib.experiments.weight_growth import KINDS, kind_of, ratio, sizes
from dccrn_lib.networks.presets import build_model
from dccrn_lib.networks.weights import save_model


def test_noise_has_the_ratio_of_chance_and_a_direction_stands_out():
    noise = torch.randn(384, 96, generator=torch.Generator().manual_seed(0))
    assert ratio(noise) == pytest.approx(1.0, abs=0.05) and ratio(7 * noise) == pytest.approx(ratio(noise))
    direction = torch.outer(torch.ones(384), torch.ones(96))
    assert ratio(noise + direction) > 3.0
    assert ratio(torch.zeros(4, 4)) == 0.0


def test_every_matrix_has_one_kind():
    model = build_model("uformer_mini")
    found = sizes(model.named_parameters())
    assert set(found) <= set(KINDS) and sum(s.count for s in found.values()) > 10
    student = sizes(build_model("distil_dccrn").named_parameters())
    assert student["recurrent"].count == student["input"].count == 4 and student["kernel"].count > 8
    assert student["recurrent"].rms == pytest.approx(0.0589, abs=0.002)  # uniform within 1 / sqrt(96)
    assert kind_of("bottleneck.lstm.0.lstm_real.weight_ih_l0", torch.zeros(8, 4)) == "input"


def test_size_is_that_of_all_elements_together():
    given = {"a.weight": torch.full((4, 4), 3.0), "b.weight": torch.full((4, 12), 1.0), "bias": torch.ones(99)}
    assert sizes(given.items())["linear"].rms == pytest.approx(((16 * 9 + 48) / 64) ** 0.5)
    assert sizes(given.items())["linear"].count == 2


def test_the_command_compares_with_fresh_weights(tmp_path, capsys):
    torch.manual_seed(1)
    model = build_model("distil_dccrn_mini")
    first = save_model(model, tmp_path / "first", card={"hours_of_audio": 2.5})
    with torch.no_grad():
        for p in model.parameters():
            p.mul_(2.0)
    second = save_model(model, tmp_path / "second")
    assert cli.main(["experiment", "weight-growth", str(first), str(second), "--results-folder", str(tmp_path)]) == 0
    record = json.loads((tmp_path / "weight_growth.json").read_text())
    fresh, a, b = record["rows"]  # the same architecture, so that one fresh row serves both
    assert fresh["weights"] == f"fresh, as {first}" and [r["hours of audio"] for r in record["rows"]] == [
        0.0,
        2.5,
        None,
    ]
    for kind in a["values"]:
        assert b["values"][kind]["rms"] == pytest.approx(2 * a["values"][kind]["rms"], rel=1e-6)
        assert b["values"][kind]["ratio"] == pytest.approx(a["values"][kind]["ratio"], rel=1e-5)
    assert cli.main(["experiment", "weight-growth", str(first), str(first), "--results-folder", str(tmp_path)]) == 2
    assert "each of them once" in capsys.readouterr().err


def test_neither_the_card_is_written_over_nor_what_diverged_a_traceback(tmp_path, capsys):
    model = build_model("distil_dccrn_mini")
    first = save_model(model, tmp_path / "first")
    card = first.with_suffix(".json").read_text()
    command = ["experiment", "weight-growth", str(first), "--results-folder", str(tmp_path)]
    assert cli.main([*command, "--name", "first"]) == 2
    assert "the record that is read" in capsys.readouterr().err and first.with_suffix(".json").read_text() == card
    with torch.no_grad():
        for p in model.parameters():
            p.fill_(torch.nan)
    save_model(model, first)
    assert cli.main(command) == 2
    assert "not finite" in capsys.readouterr().err
