"""Fourteen kinds of noise, each a family with random parameters rather than one sound.

Every kind is a function of (number of samples, random generator) that returns a signal (sample,) at 16 kHz of
any level; ``NOISE_KINDS`` names them. "mixture" strings other kinds together with changing levels.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from dccrn_lib.audio.rate import SAMPLE_RATE
from dccrn_lib.corpus.synthesis.signals import add_at, convolve, impulses, modes, shaped_noise, slow_curve, tone, unit


def coloured(n: int, rng: np.random.Generator) -> np.ndarray:
    """White, pink, brown and everything between (0 to -9 dB an octave), sometimes a band of it."""
    slope = rng.choice([0.0, -3.0, -6.0, rng.uniform(-9, 1)])
    hz, db = np.geomspace(30, 8000, 9), slope * np.arange(9)
    if rng.random() < 0.3:
        db = db - rng.uniform(3, 8) * np.abs(np.arange(9) - rng.uniform(2, 8))
    return shaped_noise(n, rng, list(hz), list(db)) * slow_curve(n, rng, 0.5, rng.uniform(0.6, 1), 1.0)


def hum(n: int, rng: np.random.Generator) -> np.ndarray:
    """Mains hum with harmonics, and a machine that rattles at its turning rate."""
    mains = rng.choice([50.0, 60.0]) * rng.uniform(0.998, 1.002)
    orders = np.arange(1, rng.integers(8, 60))
    gain = orders ** -rng.uniform(0.4, 1.4) * np.exp(0.7 * rng.standard_normal(len(orders)))
    gain[1::2] *= rng.uniform(0.2, 2.0)  # even harmonics
    t = np.arange(n) / SAMPLE_RATE
    buzz: Any = sum(
        g * np.sin(2 * np.pi * mains * k * t + rng.uniform(0, 6.28)) for k, g in zip(orders, gain, strict=True)
    )
    turning = rng.uniform(4, 30) * slow_curve(n, rng, 0.3, 0.95, 1.05)
    beat = np.maximum(tone(turning), 0) ** rng.uniform(2, 12)
    rattle = shaped_noise(n, rng, [80, 400, 2000, 8000], list(rng.uniform(-15, 0, 4))) * beat
    return unit(buzz) + rng.uniform(0.2, 1.5) * unit(rattle) + rng.uniform(0.05, 0.3) * coloured(n, rng)


def wind(n: int, rng: np.random.Generator) -> np.ndarray:
    """Rumbling gusts, and a whistle that rises with them."""
    gust = slow_curve(n, rng, rng.uniform(0.3, 1.2)) ** 2 * slow_curve(n, rng, 4.0, 0.5, 1.0) + 0.03
    corner = rng.uniform(60, 300)
    rumble = shaped_noise(n, rng, [20, corner, corner * 4, 8000], [0, 0, -rng.uniform(15, 30), -rng.uniform(50, 70)])
    rush = shaped_noise(n, rng, [100, 400, 1500, 8000], [-20, 0, -rng.uniform(0, 8), -25]) * gust**1.5
    narrow = shaped_noise(n, rng, [20, 40, 80], [0, -10, -60])
    whistle = narrow * tone(rng.uniform(300, 900) * (0.7 + 0.6 * gust)) * gust**2
    return unit(rumble * gust) + rng.uniform(0.1, 0.7) * unit(rush) + rng.uniform(0, 0.15) * unit(whistle)


def rain(n: int, rng: np.random.Generator) -> np.ndarray:
    """Thousands of drops on a few surfaces, over the hiss of the distant ones."""
    total = np.zeros(n)
    for _ in range(3):  # surfaces
        drop = modes(rng.uniform(600, 7000, 3), rng.uniform(0.0008, 0.006, 3), rng.uniform(0.3, 1, 3), 0.03)
        total += convolve(impulses(n, rng, np.exp(rng.uniform(np.log(30), np.log(2500))), 0.9), drop)
    hiss = shaped_noise(n, rng, [100, 800, 3000, 8000], [-30, -8, 0, -rng.uniform(0, 10)])
    return unit(total) + rng.uniform(0.1, 1.2) * hiss * slow_curve(n, rng, 0.4, 0.6, 1.0)


def clatter(n: int, rng: np.random.Generator) -> np.ndarray:
    """Dishes, keys, tools: struck objects in uneven rhythm, from dry clicks to ringing metal."""
    x = np.zeros(n)
    ring = np.exp(rng.uniform(np.log(0.004), np.log(0.15)))
    kinds = [
        (np.exp(rng.uniform(np.log(300), np.log(7000), 8)), ring * rng.uniform(0.3, 2, 8), rng.uniform(0.1, 1, 8))
        for _ in range(rng.integers(2, 7))
    ]
    click = shaped_noise(200, rng, [200, 3000, 8000], [-20, 0, -3]) * np.exp(-np.arange(200) / rng.uniform(10, 50))
    time = rng.uniform(0, 0.3)
    rate = rng.uniform(1.5, 9)
    while time < n / SAMPLE_RATE:
        hz, decay, gain = kinds[rng.integers(len(kinds))]
        hit = modes(hz * rng.uniform(0.97, 1.03), decay, gain * rng.uniform(0.2, 1, 8), min(6 * decay.max(), 0.6))
        hit[: min(200, len(hit))] += rng.uniform(0, 1.5) * click[: len(hit)]
        add_at(x, int(time * SAMPLE_RATE), np.exp(0.7 * rng.standard_normal()) * hit)
        time += rng.exponential(1 / rate) if rng.random() < 0.9 else rng.uniform(0.3, 1.0)
    return x


def music(n: int, rng: np.random.Generator) -> np.ndarray:
    """Chords, a melody and a bass in a random scale, tempo and timbre; drums for some."""
    x = np.zeros(n)
    steps = [np.array([0, 2, 4, 5, 7, 9, 11]), np.array([0, 2, 3, 5, 7, 8, 10]), np.array([0, 3, 5, 7, 10, 12, 15])]
    scale = steps[rng.integers(3)] + rng.integers(0, 12)
    beat = 60 / rng.uniform(65, 160)
    timbres = [(rng.uniform(0.6, 2.2), rng.uniform(0.003, 0.08), rng.uniform(0.3, 3)) for _ in range(3)]

    def note(midi: float, seconds: float, timbre: tuple[float, float, float]) -> np.ndarray:
        rolloff, attack, sustain = timbre
        t = np.arange(int(seconds * SAMPLE_RATE)) / SAMPLE_RATE
        pitch = 440 * 2 ** ((midi - 69) / 12)
        order = np.arange(1, 1 + max(1, min(12, int(7000 / pitch))))
        vibrato = 0.004 * np.sin(2 * np.pi * 5.5 * t) / 5.5
        wave = (order[:, None] ** -rolloff * np.sin(2 * np.pi * pitch * order[:, None] * (t + vibrato))).sum(0)
        return wave * np.minimum(1, t / attack) * np.exp(-t / sustain) * np.minimum(1, (seconds - t) / 0.03)

    for bar in range(int(n / SAMPLE_RATE / (4 * beat)) + 1):
        root = rng.integers(0, 7)
        start = bar * 4 * beat
        for degree in (0, 2, 4):
            add_at(x, int(start * SAMPLE_RATE), 0.5 * note(48 + scale[(root + degree) % 7], 4 * beat, timbres[0]))
        place = 0.0
        while place < 4:
            length = rng.choice([0.5, 0.5, 1, 1.5, 2])
            if rng.random() < 0.8:
                pitch = 60 + scale[rng.integers(0, 7)]
                add_at(x, int((start + place * beat) * SAMPLE_RATE), 0.8 * note(pitch, length * beat, timbres[1]))
            place += length
        for half in (0, 2):
            add_at(x, int((start + half * beat) * SAMPLE_RATE), note(36 + scale[root], 2 * beat, timbres[2]))
    x = unit(x)
    if rng.random() < 0.6:
        hit = shaped_noise(4000, rng, [60, 300, 8000], list(rng.uniform(-12, 0, 3)))
        hit *= np.exp(-np.arange(4000) / rng.uniform(200, 1500))
        for start in np.arange(rng.choice([0, beat]), n / SAMPLE_RATE, rng.choice([beat / 2, beat, 2 * beat])):
            add_at(x, int(start * SAMPLE_RATE), rng.uniform(0.5, 2) * hit)
    return x


def fan(n: int, rng: np.random.Generator) -> np.ndarray:
    """Broadband flow with the blades' amplitude modulation and their tones."""
    blades = rng.uniform(15, 130) * slow_curve(n, rng, 0.2, 0.97, 1.03)
    depth = rng.uniform(0.1, 0.6)
    flow = shaped_noise(n, rng, [30, 200, 1000, 4000, 8000], [-6, 0, -rng.uniform(0, 10), -15, -rng.uniform(18, 35)])
    flow *= 1 + depth * tone(blades) + 0.5 * depth * tone(blades / rng.integers(3, 8))
    tones: Any = sum(rng.uniform(0.1, 1) / k * tone(blades * k, rng.uniform(0, 6)) for k in range(1, 9))
    return unit(flow) + rng.uniform(0.05, 0.6) * unit(tones)


def engine(n: int, rng: np.random.Generator) -> np.ndarray:
    """Motors under changing load, and cars that pass by."""
    firing = rng.uniform(22, 110) * slow_curve(n, rng, rng.uniform(0.1, 0.5), 0.75, 1.3)
    jitter = 1 + 0.03 * shaped_noise(n, rng, [1, 20, 60], [0, 0, -60])
    phase = 2 * np.pi * np.cumsum(firing * jitter) / SAMPLE_RATE
    x = np.zeros(n)
    formants = rng.uniform(80, 1500, 3)
    for order in np.arange(1, 40) / rng.choice([1, 2]):
        place = order * np.mean(firing)
        gain = order ** -rng.uniform(0.6, 1.0) * (0.2 + sum(np.exp(-(np.log(place / f) ** 2) * 4) for f in formants))
        x += gain * np.sin(order * phase + rng.uniform(0, 6.28))
    exhaust = shaped_noise(n, rng, [40, 200, 1500, 8000], [0, -3, -20, -45]) * (0.3 + np.maximum(np.sin(phase), 0) ** 2)
    x = unit(x) + rng.uniform(0.2, 1.0) * unit(exhaust)
    t = np.arange(n) / SAMPLE_RATE
    for _ in range(rng.integers(0, 4)):
        near = np.exp(-(((t - rng.uniform(0, n / SAMPLE_RATE)) / rng.uniform(0.8, 3)) ** 2))
        tyres = shaped_noise(n, rng, [60, 500, 1000, 8000], [-8, -3, 0, -rng.uniform(15, 30)])
        x += rng.uniform(0.5, 2.5) * near * tyres
    return x * slow_curve(n, rng, 0.4, 0.5, 1.0)


def alarm(n: int, rng: np.random.Generator) -> np.ndarray:
    """Beepers, telephones, sirens and buzzers."""
    t = np.arange(n) / SAMPLE_RATE
    style = rng.integers(4)
    if style == 0:  # beeps in groups
        period, duty, pitch = rng.uniform(0.15, 1.0), rng.uniform(0.2, 0.7), rng.uniform(700, 3800)
        on = ((t / period) % 1 < duty) & ((t / (period * 4)) % 1 < rng.choice([0.75, 1.0]))
        carrier = np.full(n, pitch)
    elif style == 1:  # siren
        sweep = 0.5 + 0.5 * np.sin(2 * np.pi * rng.uniform(0.2, 4) * t)
        carrier, on = rng.uniform(400, 900) * 2 ** (sweep * rng.uniform(0.3, 1.3)), np.ones(n, bool)
    elif style == 2:  # two-tone telephone
        low = rng.uniform(500, 1200)
        carrier = np.where((t * rng.uniform(12, 25)) % 1 < 0.5, low, low * rng.uniform(1.1, 1.5))
        on = (t / rng.uniform(1.5, 3)) % 1 < 0.55
    else:  # buzzer
        carrier, on = np.full(n, rng.uniform(90, 500)), (t / rng.uniform(0.4, 2)) % 1 < 0.6
    phase = 2 * np.pi * np.cumsum(carrier) / SAMPLE_RATE
    top = max(1, min(15 if style == 3 else 5, int(7500 / carrier.max())))
    wave = sum(rng.uniform(0.1, 1) / k * np.sin(k * phase) for k in range(1, top + 1))
    gate = np.convolve(on, np.ones(80) / 80, mode="same")
    return wave * gate


def water(n: int, rng: np.random.Generator) -> np.ndarray:
    """Streams and taps: bubbles that ring and rise in pitch, and the rush around them."""
    x = np.zeros(n)
    low, high = np.sort(rng.uniform(250, 4000, 2))
    t = np.arange(int(0.05 * SAMPLE_RATE)) / SAMPLE_RATE
    for start in rng.integers(0, n, max(8, rng.poisson(rng.uniform(30, 180) * n / SAMPLE_RATE))):
        pitch, decay = rng.uniform(low, high + 100), rng.uniform(0.003, 0.02)
        bubble = np.exp(-t / decay) * np.sin(2 * np.pi * pitch * (t + rng.uniform(1, 8) * t * t))
        add_at(x, start, np.exp(0.6 * rng.standard_normal()) * bubble)
    rush = shaped_noise(n, rng, [60, 500, 2500, 8000], [-15, -6, 0, -rng.uniform(3, 15)])
    return unit(x) + rng.uniform(0.1, 1.0) * rush * slow_curve(n, rng, 1.0, 0.6, 1.0)


def animals(n: int, rng: np.random.Generator) -> np.ndarray:
    """Bird calls, barks and chirping insects, with pauses."""
    x = np.zeros(n)
    style = rng.integers(3)
    time = rng.uniform(0, 0.5)
    base = (rng.uniform(1800, 5000), rng.uniform(250, 700), rng.uniform(3500, 6500))[style]
    while time < n / SAMPLE_RATE:
        seconds = (rng.uniform(0.05, 0.35), rng.uniform(0.1, 0.3), rng.uniform(0.02, 0.05))[style]
        t = np.arange(int(seconds * SAMPLE_RATE)) / SAMPLE_RATE
        bend = 1 + rng.uniform(-0.35, 0.35) * t / seconds + rng.uniform(0, 0.06) * np.sin(2 * np.pi * 30 * t)
        pitch = np.clip(base * rng.uniform(0.85, 1.15) * bend, 60, 7500)
        top = max(1, min((2, 14, 1)[style], int(7500 / pitch.max())))
        call = sum(tone(k * pitch) / k**0.7 for k in range(1, top + 1)) * np.sin(np.pi * t / seconds) ** 0.7
        if style == 1:
            call += 0.4 * rng.standard_normal(len(t)) * np.exp(-t / 0.08)
        add_at(x, int(time * SAMPLE_RATE), rng.uniform(0.3, 1) * call)
        time += seconds + (0.03 if rng.random() < 0.8 else rng.uniform(0.2, 1.0)) * (1, 4, 1)[style]
    ambience = shaped_noise(n, rng, [50, 500, 8000], list(rng.uniform(-20, 0, 3)))
    return unit(x) + rng.uniform(0.02, 0.2) * ambience


def knocks(n: int, rng: np.random.Generator) -> np.ndarray:
    """Steps, knocking, hammering, doors: low thuds in a rough rhythm, with scuffs."""
    x = np.zeros(n)
    period, hz = rng.uniform(0.15, 0.8), rng.uniform(50, 500, 5)
    time = rng.uniform(0, 0.3)
    scuff = shaped_noise(3200, rng, [100, 1000, 8000], list(rng.uniform(-15, 0, 3)))
    scuff *= np.sin(np.pi * np.arange(3200) / 3200) ** 2
    while time < n / SAMPLE_RATE:
        thud = modes(hz * rng.uniform(0.9, 1.1, 5), rng.uniform(0.01, 0.08, 5), rng.uniform(0.2, 1, 5), 0.35)
        thud[:160] += rng.uniform(0.2, 1.5) * rng.standard_normal(160) * np.exp(-np.arange(160) / 30)
        add_at(x, int(time * SAMPLE_RATE), rng.uniform(0.3, 1) * thud)
        add_at(x, int((time + rng.uniform(0, 0.1)) * SAMPLE_RATE), rng.uniform(0, 0.4) * scuff)
        time += period * rng.uniform(0.8, 1.2) + (rng.uniform(0.3, 1.0) if rng.random() < 0.1 else 0)
    return x


def crackle(n: int, rng: np.random.Generator) -> np.ndarray:
    """Fire, worn records, bad contacts: sharp crackles of all sizes over a low bed."""
    snap = modes(rng.uniform(900, 6000, 4), rng.uniform(0.0003, 0.003, 4), rng.uniform(0.3, 1, 4), 0.01)
    density = slow_curve(n, rng, 3.0) ** 2
    snaps = convolve(impulses(n, rng, rng.uniform(30, 300), 1.1) * density, snap)
    bed = shaped_noise(n, rng, [30, 150, 1000, 8000], [0, -3, -rng.uniform(12, 30), -rng.uniform(20, 45)])
    return unit(snaps) + rng.uniform(0.1, 0.8) * bed * slow_curve(n, rng, 0.7, 0.5, 1.0)


def mixture(n: int, rng: np.random.Generator) -> np.ndarray:
    """Other kinds one after another and on top of each other, their levels stepping and fading."""
    makers = [maker for name, maker in NOISE_KINDS.items() if name != "mixture"]
    x = np.zeros(n)
    for maker in rng.choice(len(makers), size=3, replace=False):
        steps = 10 ** ((slow_curve(n, rng, rng.uniform(0.3, 1.5)) ** 2 * 30 - 30) / 20)  # -30..0 dB
        if rng.random() < 0.5:  # appears or stops at once
            edge = int(rng.uniform(0.2, 0.8) * n)
            steps = steps * (np.arange(n) > edge if rng.random() < 0.5 else np.arange(n) <= edge)
        x += rng.uniform(0.3, 1.0) * unit(makers[maker](n, rng)) * steps
    return x


NOISE_KINDS: dict[str, Callable[[int, np.random.Generator], np.ndarray]] = {
    "coloured": coloured,
    "hum": hum,
    "wind": wind,
    "rain": rain,
    "clatter": clatter,
    "music": music,
    "fan": fan,
    "engine": engine,
    "alarm": alarm,
    "water": water,
    "animals": animals,
    "knocks": knocks,
    "crackle": crackle,
    "mixture": mixture,
}
