"""Generated rooms: impulse responses of shoebox rooms by the image-source method (pyroomacoustics)."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from dccrn_lib.audio.rate import SAMPLE_RATE
from dccrn_lib.corpus.synthesis.signals import equalise, write_wav
from dccrn_lib.runtime.errors import ConfigError
from dccrn_lib.runtime.paths import install_command

RT60_RANGE = (0.15, 0.8)  # s
_PRE_DELAY = 32  # samples before the direct sound: 2 ms
_MAX_ORDER = 40  # reflections followed; what comes later in hard small rooms is below -40 dB or so


@dataclass(frozen=True)
class RoomTask:
    """Work order for one response."""

    path: str
    seed: tuple[int, ...]


def make_room(rng: np.random.Generator) -> tuple[np.ndarray, float]:
    """Draw a room, a source and a microphone in it.

    Returns:
        (response, rt60): float32 (sample,) at 16 kHz beginning 2 ms before the direct sound, which is its
        largest value, 0.99; and the reverberation time asked for in s.

    Raises:
        ConfigError: pyroomacoustics is not installed.
    """
    acoustics = require_acoustics()
    while True:
        size, rt60, absorption, order = _draw_walls(rng, acoustics)
        source, microphone = (0.4 + rng.random(3) * (size - 0.8) for _ in range(2))
        distance = float(np.linalg.norm(source - microphone))
        if not 0.3 < distance < 4.0:
            continue
        materials = acoustics.Material(absorption)
        room = acoustics.ShoeBox(size, fs=SAMPLE_RATE, materials=materials, max_order=min(order, _MAX_ORDER))
        room.add_source(source)
        room.add_microphone(microphone)
        room.compute_rir()
        # set by ``compute_rir``
        response = np.asarray(room.rir[0][0], dtype=np.float64)  # pyright: ignore[reportOptionalSubscript]
        # the direct sound arrives after distance / c, and half the fractional-delay filter later
        direct = int(round(distance / 343.0 * SAMPLE_RATE)) + acoustics.constants.get("frac_delay_length") // 2
        if abs(int(np.abs(response).argmax()) - direct) <= 2:
            break
    start = max(0, direct - _PRE_DELAY)
    response = response[start : start + _PRE_DELAY + int(1.1 * rt60 * SAMPLE_RATE)]
    response[:_PRE_DELAY] *= np.sin(0.5 * np.pi * np.arange(_PRE_DELAY) / _PRE_DELAY) ** 2
    # walls and air swallow high frequencies: the later, the darker
    dark = equalise(response, [20, 500, 4000, 8000], [0, 0, -rng.uniform(6, 14), -rng.uniform(15, 25)])
    age = np.exp(-np.maximum(np.arange(len(response)) - _PRE_DELAY - 40, 0) / SAMPLE_RATE / (0.4 * rt60))
    response = age * response + (1 - age) * dark
    return (0.99 * response / np.abs(response).max()).astype(np.float32), rt60


def _draw_walls(rng: np.random.Generator, acoustics) -> tuple[np.ndarray, float, float, int]:
    """Room size in m, RT60 in s, the walls' energy absorption, and the order of reflections they need."""
    while True:
        size = np.array([rng.uniform(2.5, 11.0), rng.uniform(2.2, 8.0), rng.uniform(2.3, 4.2)])
        rt60 = float(rng.uniform(*RT60_RANGE))
        try:
            absorption, order = acoustics.inverse_sabine(rt60, size, c=343.0)
        except ValueError:  # no wall absorbs enough for so short a time in so large a room: draw again
            continue
        if absorption < 0.95 and order < 3 * _MAX_ORDER:
            return size, rt60, float(absorption), int(order)


def write_room(task: RoomTask) -> tuple[str, float]:
    """Carry out one work order: (path, seconds)."""
    response, _ = make_room(np.random.default_rng(task.seed))
    write_wav(task.path, response)
    return task.path, len(response) / SAMPLE_RATE


def require_acoustics():
    """The module ``pyroomacoustics`` set to one thread, or a ConfigError that says how to install it."""
    try:
        import pyroomacoustics
    except ImportError:
        raise ConfigError(
            f"generated rooms need pyroomacoustics: {install_command('speech')} (it comes with that extra)"
        ) from None
    pyroomacoustics.constants.set("num_threads", 1)  # the same sums in the same order everywhere
    return pyroomacoustics
