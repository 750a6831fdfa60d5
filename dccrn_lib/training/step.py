"""One optimiser step: forward, loss and backward over the micro-batches, clip, step, average."""

from __future__ import annotations

import contextlib
import math

import torch
from torch import nn
from torch.optim.swa_utils import get_ema_multi_avg_fn

from dccrn_lib.training.schedule import learning_rate
from dccrn_lib.training.session import Session


def optimise(session: Session) -> dict[str, float] | None:
    """One optimiser step on the next global batch, cut into ``config.accumulation`` micro-batches.

    Returns:
        The terms of the loss, means over the batch and the ranks; None where the loss or the gradient was not finite:
        weights and BatchNorm statistics are then as they were before this batch.
    """
    config, state, ranks = session.config, session.state, session.ranks
    set_rates(session)
    if ranks.world > 1:  # dropout: drawn by step and rank, so that resuming needs no state of others
        torch.manual_seed((config.seed * ranks.world + ranks.rank << 32) + state.step)
    buffers = {name: value.clone() for name, value in state.model.named_buffers()}
    random = torch.get_rng_state()
    try:
        terms, norm = _gradients(session)
    except BaseException:  # the step was not made: as if it had not begun
        _put_back(state.model, buffers)
        torch.set_rng_state(random)
        raise
    if not (math.isfinite(terms["total"]) and torch.isfinite(norm)):
        _put_back(state.model, buffers)
        return None
    session.changing = True
    state.optimiser.step()
    update_average(state.average, state.model, config.ema_decay, state.step)
    session.changing = False
    return terms


def _gradients(session: Session) -> tuple[dict[str, float], torch.Tensor]:
    """Forward and backward over the micro-batches: the terms of the loss, and the norm of the gradient (now clipped)."""
    config, state, ranks = session.config, session.state, session.ranks
    state.optimiser.zero_grad(set_to_none=True)
    terms: dict[str, float] = {}
    for number in range(config.accumulation):
        last = number == config.accumulation - 1
        # several ranks: the network is a DistributedDataParallel, which has no_sync
        with contextlib.nullcontext() if last or ranks.world == 1 else session.network.no_sync():  # pyright: ignore[reportCallIssue]
            found = session.objective.terms(session.network, next(session.batches))
            (found["total"] / config.accumulation).backward()
        for name, value in numbers_of(found).items():
            terms[name] = terms.get(name, 0.0) + value / config.accumulation
    ranks.average_gradients(state.loss.parameters())  # adapters are outside DistributedDataParallel
    norm = nn.utils.clip_grad_norm_(session.trained, config.gradient_clip)
    return ranks.means(terms, session.device), norm


@torch.no_grad()
def _put_back(model: nn.Module, buffers: dict[str, torch.Tensor]) -> None:
    for name, value in model.named_buffers():
        value.copy_(buffers[name])


def set_rates(session: Session) -> None:
    """Give every group of the optimiser its rate in the coming step: the schedule times the group's highest one."""
    config, state = session.config, session.state
    rate = learning_rate(state.step, config)
    for group, highest in zip(state.optimiser.param_groups, session.highest_rates, strict=True):
        group["lr"] = highest * rate / config.learning_rate


def numbers_of(found: dict) -> dict[str, float]:
    """The terms, and the distance of each tapped layer, as numbers: one transfer from the device for all."""
    values = {k: found[k] for k in ("total", "clean", "teacher", "features") if k in found}
    values |= {f"layer {name}": value for name, value in found.get("layers", {}).items()}
    numbers = torch.stack([value.detach() for value in values.values()]).tolist()
    return dict(zip(values, numbers, strict=True))


@torch.no_grad()
def update_average(average: nn.Module, model: nn.Module, decay: float, step: int) -> None:
    """Exponential moving average of weights; BatchNorm statistics are averages already and are copied."""
    if average is model:
        return
    decay = min(decay, (1 + step) / (10 + step))
    get_ema_multi_avg_fn(decay)(list(average.parameters()), list(model.parameters()), None)  # in one call
    for a, b in zip(average.buffers(), model.buffers(), strict=True):
        a.copy_(b)
