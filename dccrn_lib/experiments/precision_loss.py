"""What smaller numbers cost: the same clips enhanced in float32, bfloat16, float16 weights and int8, all metrics.

python -m dccrn_lib bench precision --json results/precision_demo.json
"""

from __future__ import annotations

import hashlib
import tempfile
from collections.abc import Callable, Iterator, Mapping
from functools import partial
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import torch

from dccrn_lib.audio.rate import SAMPLE_RATE
from dccrn_lib.enhancement.level import LevelMeter
from dccrn_lib.enhancement.onnx_export import PRECISIONS, export_onnx
from dccrn_lib.enhancement.onnx_runtime import OnnxEnhancer
from dccrn_lib.enhancement.optimised import optimised
from dccrn_lib.enhancement.waveform import enhance_waveform
from dccrn_lib.evaluation.pairing import check_lengths, pair_files
from dccrn_lib.evaluation.scores import metric_names
from dccrn_lib.evaluation.systems import Pair, read_mono, score_many
from dccrn_lib.losses import si_snr_db
from dccrn_lib.networks.weights import load_model
from dccrn_lib.results.records import save_result
from dccrn_lib.runtime.devices import has_bfloat16
from dccrn_lib.runtime.errors import ConfigError
from dccrn_lib.runtime.paths import PathLike, project_root

Enhance = Callable[[np.ndarray], np.ndarray]
EXACT = "enhance, fp32"


def _at_level(enhancer: OnnxEnhancer, samples: np.ndarray) -> np.ndarray:
    """One channel at the level at which a network hears a file, as ``enhance`` and ``run-onnx`` do it."""
    meter = LevelMeter(1, SAMPLE_RATE)
    meter.add(samples[None])
    scales = meter.scales(0, len(samples))[0]
    return enhancer.enhance((samples - meter.offset()[0, 0]) / scales) * scales


def precision_forms(weights: str, folder: Path) -> dict[str, Enhance]:
    """Every form of a network that can run here, the exact one first."""
    model = optimised(load_model(weights))
    forms: dict[str, Enhance] = {EXACT: partial(enhance_waveform, model)}
    if has_bfloat16(torch.device("cpu")):
        forms["enhance, bf16"] = partial(enhance_waveform, model, precision="bf16")
    if find_spec("onnxruntime") and find_spec("onnx"):
        for name in PRECISIONS:
            path = export_onnx(model, folder / f"{name}.onnx", precision=name)
            forms[f"exported, {name} weights"] = partial(_at_level, OnnxEnhancer(path))
    return forms


def _clips(folder: Path) -> dict[str, tuple[np.ndarray, np.ndarray]]:
    """Name -> (clean, noisy), each (sample,) at 16 kHz."""
    if not (folder / "noisy").is_dir():
        raise ConfigError(f"no clips in {folder}: it has no folder noisy; name one with clean and noisy by --clips")
    pairs = pair_files(folder / "clean", folder / "noisy")
    check_lengths(pairs)
    clips = {}
    for name, *paths in pairs:
        clean, noisy = map(read_mono, paths)
        length = min(clean.size, noisy.size)  # they differ by rounding at most
        clips[Path(name).with_suffix("").as_posix()] = clean[:length], noisy[:length]
    if len(clips) < len(pairs):
        raise ConfigError(f"clips in {folder / 'noisy'} differ in their suffixes only; give each a name of its own")
    return clips


def measure_precision(
    json_path: PathLike | None = None, weights: str = "distil_dccrn", clips: PathLike | None = None
) -> dict[str, Any]:
    """Enhance the demo clips in every precision and score them, in half a minute.

    Args:
        json_path: result file to write, ending in .json; None writes nothing.
        weights: shipped name or path of a DCCRN.
        clips: folder with ``clean`` and ``noisy``, paired as by ``evaluate``; data/demo when None.

    Returns:
        The record: ``rows`` of {form, n, SI-SNR to the exact form in dB (the least over the clips), and of every metric
        its mean for the exact form, its mean change for the others}.

    Raises:
        ConfigError: ``json_path`` does not end in .json, or there are no clips.
        AudioError, MetricError: files without a partner, or of another length; one that cannot be read.
    """
    path = None if json_path is None else Path(json_path)
    if path is not None and path.suffix != ".json":
        raise ConfigError(f"{path}: the result file must end in .json")
    signals = _clips(Path(clips or project_root() / "data" / "demo"))
    metrics = metric_names(None)
    with tempfile.TemporaryDirectory() as folder:
        outputs = {
            form: {name: enhance(noisy) for name, (_, noisy) in signals.items()}
            for form, enhance in precision_forms(weights, Path(folder)).items()
        }
    scores = {form: list(score_many(_pairs(of_clip, signals), metrics)) for form, of_clip in outputs.items()}
    digest = hashlib.sha256(b"".join(noisy.tobytes() for _, noisy in signals.values())).hexdigest()
    record = {
        "config": {"weights": weights, "clips": list(signals)},
        "seed": 0,
        "data_hash": digest,
        "rows": [_row(form, outputs, scores, metrics) for form in outputs],
        "note": "Mean over the clips; in the rows below the first, its change against it.",
    }
    if path is not None:
        save_result(path.stem, record, path.parent)
    return record


def _pairs(of_clip: Mapping[str, np.ndarray], signals: Mapping[str, tuple[np.ndarray, np.ndarray]]) -> Iterator[Pair]:
    for name, (clean, _) in signals.items():
        yield Pair({"name": name}, clean, of_clip[name])


def _row(form: str, outputs: Mapping[str, Mapping], scores: Mapping[str, Any], metrics: tuple[str, ...]) -> dict:
    """Means of the exact form; of another the changes, and the least SI-SNR to the exact one."""
    row: dict[str, Any] = {"form": form, "n": len(outputs[form]), "SI-SNR to the first, dB": None}
    if form != EXACT:
        pairs = [(torch.from_numpy(y), torch.from_numpy(outputs[EXACT][name])) for name, y in outputs[form].items()]
        row["SI-SNR to the first, dB"] = min(float(si_snr_db(y, x)) for y, x in pairs)
    for metric in metrics:
        here, exact = (_mean(scores[name], metric) for name in (form, EXACT))
        row[metric] = here if form == EXACT or here is None or exact is None else f"{here - exact:+.2g}"
    return row


def _mean(items: list[Mapping[str, Any]], metric: str) -> float | None:
    values = [item[metric] for item in items if item[metric] is not None]
    return float(np.mean(values)) if values else None
