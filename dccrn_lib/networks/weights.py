"""Weights on disk: safetensors with a JSON card beside them, found by name or path."""

from __future__ import annotations

import dataclasses
import hashlib
import os
from pathlib import Path
from typing import Any, cast

import torch
from safetensors import SafetensorError
from safetensors.torch import load, save
from torch import Tensor, nn

from dccrn_lib.networks.dccrn import DCCRN, DCCRNConfig
from dccrn_lib.networks.presets import build_from_config, build_model, config_from_dict, config_to_dict, preset
from dccrn_lib.networks.uformer import Uformer, UformerConfig
from dccrn_lib.runtime.devices import require_device
from dccrn_lib.runtime.errors import ConfigError, WeightsError
from dccrn_lib.runtime.files import atomic_path
from dccrn_lib.runtime.json_text import parse_object, to_json
from dccrn_lib.runtime.paths import PathLike, weights_dir
from dccrn_lib.runtime.settings import article, shown

_USUAL = 512  # no size in the config of a shipped network is larger
#: What the keys of a card hold.
_CARD: dict[str, type] = {"config": dict, "sha256": str, "card": dict}


def save_model(model: nn.Module, path: str | Path, card: dict[str, Any] | None = None) -> Path:
    """Write ``<path>.safetensors`` and ``<path>.json`` (config, hash, card): both, or where one fails neither.

    Args:
        model: DCCRN or Uformer.
        path: with or without the suffix .safetensors.
        card: what a reader must know: data, licence, steps, cost, metrics, limits.

    Returns:
        Path of the safetensors file.
    """
    path = Path(path)
    base = path.with_suffix("") if path.suffix in (".safetensors", ".json") else path
    weights, config = base.parent / f"{base.name}.safetensors", base.parent / f"{base.name}.json"
    state = {k: v.detach().cpu().contiguous().clone() for k, v in model.state_dict().items()}
    data = save(state)
    record = {
        "config": config_to_dict(cast(Any, model).config),
        "sha256": hashlib.sha256(data).hexdigest(),
        "parameters": sum(p.numel() for p in model.parameters()),  # a frozen network has as many
        "card": card or {},
    }
    with atomic_path(weights) as temporary, atomic_path(config) as described:
        temporary.write_bytes(data)
        described.write_text(to_json(record), encoding="utf-8")
    return weights


def find_weights(name_or_path: PathLike) -> Path:
    """The safetensors file of a shipped name, a file, or a folder that holds exactly one.

    Raises:
        WeightsError: nothing there; the message lists the shipped names.
    """
    path = Path(name_or_path)
    try:
        os.stat(path)
    except FileNotFoundError:
        pass  # a shipped name, or without its suffix
    except (OSError, ValueError) as error:  # no permission, a name of thousands of letters or with a NUL
        reason = error.strerror if isinstance(error, OSError) else error
        raise WeightsError(
            f"no weights at {shown(str(name_or_path))} ({reason}); give a shipped name or a path"
        ) from None
    shipped = sorted(p.stem for p in weights_dir().glob("*.safetensors"))
    if str(name_or_path) in shipped:
        return weights_dir() / f"{name_or_path}.safetensors"
    if path.is_dir():
        files = sorted(path.glob("*.safetensors"))
        if len(files) != 1:
            raise WeightsError(f"{path}: expected one .safetensors file, found {len(files)}; name the file itself")
        return files[0]
    for candidate in (path, path.with_name(path.name + ".safetensors")):
        if candidate.is_file():
            return candidate.with_suffix(".safetensors") if candidate.suffix == ".json" else candidate
    raise WeightsError(
        f"no weights named or at {str(name_or_path)!r}; shipped: {', '.join(shipped) or 'none'}; "
        "or give the path of a .safetensors file: from weights/ of the repository, or written by training"
    )


def read_card(name_or_path: PathLike) -> dict[str, Any]:
    """The JSON beside the weights: config, sha256, parameters, card.

    Args:
        name_or_path: as for :func:`find_weights`.

    Raises:
        WeightsError: no weights there, no JSON beside them, or one that is not of a model.
    """
    weights = find_weights(name_or_path)
    config = weights.with_suffix(".json")
    if not config.is_file() and weights.suffix == ".pt":
        raise WeightsError(f"{weights}: a checkpoint, from which a training goes on; the weights are best.safetensors")
    if not config.is_file():
        raise WeightsError(f"{config}: missing; it holds the config of {weights.name} and is needed to load it")
    try:
        record = parse_object(config.read_text(encoding="utf-8"))
        for key, kind in _CARD.items():
            if not isinstance(record.get(key, kind()), kind):
                raise ValueError(f"{key} is {shown(record[key])}, not {article(kind.__name__)}")
        return {"config": record["config"], "sha256": record["sha256"], **record}
    except KeyError as error:
        raise WeightsError(
            f"{config}: not a model config (no {error}); restore it from where the weights came"
        ) from None
    except (OSError, ValueError) as error:
        raise WeightsError(f"{config}: not a model config ({error}); restore it from where the weights came") from None


def load_model(name_or_path: PathLike, device: str | torch.device = "cpu") -> DCCRN | Uformer:
    """A trained model in eval mode.

    Args:
        name_or_path: shipped name (weights/), a .safetensors file or a folder holding one.
        device: where to put it.

    Raises:
        WeightsError: not found, hash differs, corrupt, or tensors that do not fit the config.
        ConfigError: torch cannot compute on that device here.
    """
    device = require_device(device)
    record = read_card(name_or_path)
    path = find_weights(name_or_path)
    data = path.read_bytes()
    if hashlib.sha256(data).hexdigest() != record["sha256"]:
        raise WeightsError(f"{path}: the hash differs from {path.stem}.json; the file is corrupt or from another model")
    try:
        config, state = config_from_dict(record["config"]), load(data)
        _require_fit(config, state)
        model = build_from_config(config)
        model.load_state_dict(state)
    except (SafetensorError, RuntimeError, ConfigError, WeightsError, KeyError, TypeError, ValueError) as error:
        reason = str(error).splitlines()[0]
        raise WeightsError(
            f"{path}: does not fit its config ({reason}); use the pair that was saved together"
        ) from None
    return model.to(device).eval()


def mean_model(*names_or_paths: PathLike) -> DCCRN | Uformer:
    """The network whose weights are the mean of those of several trainings, in eval mode.

    Trainings that began at the same weights often lie in one valley of the loss, with their mean nearer to its bottom
    (Wortsman et al., *Model soups*, ICML 2022, arXiv 2203.05482). Nothing ensures it: score the mean on valid.

    Args:
        names_or_paths: of networks with one config, as for :func:`load_model`; running statistics are averaged, too.

    Raises:
        WeightsError: as :func:`load_model`.
        ConfigError: no networks are named, or one of them has another config.
    """
    if not names_or_paths:
        raise ConfigError("name the weights to average")
    models = [load_model(name) for name in names_or_paths]
    for name, model in zip(names_or_paths, models, strict=True):
        if model.config != models[0].config:
            raise ConfigError(f"{name} is another network than {names_or_paths[0]}: only equal configs can be averaged")
    states = [model.state_dict() for model in models]
    mean = {
        key: torch.stack([state[key] for state in states]).mean(0) if value.is_floating_point() else value
        for key, value in states[0].items()
    }
    models[0].load_state_dict(mean)
    return models[0]


def _require_fit(config: DCCRNConfig | UformerConfig, state: dict[str, Tensor]) -> None:
    """WeightsError unless the tensors are those of the config: compared by shape, before any memory is asked for."""
    if max(_sizes(dataclasses.asdict(config))) <= _USUAL:
        return  # no memory to speak of: loading compares the shapes itself
    with torch.device("meta"):
        wanted = build_from_config(config).state_dict()
    for name in sorted(wanted.keys() ^ state.keys()):
        raise WeightsError(f"the tensor {name} is {'missing' if name in wanted else 'not one of its network'}")
    for name, tensor in wanted.items():
        if tensor.shape != state[name].shape:
            raise WeightsError(f"{name} has the shape {tuple(state[name].shape)}, its network {tuple(tensor.shape)}")


def starting_model(name: str, init: str = "") -> DCCRN | Uformer:
    """The network that a training begins with.

    Args:
        name: its preset.
        init: weights to start from, a shipped name or a path; "" = fresh ones.

    Raises:
        ConfigError: the weights are of another network than the preset.
        WeightsError: as of :func:`load_model`.
    """
    if not init:
        return build_model(name)
    model = load_model(init)
    wanted, held = config_to_dict(preset(name)), config_to_dict(model.config)
    if wanted != held:
        differing = [key for key in wanted.keys() | held.keys() if wanted.get(key) != held.get(key)]
        raise ConfigError(
            f"init {init} holds another network than model {name} (they differ in {', '.join(sorted(differing)[:4])}); "
            "name the model that the weights are of, or leave init out"
        )
    return model


def _sizes(value: Any) -> list[int]:
    """The whole numbers in a config."""
    if isinstance(value, dict):
        value = list(value.values())
    if isinstance(value, list | tuple):
        return [size for part in value for size in _sizes(part)]
    return [value] if type(value) is int else []
