"""Lesson 04's browser of layer pairs: attention maps of all systems, their distributions, and the KL."""

from __future__ import annotations

import html

import ipywidgets
from matplotlib.figure import Figure
from torch import Tensor

from dccrn_lib.audio.stft import STFTConfig
from dccrn_lib.distillation.attention import NORMALISATIONS, channel_attention, kl_divergence, log_distribution
from dccrn_lib.lessons.attention_transfer import figures as attention_transfer
from dccrn_lib.lessons.panels import png
from dccrn_lib.lessons.plotting import LABELS
from dccrn_lib.runtime.errors import ConfigError, nearest_name

Features = dict[str, dict[str, Tensor]]


def layer_distributions(
    features: Features, layer: str, normalisation: str = "sum", power: float = 2.0, temperature: float = 1.0
) -> dict[str, Tensor]:
    """log P(f) of one layer for every system.

    Args:
        features: system -> layer -> (1, chan, freq, frame).
        layer: "encoder.0" .. "decoder.5".
        normalisation, power, temperature: as in ``AttentionTransferKL``.

    Returns:
        system -> (1, freq).
    """
    known = list(next(iter(features.values())))
    if layer not in known:
        raise ConfigError(f"unknown layer {layer!r}; {nearest_name(layer, known)}")
    pooled = {name: channel_attention(f[layer], power).mean(-1) for name, f in features.items()}
    return {name: log_distribution(q, normalisation, temperature) for name, q in pooled.items()}


def divergences(features: Features, layer: str, **options) -> dict[str, float]:
    """KL(teacher || system) in nats of one layer, for every system but the teacher; options as above."""
    log_p = layer_distributions(features, layer, **options)
    return {name: kl_divergence(log_p["teacher"], p).item() for name, p in log_p.items() if name != "teacher"}


def report(features: Features, layer: str, **options) -> str:
    """One line a system: ``student alone: KL 0.123 nat``."""
    rows = divergences(features, layer, **options).items()
    return "\n".join(f"{layer}, {LABELS.get(name, name)}: KL {value:.4f} nat" for name, value in rows)


def draw(features: Features, stfts: dict[str, STFTConfig], layer: str, **options) -> tuple[Figure, Figure]:
    """The maps side by side and the distributions above each other, for one layer."""
    power = options.get("power", 2.0)
    maps = {name: channel_attention(f[layer], power)[0].numpy() for name, f in features.items()}
    log_p = layer_distributions(features, layer, **options)
    first = attention_transfer.attention_maps({layer: maps}, {n: s.hop_length for n, s in stfts.items()})
    second = attention_transfer.distributions({layer: {n: p[0].exp().numpy() for n, p in log_p.items()}}, columns=1)
    second.set_size_inches(8.0, 2.4)
    return first, second


def layer_browser(features: Features, stfts: dict[str, STFTConfig], layer: str = "encoder.1") -> ipywidgets.Widget:
    """Choose a layer, a normalisation, a temperature and a power; see maps, distributions and KL.

    Args:
        features: system -> layer -> (1, chan, freq, frame); must hold "teacher".
        stfts: system -> STFTConfig.
        layer: shown first.
    """
    features = {n: {k: v.detach() for k, v in f.items()} for n, f in features.items()}
    style = {"description_width": "90px"}  # holds "temperature"
    choose = {
        "layer": ipywidgets.SelectionSlider(
            options=list(features["teacher"]), value=layer, description="layer", continuous_update=False, style=style
        ),
        "normalisation": ipywidgets.ToggleButtons(
            options=NORMALISATIONS, description="norm", style=style | {"button_width": "90px"}, layout={"width": "auto"}
        ),
        "temperature": ipywidgets.FloatLogSlider(
            value=1.0, min=-2, max=0, step=0.25, description="temperature", continuous_update=False, style=style
        ),
        "power": ipywidgets.SelectionSlider(options=(1.0, 2.0, 4.0), value=2.0, description="power p", style=style),
    }
    text, maps, profiles = ipywidgets.HTML(), ipywidgets.Image(format="png"), ipywidgets.Image(format="png")

    def refresh(_change=None) -> None:
        options = {name: widget.value for name, widget in choose.items()}
        text.value = "<pre>" + html.escape(report(features, **options)) + "</pre>"
        maps.value, profiles.value = map(png, draw(features, stfts, **options))

    for widget in choose.values():
        widget.observe(refresh, names="value")
    refresh()
    return ipywidgets.VBox([*choose.values(), text, maps, profiles])
