"""Models by name: presets, and construction from a preset or a config."""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING, Any

from dccrn_lib.audio.stft_config import STFTConfig
from dccrn_lib.networks.configs import DCCRNConfig, UformerConfig
from dccrn_lib.runtime.errors import ConfigError, WeightsError, nearest_name
from dccrn_lib.runtime.settings import shown

if TYPE_CHECKING:
    from dccrn_lib.networks.dccrn import DCCRN
    from dccrn_lib.networks.uformer import Uformer

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
        channels=(1, 2, 4, 8, 16, 16, 16),
        conformer_hidden=16,
        attention_hidden=8,
        dilated_channels=8,
        dropout=0.0,  # a mini model underfits as it is
    ),
    "dccrn_e_lookahead0": DCCRNConfig(decoder_lookahead=0),
    "distil_dccrn_lookahead0": dataclasses.replace(_STUDENT, decoder_lookahead=0),
}
#: Family -> its config.
_CONFIGS: dict[str, type[DCCRNConfig] | type[UformerConfig]] = {c.family: c for c in (DCCRNConfig, UformerConfig)}


def preset(name: str) -> DCCRNConfig | UformerConfig:
    """The config of that name; ConfigError names the nearest one."""
    if name not in PRESETS:
        raise ConfigError(f"unknown model {name!r}; {nearest_name(name, list(PRESETS))}")
    return PRESETS[name]


def build_model(name: str, **overrides: Any) -> DCCRN | Uformer:
    """A freshly initialised model.

    Args:
        name: a key of :data:`PRESETS`.
        overrides: fields of its config, e.g. ``mask="C"``.

    Raises:
        ConfigError: unknown name or field (the message names the nearest one), or a value out of range.

    >>> from dccrn_lib import count_parameters
    >>> count_parameters(build_model("distil_dccrn"))
    1126413
    """
    config = preset(name)
    fields = [f.name for f in dataclasses.fields(config)]
    for key in overrides:
        if key not in fields:
            raise ConfigError(f"model {name} has no option {key!r}; {nearest_name(key, fields)}")
    return build_from_config(dataclasses.replace(config, **overrides))


def build_from_config(config: DCCRNConfig | UformerConfig) -> DCCRN | Uformer:
    """A freshly initialised model from its config.

    Raises:
        ConfigError: not a config of a known family.
    """
    # here, not above: presets are read without torch, which takes seconds to import
    from dccrn_lib.networks.dccrn import DCCRN
    from dccrn_lib.networks.uformer import Uformer

    if isinstance(config, DCCRNConfig):
        return DCCRN(config)
    if isinstance(config, UformerConfig):
        return Uformer(config)
    raise ConfigError(f"expected a DCCRNConfig or UformerConfig, got {type(config).__name__}")


def config_to_dict(config: DCCRNConfig | UformerConfig) -> dict[str, Any]:
    """JSON-ready form of a config: {"family": "dccrn" | "uformer", field: value, ...}."""
    return {"family": config.family, **dataclasses.asdict(config)}


def config_from_dict(record: dict[str, Any]) -> DCCRNConfig | UformerConfig:
    """Inverse of :func:`config_to_dict`.

    Raises:
        WeightsError: an unknown family or key, or a value of another kind than the field's.
        ConfigError: a value out of range.
    """
    if not isinstance(record, dict):
        raise WeightsError(f"the model's config must be an object, found {shown(record)}")
    record = dict(record)
    family = record.pop("family", None)
    if not isinstance(family, str) or family not in _CONFIGS:
        raise WeightsError(f"unknown model family {shown(family)}; known: {', '.join(_CONFIGS)}")
    config_class: Any = _CONFIGS[family]
    if "stft" in record:
        record["stft"] = STFTConfig(**_values(STFTConfig(), record["stft"]))
    return config_class(**_values(config_class(), record))


def _values(like: Any, record: Any) -> dict[str, Any]:
    """The values of a JSON object for the fields of a dataclass: each of the kind that it has in ``like``."""
    if not isinstance(record, dict):
        raise WeightsError(f"the model's config holds {shown(record)} where an object is wanted")
    fields = {f.name for f in dataclasses.fields(like)}
    if set(record) - fields:
        raise WeightsError(f"unknown key in the model's config: {', '.join(sorted(set(record) - fields))[:80]}")
    values = {}
    for name, value in record.items():
        default = getattr(like, name)
        given = tuple(value) if isinstance(value, list) else value
        whole = float(given) if isinstance(default, float) and type(given) is int and abs(given) < 2**53 else given
        parts = whole if isinstance(default, tuple) and isinstance(whole, tuple) else ()
        if type(whole) is not type(default) or any(type(part) is not int for part in parts):
            raise WeightsError(f"{name} of the model's config is {shown(value)}, which is not like {shown(default)}")
        values[name] = whole
    return values
