"""One optimiser step: forward, loss and backward over the micro-batches, clip, step, average.

A batch whose loss or gradient is not finite changes nothing: weights, optimiser, averaged weights and BatchNorm statistics
stay as they were. On a CPU the host decides; on a GPU that would empty its queue, so the device decides by arithmetic.
"""

from __future__ import annotations

import torch
from torch import nn

from dccrn_lib.training.average import average_decay, update_average
from dccrn_lib.training.objective import buffers_of, put_back
from dccrn_lib.training.schedule import learning_rate
from dccrn_lib.training.session import Session
from dccrn_lib.training.step_outcomes import Outcome


def optimise(session: Session) -> Outcome:
    """One optimiser step on the next global batch, cut into ``config.accumulation`` micro-batches."""
    config, state, ranks = session.config, session.state, session.ranks
    set_rates(session)
    if (
        ranks.world > 1 or session.device.type != "cpu"
    ):  # dropout: drawn by step and rank: resuming needs no other state
        torch.manual_seed(((config.seed * ranks.world + ranks.rank << 32) + state.step) % 2**64)
    buffers, decay = buffers_of(state.model), average_decay(state.step, config.ema_decay)
    random = torch.get_rng_state()
    try:
        outcome = _gradients(session)
    except BaseException:  # the step was not made: as if it had not begun
        put_back(state.model, buffers)
        torch.set_rng_state(random)
        raise
    if session.decides_on_host:
        if not outcome.fine:
            put_back(state.model, buffers)
            return outcome
        session.changing = True
        state.optimiser.step()
        update_average(state.average, state.model, decay)
        session.changing = False
        return outcome
    session.changing = True
    put_back(state.model, buffers, ~outcome.fine)
    state.optimiser.found_inf = (~outcome.fine).float()  # pyright: ignore[reportAttributeAccessIssue]  # as GradScaler
    state.optimiser.step()
    update_average(state.average, state.model, torch.where(outcome.fine, decay, 1.0))
    session.changing = False
    return outcome


def _gradients(session: Session) -> Outcome:
    """Forward and backward over the micro-batches; the gradient is clipped then."""
    config, state, ranks = session.config, session.state, session.ranks
    state.optimiser.zero_grad(set_to_none=True)
    batches = (next(session.batches) for _ in range(config.accumulation))
    names, terms = session.objective.backward(session.network, batches)
    ranks.average_gradients(state.loss.parameters())  # adapters are outside DistributedDataParallel
    norm = nn.utils.clip_grad_norm_(session.trained, config.gradient_clip)
    terms = ranks.mean_of(terms)
    return Outcome(names, terms, torch.isfinite(terms[names.index("total")]) & torch.isfinite(norm))


def set_rates(session: Session) -> None:
    """Give every group of the optimiser its rate in the coming step: the schedule times the group's highest one."""
    config, state = session.config, session.state
    rate = learning_rate(state.step, config)
    for group, highest in zip(state.optimiser.param_groups, session.highest_rates, strict=True):
        group["lr"] = highest * rate / config.learning_rate
