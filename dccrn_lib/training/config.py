"""The configuration of a training run.

A field says itself, in its metadata, whether its value decides the outcome: not at all (``_WHERE``), only by what the
files it names hold (``_CONTENTS``), or so that a run may still be resumed with another value (``_MAY_CHANGE``). All
others decide, and a run is resumed only with the same value.
"""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass, field
from typing import Any

from dccrn_lib.corpus.mix_config import MixConfig
from dccrn_lib.distillation.names import CACHED_METHODS, METHOD_NAMES
from dccrn_lib.networks.presets import preset
from dccrn_lib.runtime.errors import ConfigError, nearest_name
from dccrn_lib.runtime.settings import (
    LARGEST_COUNT,
    LARGEST_SEED,
    Interval,
    require_flags,
    require_intervals,
    require_whole,
)

OPTIMISERS = ("adam", "muon")
RENDERING = ("auto", "workers", "device")

_RATE, _WEIGHT, _COUNT = Interval(0, 1e20, above=True), Interval(0, 1e9), Interval(0, LARGEST_COUNT)
#: What the numbers may be.
_INTERVALS = {
    **dict.fromkeys(("learning_rate", "muon_learning_rate"), _RATE),
    **dict.fromkeys(("gradient_clip", "checkpoint_minutes"), Interval(0, 1e9, above=True)),
    **dict.fromkeys(("feature_weight", "feature_share", "level_weight", "spectral_weight"), _WEIGHT),
    **dict.fromkeys(("steps", "batch_size", "accumulation"), _COUNT),
    **dict.fromkeys(("valid_every", "valid_mixtures", "epoch_mixtures", "warmup_steps", "max_bad_batches"), _COUNT),
    **dict.fromkeys(("output_weight", "decay_fraction"), Interval(0, 1)),
    "muon_weight_decay": Interval(0, 1e9),
    "ema_decay": Interval(0, 1, below=True),
    "seed": Interval(0, LARGEST_SEED),
    "workers": Interval(0, 1024),
}

_WHERE = {"decides": False}  # where and how a run computes: the outcome is the same, up to rounding
_CONTENTS = {"decides": "contents"}  # names of files: what they hold decides, not where they lie
_MAY_CHANGE = {"may_change": True}  # decides, and may differ when a run is resumed
_ALONE = {"alone": True}  # read where a network is trained on its own (``train``), not side by side with others


@dataclass(frozen=True)
class TrainConfig:
    """The settings of a run: what decides its outcome, and where and how it computes.

    Args:
        out: folder of the run.
        speech: manifests of clean speech, joined by commas; their train and valid splits are used.
        noise: manifests of noise, joined by commas; their train and valid splits are used.
        rir: manifests of room impulse responses, joined by commas; "" = no rooms.
        model: preset to train.
        init: weights to start from ("" = fresh), a shipped name or a path.
        method: distillation method: none, output, at_kl ... (``dccrn_lib.distillation.loss.METHODS``).
        teacher: weights of the teacher (shipped name or path); needed unless method is "none".
        reading: of AT-KL's attention maps, over "frequency" or "time_frequency".
        normalisation: of AT-KL's attention maps, "sum" or "softmax".
        output_weight: a, weight of the teacher's waveform against the clean one, in [0, 1].
        feature_weight: b, weight of the feature term; 0 = chosen at the start so that its gradient norm is
            ``feature_share`` of the waveform terms'.
        feature_share: gradient norm of the feature term at the start, as a fraction of the waveform terms', when
            ``feature_weight`` is 0.
        level_weight: weight of the level term (gain and polarity); 0 = the paper's loss.
        spectral_weight: weight of the compressed spectral loss; 0 = the paper's loss.
        steps: optimiser steps.
        batch_size: global batch size: mixtures per optimiser step, summed over the ranks.
        accumulation: micro-batches per step (gradient accumulation), to save memory.
        optimiser: "adam", or "muon" (see ``dccrn_lib.training.muon``).
        learning_rate: of Adam, after ``warmup_steps`` of linear rise; it falls linearly to 2 % over the last
            ``decay_fraction`` of the steps.
        muon_learning_rate: of the matrices under Muon, with the same rise and fall; the rest takes ``learning_rate``.
        muon_weight_decay: of the matrices under Muon: each step first shortens them by this fraction of its rate.
        muon_lstm: whether Muon takes the matrices of LSTMs, too; Adam does otherwise.
        warmup_steps: steps in which the learning rate rises linearly.
        decay_fraction: last fraction of the steps, in which the learning rate falls.
        gradient_clip: largest gradient norm.
        ema_decay: of the averaged weights that are validated and saved; 0 = none.
        amp: bfloat16 autocast for the layers; STFT, masks and losses stay float32. Without effect on a CPU that only
            emulates bfloat16: config.json then says false.
        device: "cpu", "cuda" or "auto".
        seed: of fresh weights and of the mixtures.
        workers: data loader processes that mix, per rank.
        rendering: where mixtures are computed from their plans: by the "workers" on the CPU, on the training "device" from
            a corpus held there, or "auto": on a GPU whose memory takes the corpus, else by the workers.
        epoch_mixtures: mixtures per epoch.
        repeat_epoch: every epoch brings the mixtures of the first one instead of new ones.
        valid_every: steps between validations.
        valid_mixtures: fixed mixtures of the valid split.
        checkpoint_minutes: minutes between checkpoints.
        max_bad_batches: consecutive steps with a loss or gradient that is not finite before the run stops.
        compile: torch.compile the network.
        channels_last: keep the channels of convolutions last in memory, which some devices compute faster.
        sync_batch_norm: BatchNorm sees the whole batch when several ranks share it; without, each rank normalises by
            its own part, and the number of ranks changes what is learnt.
        teacher_cache: folder that keeps the teacher's answers from epoch to epoch ("" = it runs in every step); for
            ``repeat_epoch`` with the methods output, at and at_kl.
        tensorboard: also write the scalars of the history for TensorBoard (an extra), into ``out``/tensorboard.
        mix: how mixtures are drawn.
    """

    out: str = field(metadata=_WHERE)
    speech: str = field(metadata=_CONTENTS)
    noise: str = field(metadata=_CONTENTS)
    rir: str = field(default="", metadata=_CONTENTS)
    model: str = "distil_dccrn"
    init: str = ""
    method: str = "none"
    teacher: str = field(default="", metadata=_CONTENTS)
    reading: str = "frequency"
    normalisation: str = "sum"
    output_weight: float = 0.5
    feature_weight: float = 0.0
    feature_share: float = 0.1
    level_weight: float = 1.0
    spectral_weight: float = 0.0
    steps: int = field(default=1000, metadata=_MAY_CHANGE)
    batch_size: int = 8
    accumulation: int = field(default=1, metadata=_MAY_CHANGE)
    optimiser: str = "adam"
    learning_rate: float = 1e-3
    muon_learning_rate: float = 0.01
    muon_weight_decay: float = 0.0
    muon_lstm: bool = True
    warmup_steps: int = 100
    decay_fraction: float = 0.3
    gradient_clip: float = 5.0
    ema_decay: float = 0.0
    amp: bool = field(default=False, metadata=_MAY_CHANGE)
    device: str = field(default="cpu", metadata=_WHERE)
    seed: int = 0
    workers: int = field(default=0, metadata=_WHERE)
    rendering: str = field(default="auto", metadata=_WHERE)
    epoch_mixtures: int = 2000
    repeat_epoch: bool = False
    valid_every: int = field(default=200, metadata=_MAY_CHANGE | _ALONE)
    valid_mixtures: int = 16
    checkpoint_minutes: float = field(default=5.0, metadata=_WHERE)
    max_bad_batches: int = field(default=10, metadata=_ALONE)
    compile: bool = field(default=False, metadata=_WHERE | _ALONE)
    channels_last: bool = field(default=False, metadata=_WHERE)
    sync_batch_norm: bool = field(default=True, metadata=_ALONE)
    teacher_cache: str = field(default="", metadata=_WHERE | _ALONE)
    tensorboard: bool = field(default=False, metadata=_WHERE | _ALONE)
    mix: MixConfig = field(default_factory=MixConfig)

    def __post_init__(self) -> None:
        preset(self.model)  # ConfigError if there is none of that name
        if self.method not in METHOD_NAMES:
            raise ConfigError(
                f"unknown distillation method {self.method!r}; {nearest_name(self.method, list(METHOD_NAMES))}"
            )
        if self.optimiser not in OPTIMISERS:
            raise ConfigError(f"unknown optimiser {self.optimiser!r}; {nearest_name(self.optimiser, list(OPTIMISERS))}")
        if self.rendering not in RENDERING:
            raise ConfigError(f"unknown rendering {self.rendering!r}; {nearest_name(self.rendering, list(RENDERING))}")
        if self.method != "none" and not self.teacher:
            raise ConfigError(f"method {self.method} needs a teacher: give the name or path of its weights")
        require_whole(self, *(f.name for f in dataclasses.fields(self) if f.type == "int"))
        for name in ("steps", "batch_size", "accumulation", "valid_every", "valid_mixtures", "epoch_mixtures"):
            if getattr(self, name) < 1:
                raise ConfigError(f"{name} must be at least 1, got {getattr(self, name)}")
        require_intervals(self, _INTERVALS)
        require_flags(self, *(f.name for f in dataclasses.fields(self) if f.type == "bool"))
        if self.muon_weight_decay * self.muon_learning_rate > 1:
            raise ConfigError(
                f"muon_weight_decay {self.muon_weight_decay} x muon_learning_rate {self.muon_learning_rate} must be at "
                "most 1: a step would take more than the weights"
            )
        if self.batch_size % self.accumulation:
            raise ConfigError(f"batch_size {self.batch_size} must be a multiple of accumulation {self.accumulation}")
        if self.teacher_cache and not self.repeat_epoch:
            raise ConfigError("teacher_cache needs repeat_epoch: without, no mixture comes twice")
        if self.teacher_cache and self.method not in CACHED_METHODS:
            raise ConfigError(f"teacher_cache serves the methods {', '.join(CACHED_METHODS)}, not {self.method}")

    def deciding(self) -> dict[str, Any]:
        """The fields whose values decide the outcome, as in ``config.json``."""
        names = {f.name for f in dataclasses.fields(self) if f.metadata.get("decides", True) is True}
        return {name: value for name, value in dataclasses.asdict(self).items() if name in names}


#: Fields that may differ when a run is resumed.
MAY_CHANGE = {
    f.name
    for f in dataclasses.fields(TrainConfig)
    if not f.metadata.get("decides", True) or f.metadata.get("may_change")
}

#: Fields that name files whose contents decide: a run whose checkpoint holds their hashes takes them from elsewhere.
CONTENTS = {f.name for f in dataclasses.fields(TrainConfig) if f.metadata.get("decides") == "contents"}

#: Fields that ``campaign`` and others that train networks side by side do not honour.
ALONE_ONLY = tuple(f.name for f in dataclasses.fields(TrainConfig) if f.metadata.get("alone"))
