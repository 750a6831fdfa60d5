"""Checkpoints of the authors' code, loaded into our models.

Every tensor of ours is one tensor of theirs under another name, or several joined (running statistics of the
complex BatchNorm; projections of Uformer's complex attention). The tables below are the whole translation.

Source: parameter names as they appear in checkpoints of huyanxin/DeepComplexCRN (Apache-2.0) and of
felixfuyihui/Uformer (16 kHz version of June 2022).
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from dccrn_lib.audio.stft import STFTConfig
from dccrn_lib.networks.dccrn import DCCRN, DCCRNConfig
from dccrn_lib.networks.uformer import Uformer, UformerConfig
from dccrn_lib.networks.uformer.attention import IMAG_ROWS, REAL_ROWS
from dccrn_lib.runtime.errors import ConfigError, WeightsError, nearest_name
from dccrn_lib.runtime.settings import shown

IGNORED = ("stft.", "istft.")  # their Fourier matrices and windows: constants, not learned
DATA_PARALLEL = "module."

DCCRN_CONFIG = ("masking_mode", "use_clstm", "use_cbn", "rnn_units", "kernel_num", "rnn_layers") + (
    "win_len",
    "win_inc",
    "fft_len",
    "win_type",
    "kernel_size",
)
UFORMER_CONFIG = ("kernel_num", "conformer", "attention_hidden", "dsconv_channels", "win_len", "win_inc", "fft_len")


def load_authors_dccrn(state_dict: Mapping[str, Any], **config: Any) -> DCCRN:
    """Build a DCCRN from a checkpoint of the authors' code.

    Args:
        state_dict: their parameter names -> tensors or numpy arrays. A leading ``module.`` and their constant
            STFT matrices are ignored.
        config: their argument names: masking_mode ("E"), use_clstm (False), use_cbn (False), rnn_units (256),
            kernel_num ((16, 32, 64, 128, 256, 256)), rnn_layers (2), win_len (400), win_inc (100), fft_len
            (512), win_type ("hann"), kernel_size (5); in brackets what is taken if one is left out.

    Returns:
        Our model in eval mode with their weights.

    Raises:
        ConfigError: an unknown argument, or a value our model has no counterpart for.
        WeightsError: a name is missing, not known, of another shape or holds no tensor (the message names it), or a whole
            checkpoint instead of its weights.
    """
    _check_names(config, DCCRN_CONFIG)
    if config.get("kernel_size", 5) != 5:
        raise ConfigError(f"kernel_size must be 5, as in every published DCCRN, got {config['kernel_size']}")
    if config.get("win_type", "hann") not in ("hann", "hanning"):
        raise ConfigError(f"win_type must be hann, as in every published DCCRN, got {config['win_type']!r}")
    for name in ("use_clstm", "use_cbn"):
        if not isinstance(config.get(name, False), bool):
            raise ConfigError(f"{name} must be True or False, got {shown(config[name])}")
    model = DCCRN(
        DCCRNConfig(
            channels=_counts("kernel_num", config.get("kernel_num", DCCRNConfig.channels)),
            rnn_units=config.get("rnn_units", 256),
            rnn_layers=config.get("rnn_layers", 2),
            lstm="complex" if config.get("use_clstm", False) else "real",
            norm="complex_batch" if config.get("use_cbn", False) else "batch",
            mask=config.get("masking_mode", "E"),
            stft=STFTConfig(config.get("win_len", 400), config.get("win_inc", 100), config.get("fft_len", 512)),
        )
    )
    return _fill(model, state_dict, _authors_dccrn_names)


def load_authors_uformer(state_dict: Mapping[str, Any], **config: Any) -> Uformer:
    """Build a Uformer from a checkpoint of the authors' code.

    Args:
        state_dict: their parameter names -> tensors or numpy arrays. A leading ``module.`` and their constant
            STFT matrices are ignored.
        config: kernel_num ((1, 8, 16, 32, 64, 128, 128)), conformer (channels, feed-forward hidden: (128,
            64)), attention_hidden (16), dsconv_channels (32), win_len (400), win_inc (160), fft_len (512).

    Returns:
        Our model in eval mode with their weights.

    Raises:
        ConfigError: an unknown argument, or channels of encoder and conformer that do not meet.
        WeightsError: a name is missing, not known, of another shape or holds no tensor (the message names it), or a whole
            checkpoint instead of its weights.
    """
    _check_names(config, UFORMER_CONFIG)
    channels = _counts("kernel_num", config.get("kernel_num", UformerConfig.channels))
    conformer = _counts("conformer", config.get("conformer", (channels[-1], 64)))
    if len(conformer) != 2:
        raise ConfigError(f"conformer wants (channels, feed-forward hidden), as (128, 64), got {conformer}")
    conformer_channels, conformer_hidden = conformer
    if conformer_channels != channels[-1]:
        raise ConfigError(f"conformer channels {conformer_channels} must equal the last of kernel_num {channels}")
    model = Uformer(
        UformerConfig(
            channels=channels,
            conformer_hidden=conformer_hidden,
            attention_hidden=config.get("attention_hidden", 16),
            dilated_channels=config.get("dsconv_channels", 32),
            stft=STFTConfig(
                config.get("win_len", 400), config.get("win_inc", 160), config.get("fft_len", 512), "sqrt_hann"
            ),
        )
    )
    return _fill(model, state_dict, _authors_uformer_names)


def _check_names(config: Mapping[str, Any], known: Sequence[str]) -> None:
    for name in config:
        if name not in known:
            raise ConfigError(f"unknown argument {name!r} of the authors' model; {nearest_name(name, list(known))}")


def _counts(name: str, value: Any) -> tuple[int, ...]:
    if not isinstance(value, tuple | list) or not value or any(type(part) is not int for part in value):
        raise ConfigError(f"{name} wants whole numbers, as (16, 32), got {shown(value)}")
    return tuple(value)


def _translate(name: str, table: Sequence[tuple[str, str]]) -> str:
    for pattern, replacement in table:
        name = re.sub(pattern, replacement, name)
    return name


# Regular expressions over our names, applied one after the other: (pattern, replacement).
DCCRN_NAMES = [
    (r"^((?:en|de)coder\.\d+)\.conv\.(weight|bias)_(real|imag)$", r"\1.0.\3_conv.\2"),
    (r"^((?:en|de)coder\.\d+)\.norm\.weight_(rr|ri|ii)$", r"\1.1.W\2"),
    (r"^((?:en|de)coder\.\d+)\.norm\.bias_(r|i)(?:eal|mag)$", r"\1.1.B\2"),
    (r"^((?:en|de)coder\.\d+)\.norm\.", r"\1.1."),
    (r"^((?:en|de)coder\.\d+)\.act\.", r"\1.2."),
    (r"^bottleneck\.lstm\.(\d+)\.lstm_(real|imag)\.", r"enhance.\1.\2_lstm."),  # complex LSTM
    (r"^bottleneck\.lstm\.", "enhance."),  # real LSTM
    (r"^bottleneck\.project\.", "tranform."),  # their spelling
]


def _authors_dccrn_names(ours: str, model: nn.Module) -> list[str]:
    """Their names of one tensor of ours; several are joined along the first axis."""
    assert isinstance(model, DCCRN)
    complex_norm = model.config.norm == "complex_batch"
    if complex_norm and ours.endswith(".norm.running_mean"):
        return [_translate(ours.replace("running_mean", key), DCCRN_NAMES) for key in ("RMr", "RMi")]
    if complex_norm and ours.endswith(".norm.running_cov"):
        return [_translate(ours.replace("running_cov", key), DCCRN_NAMES) for key in ("RVrr", "RVri", "RVii")]
    last = model.config.rnn_layers - 1  # their projections belong to the last LSTM layer
    table = [*DCCRN_NAMES, (r"^bottleneck\.project_(r|i)(?:eal|mag)\.", rf"enhance.{last}.\1_trans.")]
    return [_translate(ours, table)]


UFORMER_NAMES = [
    # encoder and decoder: one list of layers per stream
    (r"^((?:en|de)coder)\.(\d+)\.complex_conv\.(weight|bias)_(real|imag)$", r"\1.\2.0.\4_conv.\3"),
    (r"^((?:en|de)coder)\.(\d+)\.complex_activation\.0\.", r"\1.\2.1."),
    (r"^((?:en|de)coder)\.(\d+)\.complex_activation\.1\.", r"\1.\2.2."),
    (r"^((?:en|de)coder)\.(\d+)\.magnitude_conv\.", r"\1_real.\2.0.conv."),
    (r"^((?:en|de)coder)\.(\d+)\.magnitude_activation\.0\.", r"\1_real.\2.1."),
    (r"^((?:en|de)coder)\.(\d+)\.magnitude_activation\.1\.", r"\1_real.\2.2."),
    # conformer: stages of each stream
    (r"^conformer\.complex_stages\.0\.", "conformer.ff1_cplx."),
    (r"^conformer\.magnitude_stages\.0\.", "conformer.ff1_mag."),
    (r"^conformer\.complex_stages\.1\.", "conformer.cplx_tatt."),
    (r"^conformer\.magnitude_stages\.1\.", "conformer.mag_tatt."),
    (r"^conformer\.complex_stages\.2\.", "conformer.cplx_fatt."),
    (r"^conformer\.magnitude_stages\.2\.", "conformer.mag_fatt."),
    *((rf"^conformer\.complex_stages\.{k + 3}\.", f"conformer.dsconv_cplx.{k}.") for k in range(8)),
    *((rf"^conformer\.magnitude_stages\.{k + 3}\.", f"conformer.dsconv_real.{k}.") for k in range(8)),
    (r"^conformer\.complex_stages\.11\.", "conformer.ff2_cplx."),
    (r"^conformer\.magnitude_stages\.11\.", "conformer.ff2_mag."),
    (r"^conformer\.complex_norm\.", "conformer.ln_conformer_cplx."),
    (r"^conformer\.magnitude_norm\.", "conformer.ln_conformer_mag."),
    # feed-forward
    (r"(ff\d_\w+)\.norm\.", r"\1.layernorm_linear."),
    (r"(ff\d_\w+)\.expand\.", r"\1.linear1."),
    (r"(ff\d_\w+)\.contract\.", r"\1.linear2."),
    # attention
    (r"att\.norm_in\.", "att.attn_heads.0.layernorm1."),
    (r"att\.norm_head\.", "att.attn_heads.0.layernorm2."),
    (r"att\.norm_out\.", "att.layernorm3."),
    (r"att\.linear\.", "att.transform_linear."),
    (r"mag_tatt\.head\.(query|key|value)\.", r"mag_tatt.attn_heads.0.T_att.\1.linear."),
    (r"mag_fatt\.head\.(query|key|value)\.", r"mag_fatt.attn_heads.0.F_att.\1.linear."),
    # dilated blocks
    (r"(dsconv_\w+\.\d)\.norm_in\.", r"\1.layernorm_conv1."),
    (r"(dsconv_\w+\.\d)\.norm_gated\.", r"\1.layernorm_conv2."),
    (r"(dsconv_\w+\.\d)\.reduce\.", r"\1.conv1x1."),
    (r"(dsconv_\w+\.\d)\.dilated\.", r"\1.dconv1."),
    (r"(dsconv_\w+\.\d)\.gate\.", r"\1.dconv2."),
    (r"(dsconv_\w+\.\d)\.restore\.", r"\1.sconv."),
    # the module inside their wrappers
    (r"((?:ff\d_cplx|cplx_[tf]att)\.\w+)\.(weight|bias)_(real|imag)$", r"\1.\3_linear.\2"),
    (r"(ff\d_mag\.linear\d|mag_[tf]att\.transform_linear)\.", r"\1.linear."),
    (r"(dsconv_cplx\.\d\.\w+)\.(weight|bias)_(real|imag)$", r"\1.\3_conv.\2"),
    (r"(dsconv_real\.\d\.(?:conv1x1|dconv\d|sconv))\.", r"\1.conv."),
    (r"^(conformer\..*)\.activation\.", r"\1.prelu."),
]


def _authors_uformer_names(ours: str, model: nn.Module) -> list[str]:
    """Their names of one tensor of ours; several are joined along the first axis."""
    theirs = _translate(ours, UFORMER_NAMES)
    head = re.match(r"^conformer\.cplx_(t|f)att\.head\.from_(real|imag)\.(weight|bias)$", theirs)
    if head:
        axis, part, kind = head.groups()
        prefix = f"conformer.cplx_{axis}att.attn_heads.0.{axis.upper()}_att"
        every = [f"{prefix}{i + 1}.{role}.linear.{kind}" for role in ("query", "key", "value") for i in range(8)]
        return [every[row] for row in (REAL_ROWS if part == "real" else IMAG_ROWS)]
    return [theirs]


def _fill(model: Any, state_dict: Mapping[str, Any], names_of: Callable[[str, nn.Module], list[str]]) -> Any:
    """Copy their tensors into ``model`` by name; every name must be used once and every shape must fit."""
    theirs = _tensors(state_dict)
    ours, used = {}, set()
    for name, target in model.state_dict().items():
        sources = names_of(name, model)
        pieces = [_take(theirs, source, _piece_shape(target, len(sources))).flatten() for source in sources]
        ours[name] = torch.cat(pieces).reshape(target.shape).to(target.dtype)
        used.update(sources)
    for name in theirs:
        if name not in used:
            raise WeightsError(f"unknown name {name!r} in the checkpoint; does the configuration fit it?")
    model.load_state_dict(ours)
    return model.eval()


def _tensors(state_dict: Mapping[str, Any]) -> dict[str, Tensor]:
    """Their learned tensors by name, without the prefix of DataParallel."""
    if not isinstance(state_dict, Mapping):
        raise WeightsError(f"a mapping from names to tensors is wanted, got {type(state_dict).__name__}")
    inner = [name for name, value in state_dict.items() if isinstance(value, Mapping)]
    if inner:  # a whole checkpoint: epoch, optimiser and, under one of its names, the weights
        names = ", ".join(f"[{name!r}]" for name in inner)
        raise WeightsError(f"this is a checkpoint around the weights; give what holds them, one of its {names}")
    theirs = {}
    for name, value in state_dict.items():
        name = str(name).removeprefix(DATA_PARALLEL)
        if not name.startswith(IGNORED):
            try:
                theirs[name] = value if isinstance(value, Tensor) else torch.as_tensor(value)
            except (TypeError, ValueError, RuntimeError):
                raise WeightsError(f"{name!r} is no tensor but {type(value).__name__}") from None
    return theirs


def _piece_shape(target: Tensor, pieces: int) -> tuple[int, ...]:
    """Shape of one of ``pieces`` equal parts along the first axis of ``target``; one row loses its axis."""
    shape = tuple(target.shape)
    if pieces == 1:
        return shape
    rows = shape[0] // pieces
    return (rows, *shape[1:]) if rows > 1 else shape[1:]


def _take(theirs: Mapping[str, Tensor], name: str, shape: tuple[int, ...]) -> Tensor:
    if name not in theirs:
        raise WeightsError(f"{name!r} is missing in the checkpoint; does the configuration fit it?")
    their_shape = tuple(theirs[name].shape)
    # A 1 x 1 convolution is a linear map; one row may keep its axis.
    if their_shape not in (shape, (*shape, 1, 1), (1, *shape)):
        raise WeightsError(f"{name!r} has shape {their_shape}, the configuration needs {shape}")
    return theirs[name]
