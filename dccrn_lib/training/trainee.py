"""One network in training, whose step reads nothing on the host: it can be captured in a CUDA graph and replayed.

What the loop of ``dccrn_lib.training`` decides in Python after every step (is the loss finite, how far has the average
come, what were the terms) is decided here by arithmetic on the device; the host looks only when it logs. Between two
looks the queue of the device never drains.
"""

# torch's own optimisers call the _foreach functions; its stubs name them, but do not export them.
# pyright: reportPrivateImportUsage=false

from __future__ import annotations

import copy
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from dccrn_lib.distillation.freezing import freeze
from dccrn_lib.distillation.taps import FeatureTap
from dccrn_lib.distillation.teacher import CACHED_METHODS
from dccrn_lib.networks.weights import load_model, starting_model
from dccrn_lib.runtime.errors import ConfigError
from dccrn_lib.training.config import TrainConfig
from dccrn_lib.training.muon import Muon
from dccrn_lib.training.objective import build_loss, in_memory
from dccrn_lib.training.run_folder import Run

TERMS = ("total", "clean", "teacher", "features")


def autocast(device: torch.device, enabled: bool) -> torch.autocast:
    """bfloat16 for the layers. Cast weights are not cached: a graph must cast them anew at every replay."""
    return torch.autocast(device.type, torch.bfloat16, enabled=enabled, cache_enabled=False)


class OnStream:
    """Work on a stream of its own: eager at first, then one captured graph; on a CPU plain calls."""

    def __init__(self, device: torch.device, graphs: bool) -> None:
        self.device = device
        self.cuda = device.type == "cuda"
        self.graphs = graphs and self.cuda
        self.stream = torch.cuda.Stream(device) if self.cuda else None
        self.done: Any = torch.cuda.Event() if self.cuda else None  # read on CUDA only
        self.graph: torch.cuda.CUDAGraph | None = None
        self.calls = 0

    def compute(self) -> None:
        """The work, on tensors that stay where they are."""
        raise NotImplementedError

    def run(self, after: Sequence[torch.cuda.Event] = ()) -> None:
        """Do the work once, after these events; ``done`` marks its end."""
        if not self.cuda:
            self.before()
            self.compute()
            self.calls += 1
            return
        if self.graphs and self.graph is None and self.calls == WARM_CALLS:
            torch.cuda.synchronize(self.device)
            self.graph = torch.cuda.CUDAGraph()
            # other threads (the one that pins batches) keep running meanwhile
            with torch.cuda.graph(self.graph, stream=self.stream, capture_error_mode="thread_local"):
                self.compute()
        assert self.stream is not None
        with torch.cuda.stream(self.stream):
            for event in after:
                self.stream.wait_event(event)
            self.before()
            if self.graph is not None:
                self.graph.replay()
            else:
                self.compute()
            self.done.record(self.stream)
        self.calls += 1

    def before(self) -> None:
        """What changes from call to call, on the stream of the work."""


#: Eager calls before the capture: libraries choose their kernels and make their plans in these.
WARM_CALLS = 4


class TeacherView(OnStream):
    """The frozen teacher on one batch: ``output`` (batch, sample) and ``features``, in tensors that stay."""

    def __init__(self, weights: str, noisy: Tensor, amp: bool, graphs: bool) -> None:
        super().__init__(noisy.device, graphs)
        self.network = freeze(load_model(weights, noisy.device))
        self.tap = FeatureTap(self.network)
        self.noisy, self.amp = noisy, amp
        self.output: Tensor | None = None
        self.features: dict[str, Tensor] = {}

    def compute(self) -> None:
        with torch.no_grad(), autocast(self.device, self.amp):
            output = self.network(self.noisy)
        if self.output is None:
            self.output = output.clone()
            self.features = {name: value.clone() for name, value in self.tap.features.items()}
        assert self.output is not None
        self.output.copy_(output)
        for name, value in self.tap.features.items():
            self.features[name].copy_(value)


class Trainee(OnStream):
    """A network with its loss, optimiser and averaged weights, on one batch that stays where it is.

    Args:
        config: method none, output, at or at_kl; optimiser muon or adam.
        noisy, clean: (batch, sample) on the device; new batches are copied into them.
        teacher: for methods that need one; it must have run once.
        graphs: capture the step on CUDA.
    """

    def __init__(
        self, config: TrainConfig, noisy: Tensor, clean: Tensor, teacher: TeacherView | None, graphs: bool = True
    ) -> None:
        super().__init__(noisy.device, graphs)
        if config.method not in ("none", *CACHED_METHODS):
            raise ConfigError(f"a campaign trains the methods none, {', '.join(CACHED_METHODS)}, not {config.method}")
        torch.manual_seed(config.seed)
        self.config, self.noisy, self.clean, self.teacher = config, noisy, clean, teacher
        fresh = starting_model(config.model, config.init)
        self.model = in_memory(fresh.to(self.device).train(), config)
        # a copy that never computes gradients; its BatchNorm statistics are the model's
        self.average = freeze(copy.deepcopy(self.model)) if config.ema_decay else self.model
        self.loss = build_loss(config, self.model, teacher.network if teacher else None)
        self.tap = FeatureTap(self.model) if self.loss.feature_loss is not None else None
        self.parameters = list(self.model.parameters())
        self.rates = torch.zeros(2, device=self.device)  # of matrices, of the rest
        self.decay = torch.zeros((), device=self.device)
        if config.optimiser == "muon":
            optimiser = Muon(self.parameters, config.muon_learning_rate, config.learning_rate)
        else:  # the same Adam, for all parameters
            optimiser = Muon(self.parameters, config.learning_rate, config.learning_rate)
            for group in optimiser.param_groups:
                group["kind"] = "adam"
        self.highest = (
            config.muon_learning_rate if config.optimiser == "muon" else config.learning_rate,
            config.learning_rate,
        )
        self.next_controls = (0.0, 0.0)
        history = {"balance": {}, "train": [], "valid": [], "skipped": 0, "seconds": 0.0}
        self.state = Run(self.model, self.average, self.loss, optimiser, history)
        self._point_rates()
        self.names: list[str] = []
        self.sums = torch.zeros(0)
        self.good = torch.zeros((), device=self.device)
        self.bad = torch.zeros((), device=self.device)

    def _point_rates(self) -> None:
        """The optimiser reads its rates from tensors that the host fills."""
        for group, rate in zip(self.state.optimiser.param_groups, self.rates, strict=True):
            group["lr"] = rate

    def control(self, factor: float) -> None:
        """Set the factor in [0, 1] on the highest learning rates for the coming step."""
        step = self.state.step
        self.next_controls = (factor, min(self.config.ema_decay, (1 + step) / (10 + step)))

    def before(self) -> None:
        factor, decay = self.next_controls
        for rate, highest in zip(self.rates, self.highest, strict=True):
            rate.fill_(highest * factor)
        self.decay.fill_(decay)

    def terms(self) -> dict:
        """Forward pass and loss of the batch."""
        with autocast(self.device, self.config.amp):
            estimate = self.model(self.noisy)
        output, features = (self.teacher.output, self.teacher.features) if self.teacher else (None, None)
        return self.loss(estimate.float(), self.clean, output, self.tap.features if self.tap else None, features)

    def balance(self) -> None:
        """Choose b of the feature term on the batch at hand; the network is left as it was."""
        if self.loss.feature_loss is None or self.loss.feature_weight is not None:
            return
        buffers = [b.clone() for b in self.model.buffers()]
        found = self.terms()
        a = self.loss.output_weight
        waveform = (1 - a) * found["clean"] + a * found["teacher"]
        self.state.history["balance"] = self.loss.balance(
            self.parameters, waveform, found["features"], self.config.feature_share
        )
        for buffer, value in zip(self.model.buffers(), buffers, strict=True):
            buffer.copy_(value)

    def compute(self) -> None:
        """Forward, loss, backward, clip, step, average: every decision on the device."""
        for p in self.parameters:
            p.grad = None
        found = self.terms()
        found["total"].backward()
        with torch.no_grad():
            gradients = [p.grad for p in self.parameters if p.grad is not None]
            norm = torch.stack(torch._foreach_norm(gradients)).square().sum().sqrt()
            fine = torch.isfinite(norm) & torch.isfinite(found["total"])
            # a batch without a finite gradient counts as one with none: momentum continues, nothing is poisoned
            shrink = (self.config.gradient_clip / (norm + 1e-6)).clamp(max=1.0)
            for gradient in gradients:
                gradient.copy_(torch.where(fine, gradient * shrink, 0.0))
            self.state.optimiser.step()
            self._update_average()
            self._note(found, fine)

    def _update_average(self) -> None:
        if self.average is self.model:
            return
        averages: list[Tensor] = list(self.average.parameters())
        values: list[Tensor] = list(self.parameters)
        torch._foreach_mul_(averages, self.decay)
        torch._foreach_add_(averages, torch._foreach_mul(values, 1 - self.decay))
        pairs = [(a, b) for a, b in zip(self.average.buffers(), self.model.buffers(), strict=True)]
        statistics = [(a, b) for a, b in pairs if a.is_floating_point()]
        if statistics:
            torch._foreach_copy_([a for a, _ in statistics], [b for _, b in statistics])

    def _note(self, found: Mapping, fine: Tensor) -> None:
        """Add the terms to sums on the device."""
        values = {k: found[k] for k in TERMS if k in found}
        values |= {f"layer {name}": value for name, value in found.get("layers", {}).items()}
        if not self.names:
            self.names, self.sums = list(values), torch.zeros(len(values), device=self.device)
        stacked = torch.stack([v.detach().float() for v in values.values()])
        self.sums.add_(torch.where(fine, stacked, 0.0))
        self.good.add_(fine)
        self.bad.add_(~fine)

    def means(self) -> dict[str, float]:
        """Means of the terms since the last call; waits for the device. ``history["skipped"]`` counts bad batches."""
        good = float(self.good)
        found = dict(zip(self.names, (self.sums / max(good, 1.0)).tolist(), strict=True))
        self.state.history["skipped"] += int(self.bad)
        for value in (self.sums, self.good, self.bad):
            value.zero_()
        return found

    def restore(self, saved: dict, file: Path) -> None:
        """Resume from a state of :class:`Run` that lies in ``file``."""
        self.state.restore(saved, file)
        self._point_rates()

    def finished_average(self) -> nn.Module:
        """The averaged network in eval mode, ready to be saved."""
        for a, b in zip(self.average.buffers(), self.model.buffers(), strict=True):
            a.copy_(b)
        return self.average.eval()
