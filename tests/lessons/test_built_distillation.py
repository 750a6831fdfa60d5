"""The distillation step that lesson 05 builds: equal to the library's losses, and no step touches the teacher."""

from __future__ import annotations

import copy

import torch

from dccrn_lib.distillation import assert_frozen
from dccrn_lib.lessons.built import distillation as built
from dccrn_lib.lessons.built.attention_transfer import MyATKL
from dccrn_lib.losses import compressed_spectral_loss, level_loss, si_snr_loss
from dccrn_lib.networks.presets import build_model


def batch() -> tuple[torch.Tensor, torch.Tensor]:
    torch.manual_seed(1)
    clean = 0.1 * torch.randn(2, 3200)
    return clean + 0.05 * torch.randn(2, 3200), clean


def test_losses_equal_the_library():
    noisy, clean = batch()
    expected = si_snr_loss(noisy, clean) + level_loss(noisy, clean) + 50 * compressed_spectral_loss(noisy, clean)
    assert torch.allclose(built.my_loss(noisy, clean, 50.0), expected, atol=1e-4)


def test_a_step_teaches_the_student_and_leaves_the_teacher_alone():
    torch.manual_seed(0)
    student, teacher = build_model("distil_dccrn_mini").train(), built.my_freeze(build_model("uformer_mini"))
    assert_frozen(teacher)
    before = copy.deepcopy(teacher.state_dict()), copy.deepcopy(student.state_dict())
    optimiser = torch.optim.Adam(student.parameters(), lr=1e-3)
    recipe = built.Recipe(MyATKL("softmax"), b=1.0, decay=0.98)
    terms = built.distil_step(student, teacher, batch(), recipe, optimiser, copy.deepcopy(student), 0)
    assert sum(name.startswith("layer ") for name in terms) == 12
    assert all(torch.equal(v, before[0][k]) for k, v in teacher.state_dict().items())
    assert any(not torch.equal(v, before[1][k]) for k, v in student.state_dict().items())


def test_no_gradient_reaches_a_teacher_that_was_not_frozen():
    torch.manual_seed(0)
    student, teacher = build_model("distil_dccrn_mini").train(), build_model("uformer_mini").eval()
    terms = built.distil_terms(student, teacher, batch(), built.Recipe(MyATKL("softmax")))
    (terms["waveform"] + terms["features"]).backward()
    assert all(p.grad is None for p in teacher.parameters())
