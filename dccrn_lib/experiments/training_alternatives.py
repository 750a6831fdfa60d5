"""What was tried to make a training step and its mixtures cheaper on a CPU, each against what it replaces.

    python -m dccrn_lib bench alternatives --json results/training_alternatives.json

Both sides of a row are timed in turns (a, b, a, b ...); the ratio is the median over the pairs. docs/performance.md says
what was expected and what was kept.
"""

from __future__ import annotations

import copy
import tempfile
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from dccrn_lib.corpus.rendering import render
from dccrn_lib.corpus.synthesis.corpus import generated_corpus
from dccrn_lib.distillation.attention import channel_attention
from dccrn_lib.experiments.data_speed import Mixer, mixer_of
from dccrn_lib.experiments.speed import time_in_turns
from dccrn_lib.experiments.training_speed import synthetic_batch
from dccrn_lib.losses import si_snr_loss
from dccrn_lib.networks.dropout import Dropout
from dccrn_lib.networks.presets import build_model
from dccrn_lib.networks.uformer.attention import attend
from dccrn_lib.runtime.devices import with_threads
from dccrn_lib.training.muon import is_matrix, newton_schulz, orthogonalise
from dccrn_lib.training.profiles import get_profile

Pair = tuple[str, Callable[[], Any], Callable[[], Any]]  # what, before, after


def _backward(work: Callable[[Tensor], Tensor], x: Tensor) -> Callable[[], None]:
    """Forward and backward pass of a function of one tensor."""
    x = x.clone().requires_grad_()
    direction = torch.randn_like(work(x))
    return lambda: work(x).backward(direction)


def layer_pairs() -> Iterator[Pair]:
    """Parts of a step at the sizes that they have in the full networks at 4 x 2 s."""
    torch.manual_seed(0)
    x = torch.randn(4, 4, 202, 256)
    for name, dtype in (("fp32", torch.float32), ("bf16", torch.bfloat16)):
        theirs, ours = nn.Dropout(0.1), Dropout(0.1)
        yield (
            f"dropout, {name}: PyTorch / 16 bits an element",
            _backward(theirs, x.to(dtype)),
            _backward(ours, x.to(dtype)),
        )
    for what, shape in (("202 frames", (16, 8, 202, 16)), ("4 frequencies", (808, 8, 4, 16))):
        q = torch.randn(shape, dtype=torch.bfloat16)
        before = _backward(lambda q: F.scaled_dot_product_attention(q, q, q), q)
        yield f"attention over {what}, bf16: as it comes / in float32", before, _backward(lambda q: attend(q, q, q), q)
    feature = torch.randn(4, 32, 128, 321, dtype=torch.bfloat16)
    before = _backward(lambda a: a.float().square().mean(dim=1), feature)
    yield "channel attention, bf16: autograd / one pass", before, _backward(channel_attention, feature)


def muon_pairs(quick: bool) -> Iterator[Pair]:
    """What Muon does to all matrices of a network, those of one shape together."""
    torch.manual_seed(0)
    for name in ("distil_dccrn_mini", "uformer_mini") if quick else ("distil_dccrn", "uformer"):
        parameters = [p for p in build_model(name).parameters() if is_matrix(p)]
        shapes = [(p.shape[0], p[0].numel()) for p in parameters]
        stacks = [torch.randn(n, min(shape), max(shape)) for shape, n in Counter(shapes).items()]
        stacks = [x / x.square().sum((-2, -1), keepdim=True).sqrt() for x in stacks]
        before = lambda stacks=stacks: [newton_schulz(x, 5) for x in stacks]  # noqa: E731
        after = lambda stacks=stacks: [orthogonalise(x) for x in stacks]  # noqa: E731
        yield f"Muon's matrices of {name}: as they are / wide ones through square ones", before, after


def training_step(model: nn.Module, batch: tuple[Tensor, Tensor], amp: bool) -> Callable[[], None]:
    """Forward and backward pass of a training step."""

    def step() -> None:
        model.zero_grad(set_to_none=True)
        with torch.autocast("cpu", torch.bfloat16, enabled=amp):
            estimate = model(batch[0])
        si_snr_loss(estimate.float(), batch[1]).backward()

    return step


def step_pairs(quick: bool) -> Iterator[Pair]:
    """Whole steps: precision, and the order of channels in memory."""
    batch = synthetic_batch(1 if quick else 4, 0.5 if quick else 2.0, torch.device("cpu"))
    for name in ("distil_dccrn_mini", "uformer_mini") if quick else ("distil_dccrn", "dccrn_e", "uformer"):
        model = build_model(name).train()
        yield f"step of {name}: fp32 / bf16", training_step(model, batch, False), training_step(model, batch, True)
        # torch's stubs lack this form of ``to``
        last = copy.deepcopy(model).to(memory_format=torch.channels_last)  # pyright: ignore[reportCallIssue]
        for precision, amp in (("fp32", False), ("bf16", True)):
            what = f"step of {name}, {precision}: channels first / last in memory"
            yield what, training_step(model, batch, amp), training_step(last, batch, amp)


def mixture_pairs(mixer: Mixer) -> Iterator[Pair]:
    """A batch of mixtures, rendered one after the other and together."""
    plans = mixer.plans()

    def one_by_one() -> None:
        for plan in plans:
            render(plan, mixer.dataset.recordings)

    yield f"{len(plans)} mixtures on the CPU: one by one / together", one_by_one, lambda: mixer.render(plans)


def measure_alternatives(quick: bool = False, progress: bool = True) -> dict[str, Any]:
    """Time all pairs on one thread.

    Args:
        quick: miniatures and one repetition: shows that it runs.
        progress: print a line for every pair.

    Returns:
        {"rows": [{"measurement": what is first / second, "first ms", "second ms", "ratio": of the times, first / second}]}.
    """
    rows = []
    made = generated_corpus(0.05, progress=progress)
    corpus = {"speech": str(made.speech), "noise": str(made.noise), "rir": str(made.rir)}
    with tempfile.TemporaryDirectory() as folder, with_threads():
        mixer = mixer_of(corpus, get_profile("smoke" if quick else "cpu"), Path(folder), torch.device("cpu"))
        for source, repeats in (
            (mixture_pairs(mixer), 9),
            (layer_pairs(), 9),
            (muon_pairs(quick), 5),
            (step_pairs(quick), 3),
        ):
            for what, before, after in source:
                first, second, ratio = time_in_turns(before, after, 1 if quick else repeats)
                row = {"measurement": what, "first ms": first * 1e3, "second ms": second * 1e3, "ratio": 1 / ratio}
                rows.append(row)
                if progress:
                    print(f"{what}: {first * 1e3:.1f} / {second * 1e3:.1f} ms, ratio {1 / ratio:.2f}", flush=True)
    return {"rows": rows}
