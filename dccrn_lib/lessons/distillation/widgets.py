"""Widgets of notebook 05: before and after, for any test mixture and system."""

from __future__ import annotations

import html
from collections.abc import Mapping

import ipywidgets as widgets
import torch
from matplotlib.figure import Figure

from dccrn_lib.corpus.mixing import MixtureDataset
from dccrn_lib.lessons.lesson import players
from dccrn_lib.lessons.panels import png
from dccrn_lib.lessons.plotting import LABELS, spectrograms


def enhance_item(item: Mapping, system: str, systems: Mapping) -> torch.Tensor:
    """(sample,): what a system makes of a mixture; "noisy" and "clean" are the mixture's own signals."""
    if system in ("noisy", "clean"):
        return item[system]
    model = systems[system]
    device = next(model.parameters()).device
    with torch.no_grad():
        return model(item["noisy"][None].to(device))[0].cpu()


def before_after(item: Mapping, system: str, systems: Mapping) -> tuple[Figure, dict[str, torch.Tensor]]:
    """Spectrograms of noisy, system and clean on one dB scale, and the three signals.

    Args:
        item: from a MixtureDataset.
        system: key of ``systems``.
        systems: name -> model.
    """
    signals = {name: enhance_item(item, name, systems) for name in dict.fromkeys(("noisy", system, "clean"))}
    window = torch.hann_window(400)
    spectra = {name: torch.stft(x, 512, 100, 400, window, return_complex=True).numpy() for name, x in signals.items()}
    return spectrograms(spectra, columns=3), signals


def mixture_browser(mixtures: MixtureDataset, systems: Mapping) -> widgets.VBox:
    """Choose a test mixture and a system: spectrograms and players.

    Args:
        mixtures: the test set.
        systems: name -> model.
    """
    index = widgets.IntSlider(value=0, min=0, max=len(mixtures) - 1, description="mixture", continuous_update=False)
    names = [(LABELS.get(name, name), name) for name in systems]
    system = widgets.Dropdown(options=names, value=names[-1][1], description="system")
    picture, sound, caption = widgets.Image(format="png"), widgets.HTML(), widgets.HTML()

    def show(_change=None) -> None:
        item = mixtures[index.value]
        # a Dropdown with options always has a value
        figure, signals = before_after(item, system.value, systems)  # pyright: ignore[reportArgumentType]
        picture.value = png(figure)
        peak = max(float(x.abs().max()) for x in signals.values())
        sound.value = str(players({LABELS.get(n, n): x / max(1.0, peak) for n, x in signals.items()}).data)
        caption.value = html.escape(f"{item['label']}, input SNR {item['snr_db']:.1f} dB, {item['id']}")

    index.observe(show, "value")
    system.observe(show, "value")
    show()
    return widgets.VBox([widgets.HBox([index, system], layout={"flex_flow": "row wrap"}), caption, picture, sound])
