"""Models by name, weights on disk, and their errors."""

from __future__ import annotations

import json

import pytest
import torch

from dccrn_lib.networks import weights
from dccrn_lib.networks.cost import count_macs, count_parameters
from dccrn_lib.networks.presets import PRESETS, build_model, config_from_dict, config_to_dict
from dccrn_lib.networks.weights import find_weights, load_model, mean_model, read_card, save_model, starting_model
from dccrn_lib.results.records import load_result
from dccrn_lib.runtime.errors import ConfigError, WeightsError
from dccrn_lib.runtime.paths import weights_dir

COUNTS = {
    "dccrn_e": 3_742_349,
    "dccrn_cl": 3_671_053,
    "distil_dccrn": 1_126_413,
    "distil_dccrn_wide": 1_116_045,
    "uformer": 3_336_049,
}


@pytest.mark.parametrize(("name", "count"), COUNTS.items())
def test_parameter_counts(name, count):
    assert count_parameters(build_model(name)) == count


@pytest.mark.parametrize("name", PRESETS)
def test_config_survives_json(name):
    config = PRESETS[name]
    assert config_from_dict(json.loads(json.dumps(config_to_dict(config)))) == config


def test_unknown_names_point_at_the_nearest():
    with pytest.raises(ConfigError, match="did you mean distil_dccrn"):
        build_model("distil_dcrn")
    with pytest.raises(ConfigError, match="did you mean mask"):
        build_model("dccrn_e", masks="C")
    with pytest.raises(ConfigError, match="known: E, C, R"):
        build_model("dccrn_e", mask="X")


@pytest.mark.parametrize("name", ["distil_dccrn_mini", "uformer_mini"])
def test_save_and_load(tmp_path, name):
    torch.manual_seed(0)
    model = build_model(name).eval()
    path = save_model(model, tmp_path / "m.safetensors", {"licence": "CC0"})
    x = torch.randn(1, 2000)
    for where in (path, tmp_path, tmp_path / "m", str(path)):
        assert torch.equal(load_model(where)(x), model(x))
    card = read_card(path)
    assert card["card"] == {"licence": "CC0"} and card["parameters"] == count_parameters(model)
    assert not load_model(path).training


@pytest.fixture
def saved(tmp_path):
    return save_model(build_model("distil_dccrn_mini"), tmp_path / "m")


def test_a_frozen_network_has_as_many_parameters(tmp_path):
    model = build_model("distil_dccrn_mini")
    count = count_parameters(model)
    path = save_model(model.requires_grad_(False), tmp_path / "m")
    assert read_card(path)["parameters"] == count > 0


def test_missing_weights_list_the_shipped_ones():
    with pytest.raises(WeightsError, match="shipped:"):
        load_model("no_such_model")


def test_truncated_file(saved):
    saved.write_bytes(saved.read_bytes()[:-10])
    with pytest.raises(WeightsError, match="hash differs"):
        load_model(saved)


def test_corrupt_file_with_a_right_hash(saved):
    import hashlib

    saved.write_bytes(b"not safetensors at all")
    record = json.loads(saved.with_suffix(".json").read_text())
    record["sha256"] = hashlib.sha256(saved.read_bytes()).hexdigest()
    saved.with_suffix(".json").write_text(json.dumps(record))
    with pytest.raises(WeightsError, match="does not fit its config"):
        load_model(saved)


def test_config_of_another_model(saved):
    record = json.loads(saved.with_suffix(".json").read_text())
    record["config"]["rnn_units"] = 32
    saved.with_suffix(".json").write_text(json.dumps(record))
    with pytest.raises(WeightsError, match="does not fit its config"):
        load_model(saved)


@pytest.mark.parametrize("text", ["", "{", "[]", '{"config": {}}'])
def test_broken_card(saved, text):
    saved.with_suffix(".json").write_text(text)
    with pytest.raises(WeightsError, match="m.json"):
        load_model(saved)


def test_missing_card(saved):
    saved.with_suffix(".json").unlink()
    with pytest.raises(WeightsError, match="missing"):
        load_model(saved)


def test_unknown_keys_in_a_card():
    record = config_to_dict(PRESETS["dccrn_e"])
    with pytest.raises(WeightsError, match="colour"):
        config_from_dict({**record, "colour": 1})
    with pytest.raises(WeightsError, match="family"):
        config_from_dict({**record, "family": "gtcrn"})


@pytest.mark.parametrize("config", ["a", [], 3, None])
def test_a_config_that_is_no_object_is_refused(config):
    with pytest.raises(WeightsError, match="config must be an object"):
        config_from_dict(config)


def test_large_sizes_are_compared_before_memory_is_asked_for(saved, monkeypatch):
    def built(config):
        assert torch.empty(0).device.type == "meta", "memory is asked for"
        return real(config)

    real = weights.build_from_config
    monkeypatch.setattr(weights, "build_from_config", built)
    card = saved.with_suffix(".json")
    record = json.loads(card.read_text())
    record["config"]["rnn_units"] = 12000
    card.write_text(json.dumps(record))
    with pytest.raises(WeightsError, match="does not fit its config"):
        load_model(saved)


def test_folder_with_two_weights(saved):
    save_model(build_model("distil_dccrn_mini"), saved.parent / "other")
    with pytest.raises(WeightsError, match="found 2"):
        find_weights(saved.parent)


@pytest.mark.parametrize(("name", "giga"), [("dccrn_e", 3.97), ("dccrn_cl", 8.53), ("distil_dccrn", 2.21)])
def test_macs(name, giga):
    assert count_macs(build_model(name)) / 1e9 == pytest.approx(giga, abs=0.01)


def test_macs_by_layer_sum_up_and_leave_the_model_alone():
    model = build_model("distil_dccrn_mini").train()
    before = {k: v.clone() for k, v in model.state_dict().items()}
    by_layer = count_macs(model, by_layer=True)
    assert sum(by_layer.values()) == pytest.approx(count_macs(model), rel=1e-6)
    assert count_macs(model, seconds=2.0) == pytest.approx(2 * count_macs(model), rel=1e-6)
    assert model.training and all(torch.equal(v, before[k]) for k, v in model.state_dict().items())
    assert not any(m._forward_hooks for m in model.modules())


def test_every_shipped_file_loads_and_is_small():
    shipped = sorted(weights_dir().rglob("*.safetensors"))
    assert shipped, "no weights are shipped"
    for path in shipped:
        assert path.stat().st_size < 15e6
        assert load_model(path)(torch.zeros(1, 800)).isfinite().all()
        card = read_card(path)["card"]
        for key in ("data", "licence", "steps", "limits"):
            assert card.get(key), f"{path.name}: its card says nothing of {key}"


def test_training_starts_from_weights_of_the_model_it_names():
    assert starting_model("distil_dccrn", "distil_dccrn").config == build_model("distil_dccrn").config
    assert starting_model("uformer_mini").config == build_model("uformer_mini").config
    with pytest.raises(ConfigError, match="init distil_dccrn holds another network than model uformer_mini"):
        starting_model("uformer_mini", "distil_dccrn")


def test_cards_state_the_scores_of_the_published_table():
    table = load_result("real_test")
    cards = {read_card(p)["sha256"]: (p.stem, read_card(p)["card"]) for p in weights_dir().glob("*.safetensors")}
    for system, sha256 in table["config"]["models"].items():
        name, card = cards[sha256]  # each row of the table is of weights that ship
        mean = table["systems"][system]["mean"]
        assert card["test"]["enhanced"] == {k: round(v, 3) for k, v in mean.items() if v is not None}, name


def test_the_mean_of_two_networks_lies_halfway_and_other_networks_are_refused(tmp_path):
    models = [build_model("distil_dccrn_mini") for _ in range(2)]
    for i, model in enumerate(models):
        save_model(model, tmp_path / str(i))
    mean = mean_model(tmp_path / "0.safetensors", tmp_path / "1.safetensors")
    assert not mean.training
    for key, value in mean.state_dict().items():
        a, b = (model.state_dict()[key] for model in models)
        torch.testing.assert_close(value, (a + b) / 2 if value.is_floating_point() else a)
    with pytest.raises(ConfigError, match="uformer is another network than distil_dccrn"):
        mean_model("distil_dccrn", "uformer")
    with pytest.raises(ConfigError, match="name the weights"):
        mean_model()


@pytest.mark.parametrize("device", ["meta", "gpu"])
def test_a_device_that_cannot_compute_is_refused(device):
    with pytest.raises(ConfigError, match=f"device '{device}'"):
        load_model("distil_dccrn", device)


def test_a_checkpoint_is_no_file_of_weights(tmp_path):
    (tmp_path / "checkpoint.pt").write_bytes(b"x")
    with pytest.raises(WeightsError, match="the weights are best.safetensors"):
        load_model(tmp_path / "checkpoint.pt")
