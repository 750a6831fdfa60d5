"""One optimiser step: forward, loss and backward over the micro-batches, clip, step, average.

A batch whose loss or gradient is not finite changes nothing: weights, optimiser, averaged weights and BatchNorm statistics
stay as they were. On a CPU the host decides; on a GPU that would empty its queue, so the device decides by arithmetic.
"""

# torch's own optimisers call the _foreach functions; its stubs name them, but do not export them.
# pyright: reportPrivateImportUsage=false

from __future__ import annotations

import contextlib

import torch
from torch import Tensor, nn
from torch.optim.swa_utils import get_ema_multi_avg_fn

from dccrn_lib.training.outcome import Outcome
from dccrn_lib.training.schedule import learning_rate
from dccrn_lib.training.session import Session


def optimise(session: Session) -> Outcome:
    """One optimiser step on the next global batch, cut into ``config.accumulation`` micro-batches."""
    config, state, ranks = session.config, session.state, session.ranks
    set_rates(session)
    if ranks.world > 1:  # dropout: drawn by step and rank, so that resuming needs no state of others
        torch.manual_seed((config.seed * ranks.world + ranks.rank << 32) + state.step)
    buffers = {name: value.clone() for name, value in state.model.named_buffers()}
    random = torch.get_rng_state()
    try:
        outcome = _gradients(session)
    except BaseException:  # the step was not made: as if it had not begun
        _put_back(state.model, buffers)
        torch.set_rng_state(random)
        raise
    if session.decides_on_host:
        if not outcome.fine:
            _put_back(state.model, buffers)
            return outcome
        session.changing = True
        state.optimiser.step()
        update_average(state.average, state.model, config.ema_decay, state.step)
        session.changing = False
        return outcome
    session.changing = True
    _put_back(state.model, buffers, ~outcome.fine)
    state.optimiser.found_inf = (~outcome.fine).float()  # pyright: ignore[reportAttributeAccessIssue]  # as GradScaler
    state.optimiser.step()
    update_average(state.average, state.model, config.ema_decay, state.step, outcome.fine)
    session.changing = False
    return outcome


def _gradients(session: Session) -> Outcome:
    """Forward and backward over the micro-batches; the gradient is clipped then."""
    config, state, ranks = session.config, session.state, session.ranks
    state.optimiser.zero_grad(set_to_none=True)
    names: list[str] = []
    terms: Tensor | float = 0.0
    for number in range(config.accumulation):
        last = number == config.accumulation - 1
        # several ranks: the network is a DistributedDataParallel, which has no_sync
        with contextlib.nullcontext() if last or ranks.world == 1 else session.network.no_sync():  # pyright: ignore[reportCallIssue]
            found = session.objective.terms(session.network, next(session.batches))
            (found["total"] / config.accumulation).backward()
        names, values = named_terms(found)
        terms = terms + values / config.accumulation
    ranks.average_gradients(state.loss.parameters())  # adapters are outside DistributedDataParallel
    norm = nn.utils.clip_grad_norm_(session.trained, config.gradient_clip)
    assert isinstance(terms, Tensor)
    terms = ranks.mean_of(terms)
    return Outcome(names, terms, torch.isfinite(terms[names.index("total")]) & torch.isfinite(norm))


@torch.no_grad()
def _put_back(model: nn.Module, buffers: dict[str, Tensor], where: Tensor | None = None) -> None:
    """The buffers as they were; with ``where``, only if that is true on the device."""
    for name, value in model.named_buffers():
        value.copy_(buffers[name] if where is None else torch.where(where, buffers[name], value))


def set_rates(session: Session) -> None:
    """Give every group of the optimiser its rate in the coming step: the schedule times the group's highest one."""
    config, state = session.config, session.state
    rate = learning_rate(state.step, config)
    for group, highest in zip(state.optimiser.param_groups, session.highest_rates, strict=True):
        group["lr"] = highest * rate / config.learning_rate


def named_terms(found: dict) -> tuple[list[str], Tensor]:
    """Names and values of the terms, and of the distance of each tapped layer: (names, float64 (term,))."""
    values = {k: found[k] for k in ("total", "clean", "teacher", "features") if k in found}
    values |= {f"layer {name}": value for name, value in found.get("layers", {}).items()}
    stacked = torch.stack([value.detach() for value in values.values()])
    return list(values), stacked if stacked.device.type == "mps" else stacked.double()


@torch.no_grad()
def update_average(average: nn.Module, model: nn.Module, decay: float, step: int, fine: Tensor | None = None) -> None:
    """Exponential moving average of weights; BatchNorm statistics are averages already and are copied.

    Args:
        average, model: averaged and latest weights; nothing is done if they are one.
        decay: at most; less in the first steps.
        step: 0-based.
        fine: bool () on the device: whether to do it; None does.
    """
    if average is model:
        return
    decay = min(decay, (1 + step) / (10 + step))
    averages: list[Tensor] = list(average.parameters())
    values: list[Tensor] = list(model.parameters())
    if fine is None:
        get_ema_multi_avg_fn(decay)(averages, values, None)  # in one call
    else:  # a <- a + w (x - a), with w = 0 for a step that is skipped
        moves = torch._foreach_sub(values, averages)
        torch._foreach_mul_(moves, torch.where(fine, 1 - decay, 0.0))
        torch._foreach_add_(averages, moves)
    for a, b in zip(average.buffers(), model.buffers(), strict=True):
        a.copy_(b)
