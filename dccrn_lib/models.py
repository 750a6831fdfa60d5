"""Models by name: presets, construction, weights on disk, size and cost."""

from __future__ import annotations

import dataclasses
import hashlib
import json
from pathlib import Path

import torch
from torch import nn

from dccrn_lib.complex_nn import ComplexConv2d, ComplexConvTranspose2d
from dccrn_lib.dccrn import DCCRN, DCCRNConfig
from dccrn_lib.errors import ConfigError, WeightsError, nearest_name
from dccrn_lib.paths import atomic_path, weights_dir
from dccrn_lib.stft import STFTConfig
from dccrn_lib.uformer import Uformer, UformerConfig

_STUDENT = DCCRNConfig(channels=(16, 32, 64, 128, 128, 128), rnn_units=192, lstm="complex")
_MINI = DCCRNConfig(channels=(4, 8, 16, 16, 16, 16), rnn_units=64, lstm="complex")

#: Name -> config. The student's sizes are our reading of the paper; the *_mini models are for quick runs only.
PRESETS: dict[str, DCCRNConfig | UformerConfig] = {
    "dccrn_e": DCCRNConfig(),
    "dccrn_cl": DCCRNConfig(channels=(32, 64, 128, 256, 256, 256), lstm="complex"),
    "distil_dccrn": _STUDENT,
    "distil_dccrn_wide": dataclasses.replace(_STUDENT, channels=(32, 64, 128, 128, 128, 128), rnn_units=112),
    "uformer": UformerConfig(),
    "distil_dccrn_mini": _MINI,
    "uformer_mini": UformerConfig(
        channels=(1, 2, 4, 8, 16, 16, 16), conformer_hidden=16, attention_hidden=8, dilated_channels=8,
        dropout=0.0,  # a mini model underfits as it is
    ),
    "dccrn_e_lookahead0": DCCRNConfig(decoder_lookahead=0),
    "distil_dccrn_lookahead0": dataclasses.replace(_STUDENT, decoder_lookahead=0),
}
_CLASSES = {"dccrn": (DCCRNConfig, DCCRN), "uformer": (UformerConfig, Uformer)}


def build_model(name: str, **overrides) -> DCCRN | Uformer:
    """A freshly initialised model.

    Args:
        name: a key of :data:`PRESETS`.
        overrides: fields of its config, e.g. ``mask="C"``.

    Raises:
        ConfigError: unknown name or field (the message names the nearest one), or a value out of range.

    >>> count_parameters(build_model("distil_dccrn"))
    1126413
    """
    if name not in PRESETS:
        raise ConfigError(f"unknown model {name!r}; {nearest_name(name, list(PRESETS))}")
    config = PRESETS[name]
    fields = [f.name for f in dataclasses.fields(config)]
    for key in overrides:
        if key not in fields:
            raise ConfigError(f"model {name} has no option {key!r}; {nearest_name(key, fields)}")
    return build_from_config(dataclasses.replace(config, **overrides))


def build_from_config(config: DCCRNConfig | UformerConfig) -> DCCRN | Uformer:
    """A freshly initialised model from its config."""
    for config_class, model_class in _CLASSES.values():
        if isinstance(config, config_class):
            return model_class(config)
    raise ConfigError(f"expected a DCCRNConfig or UformerConfig, got {type(config).__name__}")


def config_to_dict(config: DCCRNConfig | UformerConfig) -> dict:
    """JSON-ready form of a config: {"family": "dccrn" | "uformer", field: value, ...}."""
    family = next(name for name, (kind, _) in _CLASSES.items() if isinstance(config, kind))
    return {"family": family, **dataclasses.asdict(config)}


def config_from_dict(record: dict) -> DCCRNConfig | UformerConfig:
    """Inverse of :func:`config_to_dict`; WeightsError on an unknown family or key."""
    record = dict(record)
    family = record.pop("family", None)
    if family not in _CLASSES:
        raise WeightsError(f"unknown model family {family!r}; known: {', '.join(_CLASSES)}")
    config_class = _CLASSES[family][0]
    fields = {f.name for f in dataclasses.fields(config_class)}
    if set(record) - fields:
        raise WeightsError(f"unknown key in the model's config: {', '.join(sorted(set(record) - fields))}")
    if "stft" in record:
        record["stft"] = STFTConfig(**record["stft"])
    return config_class(**{k: tuple(v) if isinstance(v, list) else v for k, v in record.items()})


def save_model(model: nn.Module, path: str | Path, card: dict | None = None) -> Path:
    """Write ``<path>.safetensors`` and ``<path>.json`` (config, hash, card), each atomically.

    Args:
        model: DCCRN or Uformer.
        path: with or without the suffix .safetensors.
        card: what a reader must know: data, licence, steps, cost, metrics, limits.

    Returns:
        Path of the safetensors file.
    """
    from safetensors.torch import save_file

    path = Path(path)
    base = path.with_suffix("") if path.suffix in (".safetensors", ".json") else path
    weights, config = base.parent / f"{base.name}.safetensors", base.parent / f"{base.name}.json"
    state = {k: v.detach().cpu().contiguous().clone() for k, v in model.state_dict().items()}
    with atomic_path(weights) as temporary:
        save_file(state, str(temporary))
    record = {
        "config": config_to_dict(model.config),
        "sha256": hashlib.sha256(weights.read_bytes()).hexdigest(),
        "parameters": count_parameters(model),
        "card": card or {},
    }
    with atomic_path(config) as temporary:
        temporary.write_text(json.dumps(record, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
    return weights


def find_weights(name_or_path: str | Path) -> Path:
    """The safetensors file of a shipped name, a file, or a folder that holds exactly one.

    Raises:
        WeightsError: nothing there; the message lists the shipped names.
    """
    path = Path(name_or_path)
    shipped = sorted(p.stem for p in weights_dir().glob("*.safetensors"))
    if str(name_or_path) in shipped:
        return weights_dir() / f"{name_or_path}.safetensors"
    if path.is_dir():
        found = sorted(path.glob("*.safetensors"))
        if len(found) != 1:
            raise WeightsError(f"{path}: expected one .safetensors file, found {len(found)}; name the file itself")
        return found[0]
    for candidate in (path, path.with_name(path.name + ".safetensors")):
        if candidate.is_file():
            return candidate.with_suffix(".safetensors") if candidate.suffix == ".json" else candidate
    raise WeightsError(
        f"no weights named or at {str(name_or_path)!r}; shipped: {', '.join(shipped) or 'none'}; "
        "or give the path of a .safetensors file written by training"
    )


def read_card(name_or_path: str | Path) -> dict:
    """The JSON beside the weights: config, sha256, parameters, card."""
    weights = find_weights(name_or_path)
    config = weights.with_suffix(".json")
    if not config.is_file():
        raise WeightsError(f"{config}: missing; it holds the config of {weights.name} and is needed to load it")
    try:
        record = json.loads(config.read_text(encoding="utf-8"))
        return {"config": record["config"], "sha256": record["sha256"], **record}
    except (json.JSONDecodeError, UnicodeDecodeError, KeyError, TypeError) as error:
        raise WeightsError(f"{config}: not a model config ({error}); restore it from where the weights came") from None


def load_model(name_or_path: str | Path, device: str | torch.device = "cpu") -> DCCRN | Uformer:
    """A trained model in eval mode.

    Args:
        name_or_path: shipped name (weights/), a .safetensors file or a folder holding one.
        device: where to put it.

    Raises:
        WeightsError: not found, hash differs, corrupt, or tensors that do not fit the config.
    """
    from safetensors import SafetensorError
    from safetensors.torch import load

    record = read_card(name_or_path)
    path = find_weights(name_or_path)
    data = path.read_bytes()
    if hashlib.sha256(data).hexdigest() != record["sha256"]:
        raise WeightsError(f"{path}: the hash differs from {path.stem}.json; the file is corrupt or from another model")
    try:
        model = build_from_config(config_from_dict(record["config"]))
        model.load_state_dict(load(data))
    except (SafetensorError, RuntimeError, TypeError) as error:
        reason = str(error).splitlines()[0]
        raise WeightsError(f"{path}: does not fit its config ({reason}); use the pair that was saved together") from None
    return model.to(device).eval()


def count_parameters(model: nn.Module) -> int:
    """Number of trainable numbers."""
    return sum(p.numel() for p in model.parameters() if p.requires_grad)


def count_macs(model: nn.Module, seconds: float = 1.0, by_layer: bool = False) -> int | dict[str, int]:
    """Real multiply-accumulates of convolutions, linear layers and LSTMs for ``seconds`` of audio at 16 kHz.

    "Transposed convolutions at their input positions": each input position of a transposed convolution counts once.
    Counters that take its output positions count every product stride times (the much quoted 14.4 G of DCCRN-CL).
    Products between activations (attention, masks), norms and activations are not counted. The rate is taken from
    the hop: 16000 / hop frames a second.

    Args:
        model: DCCRN or Uformer, or any module made of their layers.
        seconds: of audio.
        by_layer: return {module name: MACs} instead of the sum.
    """
    counts: dict[str, int] = {}
    handles = []

    def watch(name: str, module: nn.Module) -> None:
        def hook(_module, inputs, output):
            x = inputs[0]
            y = output[0] if isinstance(output, tuple) else output
            if isinstance(module, (ComplexConv2d, nn.Conv1d, nn.Conv2d)):
                weight = module.block_weight() if isinstance(module, ComplexConv2d) else module.weight
                macs = weight[0].numel() * y.numel()
            elif isinstance(module, (ComplexConvTranspose2d, nn.ConvTranspose2d)):
                complex_ = isinstance(module, ComplexConvTranspose2d)
                weight = module.block_weight() if complex_ else module.weight
                macs = weight[0].numel() * x.numel()
            elif isinstance(module, nn.LSTM):
                rows = x.numel() // x.shape[-1]
                macs = rows * sum(p.numel() for n, p in module.named_parameters() if n.startswith("weight"))
            elif hasattr(module, "weight_real"):  # complex linear: (wr, wi) applied to (re, im)
                macs = 4 * module.weight_real.numel() * (x.numel() // x.shape[-1])
            else:
                macs = module.weight.numel() * (x.numel() // x.shape[-1])
            counts[name] = counts.get(name, 0) + macs

        handles.append(module.register_forward_hook(hook))

    from dccrn_lib.complex_nn import ComplexLinear

    kinds = (
        ComplexConv2d, ComplexConvTranspose2d, ComplexLinear,
        nn.Conv1d, nn.Conv2d, nn.ConvTranspose2d, nn.LSTM, nn.Linear,
    )  # fmt: skip
    for name, module in model.named_modules():
        if isinstance(module, kinds):
            watch(name, module)
    stft = model.config.stft
    frames = 160
    training = model.training
    device = next(model.parameters()).device
    try:
        with torch.no_grad():
            spectrum = torch.randn(1, stft.fft_size // 2 + 1, frames, dtype=torch.complex64, device=device)
            model.eval().enhance_spectrum(spectrum)
    finally:
        model.train(training)
        for handle in handles:
            handle.remove()
    scale = seconds * 16000 / stft.hop_length / frames
    scaled = {name: round(n * scale) for name, n in counts.items()}
    return scaled if by_layer else sum(scaled.values())
