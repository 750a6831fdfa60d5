"""What a network is trained on: the loss of a batch, with the frozen teacher that answers first where there is one."""

from __future__ import annotations

import contextlib
import dataclasses
from collections.abc import Iterable
from typing import Any, cast

import torch
from torch import Tensor, nn

from dccrn_lib.distillation.at_kl import AttentionTransferKL
from dccrn_lib.distillation.loss import METHODS, DistillationLoss
from dccrn_lib.distillation.taps import FeatureTap
from dccrn_lib.distillation.teacher import CachedTeacher, Teacher, file_digest
from dccrn_lib.losses import WaveformLoss
from dccrn_lib.networks.weights import load_model
from dccrn_lib.training.batches import Batch
from dccrn_lib.training.config import TrainConfig
from dccrn_lib.training.muon import Muon, lstm_parameters

#: Mixtures on which the weight of the feature term is chosen.
BALANCED = 4


def build_loss(config: TrainConfig, model: nn.Module, teacher: nn.Module | None) -> DistillationLoss:
    """The loss that a config asks for, between these two networks."""
    options = {}
    method = METHODS[config.method]
    if method is not None:
        options = {"student_stft": cast(Any, model).config.stft, "teacher_stft": cast(Any, teacher).config.stft}
        if issubclass(method, AttentionTransferKL):
            options |= {"reading": config.reading, "normalisation": config.normalisation}
    waveform = WaveformLoss(config.level_weight, config.spectral_weight)
    return DistillationLoss(config.method, config.output_weight, config.feature_weight or None, waveform, **options)


def build_optimiser(config: TrainConfig, model: nn.Module, parameters: list[nn.Parameter]) -> torch.optim.Optimizer:
    """The optimiser that a config asks for, at its highest rates; ``model``, of the parameters, says what is an LSTM."""
    if config.optimiser == "muon":
        return build_muon(config, model, parameters)
    return torch.optim.Adam(parameters, lr=config.learning_rate, fused=True)


def build_muon(config: TrainConfig, model: nn.Module, parameters: list[nn.Parameter]) -> Muon:
    """Muon with the settings of a config, see :func:`build_optimiser`."""
    return Muon(
        parameters,
        config.muon_learning_rate,
        config.learning_rate,
        weight_decay=config.muon_weight_decay,
        to_adam=() if config.muon_lstm else lstm_parameters(model),
    )


def in_memory(model: nn.Module, config: TrainConfig) -> nn.Module:
    """The model with its weights in the order that a config asks for; it computes the same up to rounding."""
    # of the kernels of convolutions; torch's stubs lack this form of ``to``
    return model.to(memory_format=torch.channels_last) if config.channels_last else model  # pyright: ignore[reportCallIssue]


def build_teacher(config: TrainConfig, network: nn.Module | None, tapped: bool) -> Teacher | None:
    """The teacher as the config wants it: none, live, or from disk where it has answered before."""
    if network is None or not config.teacher_cache:
        return Teacher(network, tapped) if network is not None else None
    key = {"seed": config.seed, "amp": config.amp, "mix": dataclasses.asdict(config.mix)}
    key |= {kind: file_digest(getattr(config, kind)) for kind in ("speech", "noise", "rir")}
    return CachedTeacher(network, tapped, config.teacher_cache, key)


def autocast(device: torch.device, enabled: bool, cached: bool = True) -> torch.autocast:
    """bfloat16 for the layers. A CUDA graph must cast the weights anew at every replay: not ``cached``."""
    return torch.autocast(device.type, torch.bfloat16, enabled=enabled, cache_enabled=cached)


def named_terms(terms: dict) -> tuple[list[str], Tensor]:
    """Names and values of the terms, and of the distance of each tapped layer: (names, float64 (term,))."""
    values = {k: terms[k] for k in ("total", "clean", "teacher", "features") if k in terms}
    values |= {f"layer {name}": value for name, value in terms.get("layers", {}).items()}
    stacked = torch.stack([value.detach() for value in values.values()])
    return list(values), stacked if stacked.device.type == "mps" else stacked.double()


def buffers_of(model: nn.Module) -> dict[str, Tensor]:
    """A copy of the buffers (BatchNorm statistics) by name, for :func:`put_back`."""
    return {name: value.clone() for name, value in model.named_buffers()}


@torch.no_grad()
def put_back(model: nn.Module, buffers: dict[str, Tensor], where: Tensor | None = None) -> None:
    """The buffers as they were; with ``where``, bool (), only if that is true on the device."""
    for name, value in model.named_buffers():
        value.copy_(buffers[name] if where is None else torch.where(where, buffers[name], value))


class Objective:
    """From a mixture to the terms of the loss: the teacher answers, the network answers, the loss compares.

    Args:
        config: method, weights of the terms, teacher and precision.
        model: the network to be trained; its layers are watched where the method compares features.
        device: where the network is.
        teacher: the config's teacher, where its answers come with the batches; None loads it, to answer in :meth:`batch`.
        cached: see :func:`autocast`.
    """

    def __init__(
        self,
        config: TrainConfig,
        model: nn.Module,
        device: torch.device,
        teacher: nn.Module | None = None,
        cached: bool = True,
    ) -> None:
        self.config, self.model, self.device, self.cached = config, model, device, cached
        answers = teacher is None and config.method != "none"
        network = load_model(config.teacher, device) if answers else teacher
        self.loss = build_loss(config, model, network)
        self.compares_features = self.loss.feature_loss is not None
        self.tap = FeatureTap(model) if self.compares_features else None
        self.teacher = build_teacher(config, network, self.compares_features) if answers else None

    def autocast(self) -> torch.autocast:
        """bfloat16 for the layers, if the config wants it."""
        return autocast(self.device, self.config.amp, self.cached)

    def batch(self, mixtures: dict) -> Batch:
        """Mixtures as the data loader collates them -> a batch on the device, with the teacher's answer."""
        noisy, clean = (mixtures[key].to(self.device, non_blocking=True) for key in ("noisy", "clean"))
        if self.teacher is None:
            return Batch(noisy, clean)
        with self.autocast():
            return Batch(noisy, clean, *self.teacher(noisy, mixtures["id"]))

    def terms(self, network: nn.Module, batch: Batch) -> dict:
        """Forward pass of ``network`` (the model, or the model wrapped) and all terms of the loss.

        Returns:
            {"total", "clean", ["teacher"], ["features", "layers": {name: scalar}]}, graph attached.
        """
        with self.autocast():
            estimate = network(batch.noisy)
        features = self.tap.features if self.tap else None
        return self.loss(estimate, batch.clean, batch.target, features, batch.teacher_features)

    def backward(self, network: nn.Module, batches: Iterable[Batch]) -> tuple[list[str], Tensor]:
        """Forward and backward over the ``config.accumulation`` micro-batches of a step; gradients add up to their mean.

        Args:
            network: as for :meth:`terms`; of several ranks, which exchange gradients in the last micro-batch only.
            batches: the micro-batches.

        Returns:
            Names and means of the terms over the micro-batches: (names, float64 (term,)).
        """
        count, names = self.config.accumulation, []
        means: Tensor | float = 0.0
        for number, batch in enumerate(batches, 1):
            several = isinstance(network, nn.parallel.DistributedDataParallel)
            with network.no_sync() if several and number < count else contextlib.nullcontext():
                terms = self.terms(network, batch)
                (terms["total"] / count).backward()
            names, values = named_terms(terms)
            means = means + values / count
        return names, cast(Tensor, means)

    def balance(self, batch: Batch) -> dict[str, float]:
        """Build adapters and choose b on a batch; the model is left as it was.

        Returns:
            {"waveform_norm", "feature_norm", "feature_weight"}, see :meth:`DistillationLoss.balance`.
        """
        loss, buffers = self.loss, buffers_of(self.model)
        assert loss.feature_loss is not None and self.tap is not None and batch.teacher_features is not None
        with self.autocast():
            self.model(batch.noisy)
        loss.feature_loss.prepare(self.tap.features, batch.teacher_features)
        terms = self.terms(self.model, batch)
        # (1 - a) L(student, clean) + a L(student, teacher)
        a = loss.output_weight
        waveform = (1 - a) * terms["clean"] + a * terms["teacher"]
        balance = loss.balance(list(self.model.parameters()), waveform, terms["features"], self.config.feature_share)
        put_back(self.model, buffers)
        self.tap.features.clear()  # they keep this graph alive, and with it the stream on which its gradients gather
        return balance

    def close(self) -> None:
        """Remove the hooks from both networks."""
        for watched in (self.tap, self.teacher):
            if watched is not None:
                watched.close()
