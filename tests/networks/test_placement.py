"""Every tensor on the device of the networks, checked without that device: fake tensors carry a device and no data.

An operation between a tensor on the CPU and one on the GPU fails among them as it would there. LSTMs are replaced (torch
asks a real driver for them), and the backward pass is left out for the same reason.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterator

import pytest
import torch
from torch import Tensor, nn
from torch._subclasses.fake_tensor import FakeTensorMode

from dccrn_lib.distillation import METHODS, READINGS, DistillationLoss, FeatureTap
from dccrn_lib.losses import compressed_spectral_loss, level_loss, si_snr_db, si_snr_loss
from dccrn_lib.networks import build_from_config, build_model, complex_layers, dccrn
from dccrn_lib.networks.presets import preset
from dccrn_lib.training.muon import Muon, lstm_parameters

pytestmark = [
    pytest.mark.skipif(torch.version.cuda is None, reason="a torch without CUDA"),
    pytest.mark.filterwarnings("ignore:Accessing the data pointer of FakeTensor"),
]
#: Methods that move new weights to the device, which fake ones cannot be.
MOVING = ("kl", "fitnets")


def _stand_in(lstm: nn.LSTM, x: Tensor) -> Tensor:
    """Something of the LSTM's output shape that depends on its input and its weights."""
    return x.mean() + x.new_zeros(*x.shape[:2], lstm.hidden_size) * lstm.weight_hh_l0.mean()


@pytest.fixture
def on_gpu(monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[..., nn.Module]]:
    """A network, by its name or config, with weights and buffers on a fake GPU."""
    for module in (complex_layers, dccrn):
        monkeypatch.setattr(module, "run_lstm", _stand_in)

    def build(network: object) -> nn.Module:
        with torch.device("cuda"):
            return build_model(network) if isinstance(network, str) else build_from_config(network)

    with FakeTensorMode(allow_non_fake_inputs=False):
        yield build


def waves(count: int) -> list[Tensor]:
    return [torch.randn(2, 8000, device="cuda") for _ in range(count)]


def test_a_tensor_left_on_the_cpu_is_noticed(on_gpu: Callable[..., nn.Module]):
    (x,) = waves(1)
    with pytest.raises(RuntimeError, match="device"):
        x + torch.zeros(8000)


@pytest.mark.parametrize("mask", ["E", "C", "R"])
@pytest.mark.parametrize("training", [True, False])
def test_masks_of_dccrn_stay_on_the_device(on_gpu: Callable[..., nn.Module], mask: str, training: bool):
    config = dataclasses.replace(preset("distil_dccrn_mini"), mask=mask)
    (x,) = waves(1)
    assert on_gpu(config).train(training)(x).device.type == "cuda"


@pytest.mark.parametrize("name", ["distil_dccrn", "dccrn_e", "dccrn_cl", "uformer"])
def test_networks_and_losses_stay_on_the_device(on_gpu: Callable[..., nn.Module], name: str):
    x, clean = waves(2)
    estimate = on_gpu(name)(x)
    for loss in (si_snr_loss, si_snr_db, level_loss, compressed_spectral_loss):
        assert loss(estimate, clean).device.type == "cuda"


@pytest.mark.parametrize(
    ("method", "options"),
    [
        *(("at_kl", {"reading": r, "normalisation": n}) for r in READINGS for n in ("sum", "softmax")),
        *((method, {}) for method in METHODS if method not in ("at_kl", *MOVING)),
    ],
)
def test_teaching_stays_on_the_device(on_gpu: Callable[..., nn.Module], method: str, options: dict[str, str]):
    student, teacher = on_gpu("distil_dccrn"), on_gpu("uformer").eval()
    transforms = {"student_stft": student.config.stft, "teacher_stft": teacher.config.stft}
    if METHODS[method] is not None:
        options = {**options, **transforms}
    loss = DistillationLoss(method, feature_weight=0.5, **options)
    x, clean = waves(2)
    with FeatureTap(student) as of_student, FeatureTap(teacher) as of_teacher:
        estimate, target = student(x), teacher(x)
    terms = loss(estimate, clean, target, of_student.features, of_teacher.features)
    scalars = [*(term for name, term in terms.items() if name != "layers"), *terms.get("layers", {}).values()]
    assert all(scalar.device.type == "cuda" for scalar in scalars)


@pytest.mark.parametrize("lstm_by_adam", [True, False])
def test_muon_moves_weights_where_they_are(on_gpu: Callable[..., nn.Module], lstm_by_adam: bool):
    student = on_gpu("distil_dccrn")
    for weight in student.parameters():
        weight.grad = torch.randn_like(weight)
    optimiser = Muon(student.parameters(), to_adam=lstm_parameters(student) if lstm_by_adam else ())
    optimiser.step()
    states = [value for state in optimiser.state.values() for value in state.values()]
    assert states and all(value.device.type == "cuda" for value in states)
