"""The published table: shipped weights on the test split of a real corpus, whole, by SNR and by noise.

    python -m dccrn_lib experiment shipped-weights --speech speech.jsonl --noise noise.jsonl student_alone=distil_dccrn

writes results/real_test.json, real_paired.json, real_beside_paper.json, real_by_snr.json and real_by_noise.json, which
notebook 06 and the README show. The mixtures are a pure function of the manifests: anybody with the same recordings gets
the same table.
"""

from __future__ import annotations

import math
import shlex
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from dccrn_lib.audio.rate import SAMPLE_RATE
from dccrn_lib.corpus.mixing import MixConfig, MixtureDataset
from dccrn_lib.enhancement.waveform import signal_path
from dccrn_lib.evaluation.groups import snr_band
from dccrn_lib.evaluation.intervals import bracketed, compare_systems, means_of_pairs, or_none, summarise, t_interval
from dccrn_lib.evaluation.metrics import ALL_METRICS, METRICS, REFERENCE_METRICS
from dccrn_lib.evaluation.systems import evaluate_systems
from dccrn_lib.experiments.other_denoisers import OTHERS, OtherDenoiser
from dccrn_lib.experiments.paper import TEST_SEED, data_hash
from dccrn_lib.experiments.recipe import manifest_options, portable
from dccrn_lib.networks.weights import load_model, read_card
from dccrn_lib.results.records import load_result, save_result
from dccrn_lib.runtime.devices import PRECISIONS, autocast
from dccrn_lib.runtime.environment import environment_record
from dccrn_lib.runtime.errors import ConfigError
from dccrn_lib.runtime.paths import results_dir
from dccrn_lib.training.validation import VALID_SEED

#: As the DNS test set without rooms: additive noise, no augmentation; 5 dB lower at the bottom.
MIX = MixConfig(segment_seconds=6.0, snr_db=(-5.0, 20.0), level_dbfs=(-32.0, -20.0), rir_probability=0.0)
#: Split -> seed of its mixtures. Choose on valid, as often as you like; what is published comes from test.
SEEDS = {"test": TEST_SEED, "valid": VALID_SEED}
#: Means over the eight 10 s clips released with the Distil-DCCRN paper (DNS test set, chosen by its authors), measured
#: on that audio, not taken from a table of the paper.
PAPER_CLIPS = {
    "noisy": {"pesq_wb": 1.353, "stoi": 0.8639, "si_snr_db": 7.12, "dnsmos_ovrl": 2.255},
    "student trained directly": {"pesq_wb": 1.942, "stoi": 0.8999, "si_snr_db": 12.53, "dnsmos_ovrl": 2.913},
    "DCCRN": {"pesq_wb": 2.261, "stoi": 0.9306, "si_snr_db": 14.44, "dnsmos_ovrl": 3.117},
    "Distil-DCCRN": {"pesq_wb": 2.305, "stoi": 0.9310, "si_snr_db": 14.21, "dnsmos_ovrl": 3.108},
}


def real_mixtures(corpus: Mapping[str, str], count: int, split: str = "test") -> MixtureDataset:
    """The fixed mixtures of a corpus's test or valid split: 6 s each, -5..20 dB, dry.

    Raises:
        ConfigError: a split that is neither.
    """
    if split not in SEEDS:
        raise ConfigError(f"weights are scored on the split {' or '.join(SEEDS)}, not on {split!r}")
    return MixtureDataset(corpus["speech"], corpus["noise"], None, MIX, seed=SEEDS[split], length=count, split=split)


def breakdown(
    items: Mapping[str, Sequence[Mapping[str, Any]]], key: Callable[[Mapping[str, Any]], str], name: str
) -> list[dict[str, Any]]:
    """Rows of a table: one for each group and system, with counts and means.

    Args:
        items: system -> items with the same order of mixtures.
        key: item -> its group.
        name: heading of the group's column.
    """
    groups = sorted({key(item) for rows in items.values() for item in rows}, key=_by_number)
    table = []
    for group in groups:
        for system, rows in items.items():
            chosen = [row for row in rows if key(row) == group]
            found = summarise(chosen)
            means = {k: found["mean"].get(k) for k in ("pesq_wb", "stoi", "si_snr_db")}
            scores = [row["pesq_wb"] for row in chosen if row.get("pesq_wb") is not None]
            # Student's t: the bootstrap of six mixtures reaches a true mean in 87 of 100 cases only
            low, high = map(or_none, t_interval(scores)) if len(scores) > 1 else (None, None)
            interval = bracketed(low, high, ".2f").strip() or "-"
            table.append({name: group, "system": system, "n": found["n"], **means, "pesq_wb 95 %": interval})
    return table


def paired(items: Mapping[str, Sequence[Mapping[str, Any]]], metrics: Sequence[str]) -> list[dict[str, Any]]:
    """Rows of a table: every system minus every one before it, mixture by mixture.

    Args:
        items: system -> items with the same order of mixtures.
        metrics: higher is better; gain and polarity are left out.
    """
    names = list(items)
    table = []
    for k, system in enumerate(names):
        for other in names[:k]:
            chosen = [m for m in metrics if m not in ("gain", "polarity")]
            differences = {metric: compare_systems(items, system, other, metric) for metric in chosen}
            counts = sorted({d.n for d in differences.values()} or {len(items[system])})  # not each could be scored
            row = {"system": system, "minus": other, **{metric: str(d) for metric, d in differences.items()}}
            table.append({**row, "n": counts[0] if len(counts) == 1 else f"{counts[0]} to {counts[-1]}"})
    return table


def beside_paper(items: Mapping[str, Sequence[Mapping[str, Any]]]) -> list[dict[str, Any]]:
    """Rows of a table: our means, then those of the paper's clips, each with its gain over its own noisy input.

    Args:
        items: system -> items; "noisy" among them. Metrics that were not scored stay out.
    """
    ours = {system: summarise(list(rows))["mean"] for system, rows in items.items()}
    sources = (("this project", len(items["noisy"]), ours), ("the paper's clips", 8, PAPER_CLIPS))
    table = []
    for source, n, systems in sources:
        for system, means in systems.items():
            row: dict[str, Any] = {"of": source, "system": system, "n": n}
            for metric in PAPER_CLIPS["noisy"]:
                value, noisy = means.get(metric), systems["noisy"].get(metric)
                name = METRICS[metric].column
                row[name] = value
                if systems is ours and value is not None:  # on the mixtures that both have a score of
                    value, noisy = means_of_pairs(items[system], items["noisy"], metric)
                if system != "noisy":
                    gain = None if value is None or noisy is None or math.isnan(value) else value - noisy
                    row[f"{name} over noisy"] = None if gain is None else f"{gain:+.3g}"
            table.append(row)
    return table


def _by_number(group: str) -> tuple[float, str]:
    head = group.split(" ")[0]
    return (float(head) if head.lstrip("-").isdigit() else 0.0, group)


class InPrecision(nn.Module):
    """A network in "fp32", or with its layers in "bf16" through the blocks of ``enhance``, but without its level; (batch,
    sample) in and out, float32.

    Raises:
        ConfigError: a precision that is not known, or not there on this device.
    """

    def __init__(self, model: nn.Module, precision: str) -> None:
        super().__init__()
        self.model, self.precision = model.eval(), precision
        autocast(precision, "cpu")

    def forward(self, waveform: Tensor) -> Tensor:
        if self.precision == "fp32":
            return self.model(waveform).float()
        path = signal_path(self.model, len(waveform), waveform.shape[-1] / SAMPLE_RATE, precision=self.precision)
        blocks = [path.push(waveform.cpu().numpy()), path.flush()]
        enhanced = np.concatenate(blocks, axis=1)[:, : waveform.shape[-1]]  # (batch, sample)
        return torch.from_numpy(enhanced).to(waveform.device)


def _in_precision(text: str) -> tuple[str, str]:
    """Weights and precision of ``weights`` or ``weights@precision``."""
    weights, at, precision = text.rpartition("@")
    return (weights, precision) if at and precision in PRECISIONS else (text, "fp32")


def publish(
    models: Mapping[str, str],
    corpus: Mapping[str, str],
    count: int = 120,
    folder: str | Path | None = None,
    workers: int | None = None,
    progress: bool = True,
    dnsmos: bool = False,
    prefix: str = "real",
    split: str = "test",
    reuse: bool = False,
    others: Sequence[str] = (),
) -> list[Path]:
    """Score the noisy input and the models on the test (or valid) split; write the five result files.

    Args:
        models: name in the table -> shipped name or path of weights; behind it ``@bf16`` for that precision of the
            layers, as ``enhance --precision bf16`` takes it.
        corpus: {"speech", "noise"}: manifests with that split.
        count: mixtures.
        folder: results/ when None.
        workers: processes that score; all cores, 8 at most, when None.
        progress: show progress bars.
        dnsmos: score DNSMOS as well; needs the extra of that name.
        prefix: the files are ``<prefix>_test.json``, ``<prefix>_paired.json`` and so on; of the split valid
            ``<prefix>_valid.json``, ``<prefix>_valid_paired.json`` and so on.
        split: "test"; "valid" is for choosing, e.g. whether a teacher is far enough ahead to teach.
        reuse: take the scores of the file that stands there where the weights, their precision, the mixtures, the
            metrics and the versions of all packages are the same, and score the other systems only.
        others: denoisers of other projects, names of :data:`~dccrn_lib.experiments.other_denoisers.OTHERS`, with the
            weights of their installed packages.

    Returns:
        The files.

    Raises:
        ConfigError: "noisy" or the name of one of ``others`` is taken by a model, or no model is named; one of
            ``others`` is unknown or not installed; another split; bf16 on a CPU that only
            emulates it; with ``reuse``, the file that stands there is no such table.
    """
    if not models or "noisy" in models:
        raise ConfigError('name the models as system=weights, e.g. student_alone=distil_dccrn; "noisy" is taken')
    taken = [name for name in others if name in models]
    if taken:
        raise ConfigError(f"{taken[0]} names a model and one of the others; give the model another name")
    metrics = ALL_METRICS if dnsmos else REFERENCE_METRICS
    foreign = {name: OtherDenoiser(name) for name in others}
    mixtures = real_mixtures(corpus, count, split)
    chosen = {name: _in_precision(text) for name, text in models.items()}
    ours = {name: InPrecision(load_model(w), kind) for name, (w, kind) in chosen.items()}
    systems: dict[str, nn.Module | None] = {"noisy": None, **ours, **foreign}
    cards = {name: read_card(weights) for name, (weights, _) in chosen.items()}
    scored = [f"{name}={portable(text)}" for name, text in models.items()]
    given = [f"--split={split}", f"--count={count}", *(["--dnsmos"] if dnsmos else []), f"--prefix={prefix}"]
    given += [f"--others={','.join(others)}"] if others else []
    common = {
        "command": shlex.join(
            ["python", "-m", "dccrn_lib", "experiment", "shipped-weights", *scored, *manifest_options(corpus), *given]
        ),
        "config": {
            "mix": repr(MIX),
            "models": {name: card["sha256"] for name, card in cards.items()}
            | {name: model.digest for name, model in foreign.items()},
            "precision": {name: kind for name, (_, kind) in chosen.items()},
            **({"others": {name: model.package for name, model in foreign.items()}} if others else {}),
        },
        "seed": SEEDS[split],
        "data_hash": data_hash({"speech": corpus["speech"], "noise": corpus["noise"], "rir": ""}),
    }
    folder = Path(folder or results_dir())
    known = _scored_before(folder / f"{prefix}_{split}.json", common, metrics, count) if reuse else {}
    todo = {name: model for name, model in systems.items() if name not in known}
    new = evaluate_systems(todo, mixtures, metrics, workers, progress) if todo else {}
    items = {name: known.get(name) or new[name] for name in systems}
    hours = {name: card["card"].get("hours_of_audio") for name, card in cards.items()}
    payloads = _payloads(items, metrics, split, hours, others)
    if others:
        payloads[split]["note"] += _about_others(foreign)
    # the tables of the test split stay where those of valid are made
    stem = prefix if split == "test" else f"{prefix}_{split}"
    names = {name: f"{prefix}_{split}" if name == split else f"{stem}_{name}" for name in payloads}
    return [save_result(names[name], {**common, **payload}, folder) for name, payload in payloads.items()]


def _about_others(foreign: Mapping[str, OtherDenoiser]) -> str:
    packages = ", ".join(f"{name} ({model.package}, {model.delay} samples late)" for name, model in foreign.items())
    at_48 = [name for name in foreign if OTHERS[name].rate != SAMPLE_RATE]
    return (
        f" Of other projects, with the weights in their packages and their delay taken out: {packages}. What they were "
        "trained on is theirs; whether these recordings were among it is not known to us. Ours were trained on other "
        "speakers and noises of the same collections, which favours ours."
        + (f" {' and '.join(at_48)} work at 48 kHz: in and out they are resampled." if at_48 else "")
    )


def _scored_before(
    file: Path, common: Mapping[str, Any], metrics: Sequence[str], count: int
) -> dict[str, list[dict[str, Any]]]:
    """Items of the systems in a former result that would be scored alike today; none where there is no such file."""
    if not file.is_file():
        return {}
    record = load_result(file.stem, file.parent)
    try:
        return _scored_alike(record, common, metrics, count)
    except (AttributeError, KeyError, TypeError):
        raise ConfigError(f"{file} is no table of shipped-weights; move it away, or leave --reuse out") from None


def _scored_alike(
    record: Mapping[str, Any], common: Mapping[str, Any], metrics: Sequence[str], count: int
) -> dict[str, list[dict[str, Any]]]:
    """Items of the systems of a record with the same weights, precision, mixtures, metrics and versions."""
    then, now = record["config"], common["config"]
    same = (
        then["mix"] == now["mix"]
        and all(record[key] == common[key] for key in ("seed", "data_hash"))
        and record["environment"]["versions"] == environment_record()["versions"]
    )
    found = {}
    for name, system in record["systems"].items() if same else ():
        weights = then["models"].get(name) == now["models"].get(name)  # the noisy input has none
        kind = then.get("precision", {}).get(name, "fp32") == now["precision"].get(name, "fp32")
        items = system["items"]
        if weights and kind and len(items) == count and all(set(metrics) <= item.keys() for item in items):
            found[name] = items
    return found


def _payloads(
    items: Mapping[str, Sequence[Mapping[str, Any]]],
    metrics: Sequence[str],
    split: str,
    hours: Mapping[str, float | None],
    others: Sequence[str] = (),
) -> dict[str, dict[str, Any]]:
    """Name of a result after its prefix -> its title, note and content, without what all of them share."""
    title = f"Real recordings, {len(items['noisy'])} mixtures of the {split} split"
    trained = ", ".join(f"{name}: {'unknown' if h is None else f'{h:g} h'}" for name, h in hours.items())
    names = [METRICS[metric].column for metric in PAPER_CLIPS["noisy"]]
    return {
        split: {
            "title": title,
            "note": f"Dry mixtures of speakers and noise recordings that no training has seen. Hours of audio "
            f"passed through each network: {trained}, mixed from what the manifests hold; the paper's data, the DNS "
            "Challenge, holds hundreds of hours of speech, and its test set is another: these are not the paper's numbers.",
            "columns": list(metrics),
            "systems": {name: {"items": rows} for name, rows in items.items()},
        },
        "paired": {
            "title": f"{title}: differences mixture by mixture",
            "rows": paired(items, metrics),
            "note": "Mean, 95 % interval (bootstrap over the mixtures) and verdict. One training each: the interval "
            "says nothing about other seeds.",
        },
        "beside_paper": {
            "title": f"{title}, beside the clips released with the paper",
            "rows": beside_paper({name: rows for name, rows in items.items() if name not in others}),
            "columns": ["of", "system", "n", *names, *(f"{name} over noisy" for name in names)],
            "note": "Two test sets and two amounts of data: read across them only what each system gains over its own "
            "noisy input, and that with care, since a gain depends on the SNR too. The data of the paper's networks, the "
            "DNS Challenge, holds hundreds of hours of speech, and the eight clips were chosen by its authors; ours are "
            "taught by AT-KL in our reading.",
        },
        "by_snr": {"title": f"{title}, by SNR", "rows": breakdown(items, lambda i: snr_band(i["snr_db_in"]), "SNR")},
        "by_noise": {
            "title": f"{title}, by source of the noise",
            "rows": breakdown(items, lambda i: "several" if "+" in i["label"] else i["label"], "noise"),
        },
    }
