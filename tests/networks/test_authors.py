"""Golden vectors: the authors' weights in our models give the authors' output."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch

from dccrn_lib.networks.authors import load_authors_dccrn, load_authors_uformer
from dccrn_lib.networks.configs import UformerConfig
from dccrn_lib.runtime.errors import ConfigError, WeightsError

GOLDEN = Path(__file__).parents[1] / "golden"
NAMES = ("dccrn_e", "dccrn_cl", "dccrn_c_cbn", "dccrn_r", "uformer")
TOLERANCE = 1e-5  # relative; measured with torch 2.11: 2.8e-7 to 4.8e-7


def read(name: str):
    """(config, state, spec_in, spec_out) of one golden file."""
    with np.load(GOLDEN / f"{name}.npz") as file:
        state = {k.removeprefix("state/"): file[k] for k in file.files if k.startswith("state/")}
        return json.loads(str(file["config"])), state, file["spec_in"], file["spec_out"]


def load(name: str, state, config):
    return (load_authors_uformer if name == "uformer" else load_authors_dccrn)(state, **config)


@pytest.mark.parametrize("name", NAMES)
def test_golden(name):
    config, state, spec_in, spec_out = read(name)
    model = load(name, state, config)
    assert not model.training
    with torch.no_grad():
        found = model.enhance_spectrum(torch.from_numpy(spec_in)).numpy()
    assert found.dtype == np.complex64 and found.shape == spec_out.shape
    error = np.linalg.norm(found - spec_out) / np.linalg.norm(spec_out)
    assert error < TOLERANCE, f"{name}: relative error {error:.2e}"


@pytest.mark.slow
@pytest.mark.parametrize("name", NAMES)
def test_every_tensor_matters(name):
    """Change one tensor of theirs at a time: the output changes, so each name has reached its place."""
    config, state, spec_in, spec_out = read(name)
    names = [k for k in state if not k.endswith("num_batches_tracked")]
    generator = np.random.default_rng(0)
    for key in generator.choice(names, size=12, replace=False):
        changed = {**state, key: state[key] * 1.5 + 0.5}
        with torch.no_grad():
            found = load(name, changed, config).enhance_spectrum(torch.from_numpy(spec_in)).numpy()
        # A key's bias shifts all logits of a query alike, which a softmax does not see.
        if not key.endswith("key.linear.bias"):
            assert np.linalg.norm(found - spec_out) / np.linalg.norm(spec_out) > TOLERANCE, key


@pytest.mark.parametrize("name", ["dccrn_cl", "uformer"])
def test_tensors_prefix_and_stft_buffers(name):
    config, state, _, _ = read(name)
    plain = load(name, state, config).state_dict()
    dressed = {f"module.{k}": torch.from_numpy(v) for k, v in state.items()}
    dressed["module.stft.weight"] = torch.zeros(514, 1, 400)
    dressed["module.istft.window"] = torch.zeros(1, 400, 1)
    dressed["module.istft.enframe"] = torch.zeros(400, 1, 400)
    loaded = load(name, dressed, config).state_dict()
    assert plain.keys() == loaded.keys()
    assert all(torch.equal(plain[k], loaded[k]) for k in plain)


def test_waveform_goes_through_the_loaded_models():
    for name in ("dccrn_e", "uformer"):
        config, state, _, _ = read(name)
        y = load(name, state, config)(torch.randn(2, 1234) * 0.1)
        assert y.shape == (2, 1234) and y.isfinite().all()


@pytest.mark.parametrize("name", ["dccrn_e", "dccrn_c_cbn", "uformer"])
def test_wrong_states_name_the_key(name):
    config, state, _, _ = read(name)
    key = "decoder.2.0.imag_conv.weight"
    missing = {k: v for k, v in state.items() if k != key}
    with pytest.raises(WeightsError, match=f"'{key}' is missing"):
        load(name, missing, config)
    with pytest.raises(WeightsError, match="unknown name 'decoder.9.bias'"):
        load(name, {**state, "decoder.9.bias": np.zeros(3, np.float32)}, config)
    with pytest.raises(WeightsError, match=rf"'{key}' has shape \(2, 2\)"):
        load(name, {**state, key: np.zeros((2, 2), np.float32)}, config)


def test_wrong_configuration():
    config, state, _, _ = read("dccrn_e")
    with pytest.raises(WeightsError, match="enhance"):
        load_authors_dccrn(state, **{**config, "use_clstm": True})
    with pytest.raises(ConfigError, match="did you mean rnn_units"):
        load_authors_dccrn(state, rnn_unit=16)
    with pytest.raises(ConfigError, match="kernel_size must be 5"):
        load_authors_dccrn(state, **{**config, "kernel_size": 3})
    with pytest.raises(ConfigError, match="win_type"):
        load_authors_dccrn(state, **{**config, "win_type": "hamming"})
    config, state, _, _ = read("uformer")
    with pytest.raises(ConfigError, match="conformer channels 32"):
        load_authors_uformer(state, **{**config, "conformer": [32, 8]})


@pytest.mark.parametrize("name", ["dccrn_e", "uformer"])
def test_what_is_not_a_mapping_of_tensors_is_named(name):
    config, state, _, _ = read(name)
    for around in (
        {"epoch": 3, "state_dict": state, "optimizer": {"state": {}}},
        {"note": "best", "state_dict": state},
    ):
        with pytest.raises(WeightsError, match=r"a checkpoint around the weights; .*\['state_dict'\]"):
            load(name, around, config)
    key = next(iter(state))
    for wrong in (None, "text", [[1.0], [1.0, 2.0]]):
        with pytest.raises(WeightsError, match=f"'{key}' is no tensor but {type(wrong).__name__}"):
            load(name, {**state, key: wrong}, config)
    with pytest.raises(WeightsError, match="a mapping from names to tensors is wanted, got Linear"):
        load(name, torch.nn.Linear(1, 1), config)
    with pytest.raises(WeightsError, match="unknown name '0'"):
        load(name, {**state, 0: torch.zeros(1)}, config)


@pytest.mark.parametrize(
    "load, argument",
    [
        (load_authors_dccrn, {"rnn_units": "256"}),
        (load_authors_dccrn, {"rnn_units": 256.0}),
        (load_authors_dccrn, {"rnn_layers": 2.5}),
        (load_authors_dccrn, {"kernel_num": 16}),
        (load_authors_dccrn, {"kernel_num": (16.0, 32)}),
        (load_authors_dccrn, {"win_len": "400"}),
        (load_authors_dccrn, {"use_clstm": "False"}),
        (load_authors_uformer, {"kernel_num": []}),
        (load_authors_uformer, {"conformer": 128}),
        (load_authors_uformer, {"conformer": (128,)}),
        (load_authors_uformer, {"attention_hidden": "16"}),
        (load_authors_uformer, {"dsconv_channels": None}),
    ],
)
def test_an_argument_of_another_kind_is_named(load, argument):
    with pytest.raises(ConfigError, match="wants|must be"):
        load({}, **argument)


@pytest.mark.parametrize("flag", ["fusion", "attention"])
def test_a_flag_as_text_is_refused(flag):
    with pytest.raises(ConfigError, match=f"{flag} must be True or False"):
        UformerConfig(**{flag: "False"})
