"""What a network is trained on: the loss of a batch, with the frozen teacher that answers first where there is one."""

from __future__ import annotations

import dataclasses
from typing import Any, cast

import torch
from torch import nn
from torch.utils.data import Dataset, default_collate

from dccrn_lib.distillation.loss import METHODS, DistillationLoss
from dccrn_lib.distillation.taps import FeatureTap
from dccrn_lib.distillation.teacher import CachedTeacher, Teacher, file_digest
from dccrn_lib.losses import WaveformLoss
from dccrn_lib.networks.weights import load_model
from dccrn_lib.training.batches import Batch
from dccrn_lib.training.config import TrainConfig
from dccrn_lib.training.muon import Muon


def build_loss(config: TrainConfig, model: nn.Module, teacher: nn.Module | None) -> DistillationLoss:
    """The loss that a config asks for, between these two networks."""
    options = {}
    if METHODS[config.method] is not None:
        options = {"student_stft": cast(Any, model).config.stft, "teacher_stft": cast(Any, teacher).config.stft}
        if config.method == "at_kl":
            options |= {"reading": config.reading, "normalisation": config.normalisation}
    waveform = WaveformLoss(config.level_weight, config.spectral_weight)
    return DistillationLoss(config.method, config.output_weight, config.feature_weight or None, waveform, **options)


def build_optimiser(config: TrainConfig, parameters: list[nn.Parameter]) -> torch.optim.Optimizer:
    """The optimiser that a config asks for, at its highest rates."""
    if config.optimiser == "muon":
        return Muon(parameters, config.muon_learning_rate, config.learning_rate)
    return torch.optim.Adam(parameters, lr=config.learning_rate, fused=True)


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


class Objective:
    """From a mixture to the terms of the loss: the teacher answers, the network answers, the loss compares.

    Args:
        config: method, weights of the terms, teacher and precision.
        model: the network to be trained; its layers are watched where the method compares features.
        device: where the network is.
    """

    def __init__(self, config: TrainConfig, model: nn.Module, device: torch.device) -> None:
        self.config, self.model, self.device = config, model, device
        teacher = load_model(config.teacher, device) if config.method != "none" else None
        self.loss = build_loss(config, model, teacher)
        self.compares_features = self.loss.feature_loss is not None
        self.tap = FeatureTap(model) if self.compares_features else None
        self.teacher = build_teacher(config, teacher, self.compares_features)

    def autocast(self) -> torch.autocast:
        """bfloat16 for the layers, if the config wants it."""
        return torch.autocast(self.device.type, torch.bfloat16, enabled=self.config.amp)

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

    def balance(self, dataset: Dataset) -> dict[str, float]:
        """Build adapters and choose b on the first mixtures, the same on every rank; the model is left as it was."""
        config, loss = self.config, self.loss
        count = min(config.batch_size // config.accumulation, 4)
        batch = self.batch(default_collate([dataset[i] for i in range(count)]))
        buffers = {name: value.clone() for name, value in self.model.named_buffers()}
        with self.autocast():
            self.model(batch.noisy)
        assert loss.feature_loss is not None and self.tap is not None and batch.teacher_features is not None
        loss.feature_loss.prepare(self.tap.features, batch.teacher_features)
        terms = self.terms(self.model, batch)
        # (1 - a) L(student, clean) + a L(student, teacher)
        a = loss.output_weight
        waveform = (1 - a) * terms["clean"] + a * terms["teacher"]
        balance = loss.balance(list(self.model.parameters()), waveform, terms["features"], config.feature_share)
        for name, value in self.model.named_buffers():
            value.copy_(buffers[name])
        torch.manual_seed(config.seed)
        return balance

    def close(self) -> None:
        """Remove the hooks from both networks."""
        for watched in (self.tap, self.teacher):
            if watched is not None:
                watched.close()
