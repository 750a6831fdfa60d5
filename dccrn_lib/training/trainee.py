"""One network in training, whose step reads nothing on the host: it can be captured in a CUDA graph and replayed.

What the loop of ``dccrn_lib.training`` decides in Python after every step (is the loss finite, how far has the average
come, what were the terms) is decided here by arithmetic on the device; the host looks only when it logs. Between two
looks the queue of the device never drains.
"""

# torch's own optimisers call the _foreach functions; its stubs name them, but do not export them.
# pyright: reportPrivateImportUsage=false

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from dccrn_lib.distillation.freezing import freeze
from dccrn_lib.distillation.names import CACHED_METHODS
from dccrn_lib.distillation.taps import FeatureTap
from dccrn_lib.networks.weights import load_model, starting_model
from dccrn_lib.runtime.errors import ConfigError
from dccrn_lib.training.average import average_decay, copy_for_average, update_average
from dccrn_lib.training.batches import Batch
from dccrn_lib.training.config import TrainConfig
from dccrn_lib.training.inputs import input_hashes
from dccrn_lib.training.muon import Muon
from dccrn_lib.training.objective import BALANCED, Objective, autocast, buffers_of, build_muon, in_memory, put_back
from dccrn_lib.training.run_folder import Run
from dccrn_lib.training.step_outcomes import skipped_batch


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
        with torch.no_grad(), autocast(self.device, self.amp, cached=False):
            output = self.network(self.noisy)
        if self.output is None:
            self.output = output.clone()
            self.features = {name: value.clone() for name, value in self.tap.features.items()}
        assert self.output is not None
        self.output.copy_(output)
        for name, value in self.tap.features.items():
            self.features[name].copy_(value)


#: Steps after which the outcomes kept on the device are read, at the latest.
READ_WITHIN = 1000


class Trainee(OnStream):
    """A network with its loss, optimiser and averaged weights, on one batch that stays where it is.

    Args:
        config: method none, output, at or at_kl; optimiser muon or adam.
        noisy, clean: (batch, sample) on the device; new batches are copied into them.
        teacher: for methods that need one; it must have run once.
        graphs: capture the step on CUDA.

    Raises:
        ConfigError: another method.
    """

    def __init__(
        self, config: TrainConfig, noisy: Tensor, clean: Tensor, teacher: TeacherView | None, graphs: bool = True
    ) -> None:
        super().__init__(noisy.device, graphs)
        if config.method not in ("none", *CACHED_METHODS):
            raise ConfigError(f"a campaign trains the methods none, {', '.join(CACHED_METHODS)}, not {config.method}")
        torch.manual_seed(config.seed)
        self.config, self.teacher = config, teacher
        fresh = starting_model(config.model, config.init)
        self.model = in_memory(fresh.to(self.device).train(), config)
        # a copy that never computes gradients; its BatchNorm statistics are the model's
        self.average = freeze(copy_for_average(self.model)) if config.ema_decay else self.model
        network = teacher.network if teacher else None
        self.objective = Objective(config, self.model, self.device, network, cached=False)
        self.batches = self._micro_batches(noisy, clean)
        self.parameters = list(self.model.parameters())
        self.rates = torch.zeros(2, device=self.device)  # of matrices, of the rest
        self.decay = torch.zeros((), device=self.device)
        if config.optimiser == "muon":
            optimiser = build_muon(config, self.model, self.parameters)
        else:  # the same Adam, for all parameters
            optimiser = Muon(self.parameters, config.learning_rate, config.learning_rate)
            for group in optimiser.param_groups:
                group["kind"] = "adam"
        self.highest = (
            config.muon_learning_rate if config.optimiser == "muon" else config.learning_rate,
            config.learning_rate,
        )
        self.next_controls = (0.0, 0.0, 0)
        history = {"balance": {}, "train": [], "valid": [], "skipped": [], "seconds": 0.0}
        self.state = Run(self.model, self.average, self.objective.loss, optimiser, history, input_hashes(config))
        self._point_rates()
        self.names: list[str] = []
        self.sums = torch.zeros(0)
        self.good = torch.zeros((), device=self.device)
        # of the steps since the last reading: whether they were finite, and the place of the coming one
        self.fine = torch.ones(READ_WITHIN, dtype=torch.bool, device=self.device)
        self.place = torch.zeros(1, dtype=torch.int64, device=self.device)
        self.read_step = 0

    def _micro_batches(self, noisy: Tensor, clean: Tensor) -> list[Batch]:
        """The batch with the teacher's answer, in ``config.accumulation`` parts; views, which see every new batch."""
        parts, view = self.config.accumulation, self.teacher
        output = view.output.chunk(parts) if view is not None and view.output is not None else [None] * parts
        features = view.features if view is not None and self.objective.compares_features else {}
        cut = {name: value.chunk(parts) for name, value in features.items()}
        return [
            Batch(noisy_part, clean_part, target, {name: value[i] for name, value in cut.items()} or None)
            for i, (noisy_part, clean_part, target) in enumerate(
                zip(noisy.chunk(parts), clean.chunk(parts), output, strict=True)
            )
        ]

    def _point_rates(self) -> None:
        """The optimiser reads its rates from tensors that the host fills."""
        for group, rate in zip(self.state.optimiser.param_groups, self.rates, strict=True):
            group["lr"] = rate

    def control(self, factor: float) -> None:
        """Set the factor in [0, 1] on the highest learning rates for the coming step."""
        if self.state.step - self.read_step == READ_WITHIN:
            if self.stream is not None:
                self.stream.synchronize()
            self.settle()
        place = self.state.step - self.read_step
        self.next_controls = (factor, average_decay(self.state.step, self.config.ema_decay), place)

    def before(self) -> None:
        factor, decay, place = self.next_controls
        for rate, highest in zip(self.rates, self.highest, strict=True):
            rate.fill_(highest * factor)
        self.decay.fill_(decay)
        self.place.fill_(place)

    def terms(self) -> dict:
        """Forward pass and loss of the first micro-batch."""
        return self.objective.terms(self.model, self.batches[0])

    def balance(self) -> None:
        """Choose b of the feature term on the batch at hand; the network is left as it was."""
        if self.objective.compares_features:
            with torch.cuda.stream(self.stream):  # that of the steps, which are captured on it; none on a CPU
                self.state.history["balance"] = self.objective.balance(self.batches[0].first(BALANCED))

    def compute(self) -> None:
        """Forward, loss, backward, clip, step, average: every decision on the device."""
        for p in self.parameters:
            p.grad = None
        buffers = buffers_of(self.model)
        names, terms = self.objective.backward(self.model, self.batches)
        with torch.no_grad():
            gradients = [p.grad for p in self.parameters if p.grad is not None]
            norm = torch.stack(torch._foreach_norm(gradients)).square().sum().sqrt()
            fine = torch.isfinite(norm) & torch.isfinite(terms[names.index("total")])
            put_back(self.model, buffers, ~fine)
            # a batch without a finite gradient counts as one with none: momentum continues, nothing is poisoned
            shrink = (self.config.gradient_clip / (norm + 1e-6)).clamp(max=1.0)
            self._shrink_gradients(shrink, fine)
            self.state.optimiser.step()
            update_average(self.average, self.model, self.decay)
            self._note(names, terms, fine)

    def _shrink_gradients(self, shrink: Tensor, fine: Tensor) -> None:
        """Multiply all gradients, or set them to 0 where they were not finite.

        In one piece: as four small kernels for each parameter that was a third of all kernels of a step of Uformer.
        """
        sloped = [(p, p.grad) for p in self.parameters if p.grad is not None]
        flat = torch.where(fine, torch.cat([gradient.flatten() for _, gradient in sloped]) * shrink, 0.0)
        for (p, _), part in zip(sloped, flat.split([p.numel() for p, _ in sloped]), strict=True):
            p.grad = part.view_as(p)

    def _note(self, names: list[str], terms: Tensor, fine: Tensor) -> None:
        """Add the terms to sums on the device, and keep there whether they were finite."""
        if not self.names:
            self.names, self.sums = names, torch.zeros_like(terms)
        self.sums.add_(torch.where(fine, terms, 0.0))
        self.good.add_(fine)
        self.fine.index_copy_(0, self.place, fine[None])

    def settle(self) -> None:
        """Name the batches skipped since the last reading in ``history["skipped"]``; the device has done them."""
        for step, fine in enumerate(self.fine[: self.state.step - self.read_step].tolist(), self.read_step):
            if not fine:
                self.state.history["skipped"].append(skipped_batch(step, self.config))
        self.read_step = self.state.step

    def means(self) -> dict[str, float]:
        """Means of the terms since the last call, none where no batch was fine; the device has done all steps."""
        if not float(self.good):
            return {}
        means = dict(zip(self.names, (self.sums / max(float(self.good), 1.0)).tolist(), strict=True))
        for value in (self.sums, self.good):
            value.zero_()
        return means

    def noted(self) -> dict[str, Any]:
        """What a validation changes, for :meth:`put_back`."""
        history = {name: list(self.state.history[name]) for name in ("train", "valid")}
        return {"history": history, "best": self.state.best, "sums": self.sums.clone(), "good": self.good.clone()}

    def put_back(self, noted: Mapping[str, Any]) -> None:
        """As it was at :meth:`noted`."""
        self.state.history.update(noted["history"])
        self.state.best = noted["best"]
        self.sums.copy_(noted["sums"])
        self.good.copy_(noted["good"])

    def sums_so_far(self) -> dict[str, Any]:
        """What :meth:`means` would divide now, and the last learning rates, for a checkpoint."""
        return {"names": self.names, "sums": self.sums.cpu(), "good": self.good.cpu(), "rates": self.rates.cpu()}

    def restore(self, saved: dict, file: Path) -> None:
        """Resume from a state of :class:`Run` that lies in ``file``, and the sums since the last validation."""
        self.state.restore(saved, file)
        if kept := saved.get("means"):  # checkpoints of older versions have none
            self.names, self.sums = list(kept["names"]), kept["sums"].to(self.good.device)
            self.good.copy_(kept["good"])
            self.rates.copy_(kept.get("rates", self.rates))
        self.read_step = self.state.step
        self._point_rates()
