"""Where the time of a training step goes: milliseconds by kind of operation, in float32 and in bfloat16.

    python -m dccrn_lib bench operations --model uformer --json results/uformer_operations.json

Forward and backward pass on one synthetic batch, on the CPU, by torch's profiler: medians over a few steps of each
precision in turns.
"""

from __future__ import annotations

import statistics
from typing import Any

import torch
from torch import nn
from torch.profiler import ProfilerActivity, profile

from dccrn_lib.experiments.training_alternatives import training_step
from dccrn_lib.experiments.training_speed import synthetic_batch
from dccrn_lib.networks.presets import build_model
from dccrn_lib.runtime.devices import with_threads

#: Kind -> words in the names of torch's operations; the first that fits counts.
KINDS = {
    "convolutions": ("conv",),
    "recurrent layers": ("rnn", "lstm"),
    "attention": ("attention",),
    "BatchNorm and LayerNorm": ("norm",),
    "linear layers": ("::mm", "addmm", "bmm", "matmul", "linear"),
    "masks of dropout": ("bernoulli", "random_"),
    "copies, casts and joins": ("copy", "cat", "clone", "contiguous", "index", "slice", "fill", "zero"),
}
REST = "activations and the rest, element by element"


def kind_of(operation: str) -> str:
    """The kind of an operation by its name."""
    lower = operation.lower()
    return next((kind for kind, words in KINDS.items() if any(word in lower for word in words)), REST)


def milliseconds_by_kind(model: nn.Module, batch: tuple, amp: bool) -> dict[str, float]:
    """Of one step."""
    step = training_step(model, batch, amp)
    with profile(activities=[ProfilerActivity.CPU]) as found:
        step()
    times = dict.fromkeys((*KINDS, REST), 0.0)
    for row in found.key_averages():
        times[kind_of(row.key)] += row.self_cpu_time_total / 1e3  # from microseconds
    return times


def measure_operations(name: str, batch_size: int = 4, seconds: float = 2.0, steps: int = 3) -> dict[str, Any]:
    """Times of one network.

    Args:
        name: preset.
        batch_size, seconds: of the batch.
        steps: of each precision.

    Returns:
        {"rows": [{"operation", "fp32 ms", "bf16 ms", "fp32 / bf16", "share of bf16"}], the sum last}.

    Raises:
        ConfigError: no such preset.
    """
    model = build_model(name).train()
    batch = synthetic_batch(batch_size, seconds, torch.device("cpu"))
    with with_threads():
        for amp in (False, True):
            training_step(model, batch, amp)()  # warm-up
        found = [[milliseconds_by_kind(model, batch, amp) for amp in (False, True)] for _ in range(steps)]
    kinds = [kind for kind in (*KINDS, REST) if found[0][0][kind]]
    medians = {kind: [statistics.median(pair[i][kind] for pair in found) for i in (0, 1)] for kind in kinds}
    medians["sum"] = [sum(values[i] for values in medians.values()) for i in (0, 1)]
    rows = [
        {
            "operation": kind, "fp32 ms": first, "bf16 ms": second, "fp32 / bf16": first / second if second else None,
            "share of bf16": second / medians["sum"][1],
        }
        for kind, (first, second) in medians.items()
    ]  # fmt: skip
    return {"rows": rows}
