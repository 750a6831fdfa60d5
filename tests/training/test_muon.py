"""Muon: orthogonal steps for matrices, Adam for the rest, the same with rates that are tensors."""

from __future__ import annotations

import copy

import pytest
import torch
from torch import nn

from dccrn_lib.networks.presets import build_model
from dccrn_lib.training import muon
from dccrn_lib.training.config import TrainConfig
from dccrn_lib.training.muon import Muon, is_matrix, lstm_parameters, orthogonalise
from dccrn_lib.training.objective import build_optimiser


@pytest.mark.parametrize("shape", [(3, 16, 80), (2, 40, 8), (1, 6, 6)])
def test_singular_values_come_near_one(shape):
    matrices = torch.randn(shape, generator=torch.Generator().manual_seed(0))
    values = torch.linalg.svdvals(orthogonalise(matrices))
    assert ((values > 0.5) & (values < 1.3)).all()
    # and the singular vectors stay: U V' of the decomposition
    u, _, vh = torch.linalg.svd(matrices, full_matrices=False)
    inner = torch.einsum("nij,nij->n", orthogonalise(matrices), u @ vh) / min(shape[1:])
    assert (inner > 0.7).all()


def test_a_singular_value_far_below_the_others_grows_485_times_and_stays_below_them():
    small = torch.logspace(-5, -0.5, 19)
    pairs = torch.stack([torch.diag(torch.tensor([1.0, float(value)])) for value in small])
    found = torch.linalg.svdvals(orthogonalise(pairs)).amin(dim=-1)
    assert ((found > 0.68) & (found < 1.2))[small >= 0.002].all()
    tiny = small < 2e-4
    growth = muon.NEWTON_SCHULZ[0] ** 5  # 485: of what is so small the iteration is linear
    torch.testing.assert_close(found[tiny], growth * small[tiny], rtol=0.05, atol=1e-4)
    assert found[tiny].max() < 0.1


def test_each_parameter_has_one_rule():
    model = build_model("distil_dccrn_mini")
    optimiser = Muon(model.parameters())
    kinds = {g["kind"]: g["params"] for g in optimiser.param_groups}
    assert len(kinds["muon"]) + len(kinds["adam"]) == len(list(model.parameters()))
    assert all(is_matrix(p) for p in kinds["muon"]) and not any(is_matrix(p) for p in kinds["adam"])
    assert any(p.dim() == 4 for p in kinds["muon"])  # convolution kernels among them


def test_vectors_move_as_under_torch_adam():
    torch.manual_seed(0)
    ours = nn.Parameter(torch.randn(3))
    theirs = nn.Parameter(ours.detach().clone())
    a, b = Muon([ours], adam_learning_rate=0.1), torch.optim.Adam([theirs], lr=0.1)
    for _ in range(5):
        for p, optimiser in ((ours, a), (theirs, b)):
            p.grad = (p.detach() ** 3).clone()
            optimiser.step()
    assert torch.allclose(ours, theirs, atol=1e-6)


@pytest.mark.skipif(not hasattr(torch.optim, "Muon"), reason="torch has a Muon from 2.9 on")
def test_matrices_move_as_under_torch_muon():
    torch.manual_seed(0)
    ours = nn.Parameter(torch.randn(6, 6))
    start = ours.detach().clone()
    theirs = nn.Parameter(start.clone())
    a = Muon([ours], learning_rate=0.1)
    b = torch.optim.Muon([theirs], lr=0.1, momentum=0.95, weight_decay=0.0, nesterov=True)
    for _ in range(3):
        for p, optimiser in ((ours, a), (theirs, b)):
            p.grad = (p.detach() ** 3).clone()
            optimiser.step()
    # torch's iterates in bfloat16 and averages the momentum: the directions agree, not the digits
    moved = [(p.detach() - start).flatten() for p in (ours, theirs)]
    assert torch.nn.functional.cosine_similarity(*moved, dim=0) > 0.999
    assert moved[0].norm().item() == pytest.approx(moved[1].norm().item(), rel=0.05)


def test_matrices_move_by_momentum_in_the_form_of_nesterov():
    torch.manual_seed(0)
    p, momentum, rate = nn.Parameter(torch.randn(6, 6)), torch.zeros(6, 6), 0.1
    optimiser, wanted = Muon([p], learning_rate=rate, momentum=0.8), p.detach().clone()
    for _ in range(5):
        p.grad = torch.randn(6, 6)
        momentum = 0.8 * momentum + p.grad
        wanted = wanted - rate * orthogonalise((p.grad + 0.8 * momentum)[None])[0]
        optimiser.step()
    assert torch.allclose(p.detach(), wanted, atol=1e-5)


def test_rates_may_be_tensors_and_a_state_can_be_restored():
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(8, 8), nn.PReLU(), nn.Linear(8, 8))
    x = torch.randn(4, 8)

    def run(network, optimiser, steps):
        for _ in range(steps):
            optimiser.zero_grad()
            network(x).square().mean().backward()
            optimiser.step()

    twin = copy.deepcopy(model)
    a, b = Muon(model.parameters(), 0.02, 0.01), Muon(twin.parameters(), 0.02, 0.01)
    for group in b.param_groups:
        group["lr"] = torch.tensor(group["lr"])
    run(model, a, 2)
    run(twin, b, 2)
    for p, q in zip(model.parameters(), twin.parameters(), strict=True):
        assert torch.allclose(p, q, atol=1e-6)
    third = copy.deepcopy(model)
    c = Muon(third.parameters(), 0.02, 0.01)
    c.load_state_dict(copy.deepcopy(a.state_dict()))
    run(model, a, 2)
    run(third, c, 2)
    for p, q in zip(model.parameters(), third.parameters(), strict=True):
        assert torch.equal(p, q)


@pytest.mark.parametrize("rows, columns", [(4, 8), (16, 160), (64, 130)])
def test_a_wide_matrix_goes_the_shorter_way_to_the_same_place(rows, columns):
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(3, rows, columns, generator=generator)
    x[1] = x[1] * 1e-3 + torch.randn(rows, 2, generator=generator) @ torch.randn(2, columns, generator=generator)
    unit = x / x.square().sum((-2, -1), keepdim=True).sqrt()
    plain = muon.newton_schulz(unit.double(), 5)
    assert columns >= muon.WIDE * rows
    for found in (orthogonalise(x), orthogonalise(x.mT).mT):
        assert (found - plain).norm() < 3e-4 * plain.norm()


def test_a_first_step_that_is_skipped_changes_nothing():
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(4, 4), nn.PReLU())
    before = copy.deepcopy(model.state_dict())
    optimiser = Muon(model.parameters(), 0.02, 0.01)
    for p in model.parameters():
        p.grad = torch.full_like(p, float("nan"))
    optimiser.found_inf = torch.ones(())
    optimiser.step()
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())
    optimiser.found_inf = torch.zeros(())
    for p in model.parameters():
        p.grad = torch.ones_like(p)
    optimiser.step()
    assert all(value.isfinite().all() for value in model.state_dict().values())
    assert not any(torch.equal(value, before[name]) for name, value in model.state_dict().items())


@pytest.mark.parametrize(
    "shape, factor", [((12, 4), 3**0.5), ((4, 12), 1.0), ((4, 3, 2, 2), 1.0), ((12, 2, 2, 1), 3**0.5)]
)
def test_a_tall_matrix_moves_further(shape, factor):
    torch.manual_seed(0)
    p = nn.Parameter(torch.randn(shape))
    start, p.grad = p.detach().clone(), torch.randn(shape)
    Muon([p], learning_rate=0.1).step()
    wanted = 0.1 * factor * orthogonalise(1.95 * p.grad.reshape(1, shape[0], -1))[0].view(shape)
    assert torch.allclose(start - p.detach(), wanted, atol=1e-5)


def test_weight_decay_shortens_matrices_and_nothing_else():
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(4, 6), nn.PReLU())
    before = copy.deepcopy(model.state_dict())
    optimiser = Muon(model.parameters(), 0.1, 0.1, weight_decay=0.5)
    for p in model.parameters():
        p.grad = torch.zeros_like(p)
    optimiser.step()  # without a gradient only the decay is left
    after = model.state_dict()
    assert torch.allclose(after["0.weight"], before["0.weight"] * (1 - 0.1 * 0.5), rtol=1e-6)
    assert torch.equal(after["0.bias"], before["0.bias"]) and torch.equal(after["1.weight"], before["1.weight"])
    optimiser.found_inf = torch.ones(())
    optimiser.step()  # a step that is skipped takes nothing away
    assert torch.equal(model.state_dict()["0.weight"], after["0.weight"])


@pytest.mark.skipif(not hasattr(torch.optim, "Muon"), reason="torch has a Muon from 2.9 on")
def test_weight_decay_is_that_of_torch_muon():
    torch.manual_seed(0)
    ours = nn.Parameter(torch.randn(6, 6))
    theirs = nn.Parameter(ours.detach().clone())
    for p, optimiser in (
        (ours, Muon([ours], learning_rate=0.1, weight_decay=0.3)),
        (theirs, torch.optim.Muon([theirs], lr=0.1, weight_decay=0.3)),
    ):
        for _ in range(3):
            p.grad = torch.zeros_like(p)
            optimiser.step()
    assert torch.allclose(ours, theirs, rtol=1e-5)


def test_weight_decay_bounds_the_growth_of_weights():
    torch.manual_seed(0)
    sizes = {}
    for decay in (0.0, 5.0):
        p = nn.Parameter(torch.zeros(8, 8))
        optimiser = Muon([p], learning_rate=0.01, weight_decay=decay)
        generator = torch.Generator().manual_seed(1)
        for _ in range(400):
            p.grad = torch.randn(8, 8, generator=generator)  # noise, with no direction to learn
            optimiser.step()
        sizes[decay] = float(p.detach().square().mean().sqrt())
    assert sizes[5.0] < 0.5 * sizes[0.0]


def test_lstms_can_be_left_to_adam():
    model = build_model("distil_dccrn_mini")
    lstms = lstm_parameters(model)
    assert {id(p) for p in lstms} == {id(p) for n, p in model.named_parameters() if ".lstm" in n}
    optimiser = Muon(model.parameters(), to_adam=lstms)
    kinds = {g["kind"]: {id(p) for p in g["params"]} for g in optimiser.param_groups}
    assert {id(p) for p in lstms} <= kinds["adam"]
    assert kinds["muon"] == {id(p) for p in model.parameters() if is_matrix(p)} - {id(p) for p in lstms}
    for muon_lstm in (True, False):  # as a config asks for it
        c = TrainConfig("out", "speech", "noise", optimiser="muon", muon_lstm=muon_lstm)
        groups = build_optimiser(c, model, list(model.parameters())).param_groups
        by_muon = {id(p) for g in groups if g["kind"] == "muon" for p in g["params"]}
        assert any(id(p) in by_muon for p in lstms) == muon_lstm
