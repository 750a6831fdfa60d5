"""Widgets of notebook 06: an A/B/X listening test that scores the listener, and a browser of SNR bands."""

from __future__ import annotations

import html
import math
import random
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import ipywidgets as widgets
import numpy as np
from matplotlib.figure import Figure
from scipy.stats import binomtest

from dccrn_lib.evaluation.groups import noise_family
from dccrn_lib.evaluation.intervals import bootstrap_ci
from dccrn_lib.evaluation.metrics import METRICS
from dccrn_lib.lessons.evaluation.figures import by_group
from dccrn_lib.lessons.lesson import players
from dccrn_lib.lessons.panels import png
from dccrn_lib.lessons.plotting import LABELS


def abx_p_value(correct: int, trials: int) -> float:
    """Probability of at least ``correct`` right answers in ``trials`` by guessing: sum_k>=c C(n, k) / 2^n.

    >>> abx_p_value(5, 5)
    0.03125
    """
    return float(binomtest(correct, trials, 0.5, alternative="greater").pvalue)


@dataclass
class ABXSession:
    """The score of a listener: in each trial X is A or B, drawn by ``seed``.

    Args:
        trials: how many.
        seed: of the draws.
    """

    trials: int = 10
    seed: int = 0
    answers: list[bool] = field(default_factory=list)

    def __post_init__(self) -> None:
        rng = random.Random(self.seed)
        self.hidden = [rng.choice("AB") for _ in range(self.trials)]

    @property
    def finished(self) -> bool:
        """No trial is left."""
        return len(self.answers) >= self.trials

    @property
    def x(self) -> str:
        """What X is in the current trial: "A" or "B"."""
        return self.hidden[len(self.answers)]

    def answer(self, guess: str) -> bool:
        """Record a guess for the current trial; whether it was right."""
        self.answers.append(guess == self.x)
        return self.answers[-1]

    def summary(self) -> str:
        """The score so far and what chance makes of it."""
        done, correct = len(self.answers), sum(self.answers)
        if not done:
            return f"{self.trials} trials. Is X the same as A or as B?"
        p = abx_p_value(correct, done)
        text = f"{correct} of {done} right; guessing gets that far with probability {p:.3f}"
        if not self.finished:
            return text
        return text + (": you hear a difference." if p < 0.05 else ": no evidence that you hear a difference.")


def abx_test(
    a: Sequence,
    b: Sequence,
    sample_rate: int = 16000,
    trials: int = 10,
    seed: int = 0,
    names: tuple[str, str] = ("A", "B"),
) -> widgets.VBox:
    """A/B/X test with buttons; the score and its p-value stand below.

    Args:
        a, b: lists of signals (sample,), item k of both being the same sentence; trial k uses item k modulo their number.
        sample_rate: in Hz.
        trials: how many.
        seed: of the draws.
        names: revealed at the end.
    """
    session = ABXSession(trials, seed)
    sound, text = widgets.HTML(), widgets.HTML()
    buttons = [widgets.Button(description=f"X is {letter}") for letter in "AB"]

    def show() -> None:
        text.value = session.summary()
        if session.finished:
            text.value += html.escape(f" A was {names[0]}, B was {names[1]}.")
            sound.value = ""
            for button in buttons:
                button.disabled = True
            return
        k = len(session.answers) % len(a)
        hidden = (a if session.x == "A" else b)[k]
        peak = max(1.0, *(float(np.abs(np.asarray(v)).max()) for v in (a[k], b[k])))
        signals = {"A": a[k], "B": b[k], "X": hidden}
        sound.value = str(players({title: np.asarray(v) / peak for title, v in signals.items()}, sample_rate).data)

    def click(button) -> None:
        session.answer(button.description[-1])
        show()

    for button in buttons:
        button.on_click(click)
    show()
    return widgets.VBox([text, sound, widgets.HBox(buttons)])


def improvements(
    items: Mapping[str, Sequence[Mapping]], metric: str, low: float, high: float, group=None
) -> dict[str, dict[str, tuple[float, float, float, int]]]:
    """Improvement over the noisy input of the mixtures in a range of input SNR, by group and system.

    Args:
        items: from ``evaluation.evaluate_systems``; "noisy" is among the systems.
        metric: higher is better.
        low, high: range of the input SNR in dB, low <= SNR < high.
        group: function item -> name of its group; one group "all" by default.

    Returns:
        group -> {system: (mean, low, high of its 95 % interval, n)}, largest group first.
    """
    values: dict[str, dict[str, list[float]]] = {}
    for system, rows in items.items():
        if system == "noisy":
            continue
        for row, noisy in zip(rows, items["noisy"], strict=True):
            if not low <= row["snr_db_in"] < high or row[metric] is None or noisy[metric] is None:
                continue
            key = group(row) if group else "all"
            values.setdefault(key, {}).setdefault(system, []).append(row[metric] - noisy[metric])
    summaries = {
        key: {name: (float(np.mean(v)), *bootstrap_ci(v), len(v)) for name, v in by_system.items()}
        for key, by_system in values.items()
    }
    return dict(sorted(summaries.items(), key=lambda pair: -next(iter(pair[1].values()))[3]))


def band_view(items: Mapping, metric: str, low: float, high: float) -> tuple[str, Figure | None]:
    """A sentence and a figure for one range of SNR: improvement by family of noise."""
    groups = improvements(items, metric, low, high, group=lambda row: noise_family(row["label"]))
    if not groups:
        return f"no mixture between {low:g} and {high:g} dB", None
    everything = improvements(items, metric, low, high)["all"]
    parts = [f"{LABELS.get(name, name)} {mean:+.2f}" for name, (mean, *_rest) in everything.items()]
    n = next(iter(everything.values()))[3]
    label = METRICS[metric].axis
    return f"{low:g} to {high:g} dB, n = {n}: " + ", ".join(parts), by_group(groups, f"{label} over noisy")


def band_browser(items: Mapping, metrics: Sequence[str] = ("si_snr_db", "pesq_wb", "stoi")) -> widgets.VBox:
    """Choose a range of input SNR and a metric: improvement over noisy by family of noise."""
    snr = [row["snr_db_in"] for row in items["noisy"]]
    low, high = math.floor(min(snr)), math.ceil(max(snr)) + 1
    band = widgets.IntRangeSlider(value=(low, high), min=low, max=high, description="SNR (dB)", continuous_update=False)
    metric = widgets.Dropdown(options=[(METRICS[m].axis, m) for m in metrics], description="metric")
    text, picture = widgets.HTML(), widgets.Image(format="png")

    def show(_change=None) -> None:
        # a Dropdown with options always has a value
        sentence, figure = band_view(items, metric.value, *band.value)  # pyright: ignore[reportArgumentType]
        text.value = html.escape(sentence)
        picture.value = b"" if figure is None else png(figure)

    band.observe(show, "value")
    metric.observe(show, "value")
    show()
    return widgets.VBox([widgets.HBox([band, metric], layout={"flex_flow": "row wrap"}), text, picture])
