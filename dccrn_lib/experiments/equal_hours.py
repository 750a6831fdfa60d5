"""Systems that one recipe trained for equally long, side by side: their course on valid, and their weights with cards.

    python -m dccrn_lib campaign --stage students --teacher uformer_best --seeds 0 --steps 6300 ... --out runs/mine
    python -m dccrn_lib experiment equal-hours runs/mine --name mine_training --weights mine

One campaign or several: each system and each seed may have had a folder of its own. What would make them unequal is
refused: another recipe, other recordings, another teacher, another number of steps, a stage that was not finished. The
scores on the test split are those of ``experiment shipped-weights``.

Source: ours.
"""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from dccrn_lib.experiments.recipe import STUDENTS, SYSTEMS, as_options, manifest_options, portable, recipe
from dccrn_lib.networks.weights import load_model, read_card, save_model
from dccrn_lib.results.records import require_not_read, save_result
from dccrn_lib.runtime.errors import ConfigError
from dccrn_lib.runtime.files import read_json, require_writable
from dccrn_lib.runtime.settings import flat, shown
from dccrn_lib.training.config import TrainConfig
from dccrn_lib.training.run_folder import CONFIG, WEIGHTS, with_newer_fields

REPORT = "stage_students.json"
#: Fields in which the systems of a comparison may differ: what each is, not how long or on what it learns.
OWN = ("model", "method", "reading", "normalisation", "seed")


class Trained(NamedTuple):
    """A system of a finished campaign.

    Attributes:
        name: as records and tables call it: ``student_at_kl``, ``dccrn_e``.
        seed: of its weights and mixtures.
        config: its fields, those of paths included.
        history: its losses and validations.
        inputs: SHA-256 by name (speech, noise, rir, teacher) of what it learnt from.
        weights: its best on valid.
        campaign: what ``stage_students.json`` says.
        command: that trains its campaign again.
    """

    name: str
    seed: int
    config: dict[str, Any]
    history: dict[str, Any]
    inputs: dict[str, str]
    weights: Path
    campaign: dict[str, Any]
    command: str


def load_campaign(out: str | Path) -> list[Trained]:
    """The systems of a campaign whose students are finished.

    Args:
        out: its folder; it may have been moved since.

    Raises:
        ConfigError: no such campaign there, or it was stopped, or the folder of a system is incomplete.
        DamagedFileError: a file of it is empty or cut off.
        WeightsError: weights are damaged or gone.
    """
    out = Path(out)
    if not (out / REPORT).is_file():
        raise ConfigError(f"{out}: no {REPORT}; name the --out folder of a `campaign` that trained students")
    cure = "give the command of the campaign again"
    report = read_json(out / REPORT, cure)
    if report.get("stopped", True):
        raise ConfigError(f"{out}: stopped after {report.get('steps')} steps; the same `campaign` command resumes it")
    newest = recipe({"speech": "", "noise": "", "rir": ""}, "")
    configs, histories = {}, {}
    for system in report.get("systems", ()):
        try:
            configs[system] = with_newer_fields(read_json(out / system / CONFIG, cure), newest)
            histories[system] = read_json(out / system / "history.json", cure)
        except FileNotFoundError as error:
            raise ConfigError(f"{error.filename}: gone; restore it, or train {system} anew in another folder") from None
        if not histories[system].get("valid"):
            raise ConfigError(f"{out / system / 'history.json'}: holds no validation; {cure}, in another folder")
    if not configs:
        raise ConfigError(f"{out / REPORT}: names no systems; {cure}, in another folder")
    command = _command(out, report, list(configs.values()))
    return [
        Trained(
            _name(system),
            config["seed"],
            config,
            histories[system],
            report.get("inputs", {}).get(system, {}),
            out / system / WEIGHTS,
            report,
            command,
        )
        for system, config in configs.items()
    ]


def _name(system: str) -> str:
    """The name in records: ``distil_dccrn_at_kl_seed0`` is ``student_at_kl``."""
    return re.sub(r"_seed\d+$", "", system).replace("distil_dccrn_", "student_")


def _command(out: Path, report: Mapping, configs: Sequence[Mapping]) -> str:
    """The call of ``campaign`` that trains its students again, manifests by their file names."""
    first = configs[0]
    systems = [re.sub(r"_seed\d+$", "", system) for system in report["systems"]]
    words = ["python -m dccrn_lib campaign --stage students"]
    words += sorted({f"--teacher {portable(c['teacher'])}" for c in configs if c["teacher"]})
    words.append(f"--seeds {','.join(map(str, sorted({c['seed'] for c in configs})))}")
    words.append(f"--systems {','.join(name for name in SYSTEMS if name in systems)}")
    words.append(f"--minutes {report['minutes']:g}" if report["minutes"] else f"--steps {report['steps']}")
    manifests = {kind: first[kind] for kind in ("speech", "noise", "rir")}
    words += manifest_options(manifests)
    words.append(f"--out runs/{out.resolve().name}")
    size = "smoke" if first["model"].endswith("_mini") else "full"
    words += ["--size smoke"] if size == "smoke" else []
    usual = flat(recipe(manifests, "", size))
    decided = ("out", "teacher", "steps", *OWN)
    given = {k: v for k, v in flat(first).items() if k in usual and k not in decided}
    given = {k: tuple(v) if isinstance(v, list) else v for k, v in given.items()}
    return " ".join([*words, *as_options({k: v for k, v in given.items() if v != usual[k]})])


def require_equal(systems: Sequence[Trained]) -> None:
    """ConfigError unless these were trained by one recipe, for equally many steps, on the same recordings, by one teacher.

    Also if there is none, or one of them comes twice.
    """
    if not systems:
        raise ConfigError("name at least one folder of a campaign")
    deciding = {f.name for f in dataclasses.fields(TrainConfig) if f.metadata.get("decides", True) is True}
    first, seen = systems[0], set()
    taught: dict[str, str] = {}
    for one in systems:
        who = f"{one.name} of seed {one.seed}"
        if (one.name, one.seed) in seen:
            raise ConfigError(f"{who} is there twice; leave one of its campaigns out")
        seen.add((one.name, one.seed))
        had, has = flat(_only(first.config, deciding)), flat(_only(one.config, deciding))
        for key, value in has.items():
            if key not in OWN and had.get(key) != value:
                raise ConfigError(
                    f"{who} was trained with {key} = {shown(value)}, {first.name} of seed {first.seed} with "
                    f"{shown(had.get(key))}: these are not equal hours by one recipe"
                )
        if _steps(one) != _steps(first):
            raise ConfigError(f"{who} was validated at other steps than {first.name}; train both with --steps")
        for kind, digest in one.inputs.items():
            if taught.setdefault(kind, digest) != digest:
                what = "by another teacher" if kind == "teacher" else f"on other {kind}"
                raise ConfigError(f"{who} was trained {what} than those before it")


def _only(config: Mapping, names: set[str]) -> dict[str, Any]:
    return {key: value for key, value in config.items() if key in names}


def _steps(one: Trained) -> list[int]:
    return [v["step"] for v in one.history["valid"]]


def course(systems: Sequence[Trained]) -> list[dict]:
    """The rows of the table: SI-SNR on valid in dB of every system at each validation, below each other by seed."""
    seeds = sorted({one.seed for one in systems})
    rows = []
    for seed in seeds:
        of_seed = [one for one in systems if one.seed == seed]
        for i, now in enumerate(of_seed[0].history["valid"]):
            head = {"seed": seed} if len(seeds) > 1 else {}
            scores = {one.name: round(one.history["valid"][i]["si_snr_db"], 2) for one in of_seed}
            hours, noisy = round(now["hours"], 2), round(now["noisy_si_snr_db"], 2)
            rows.append({**head, "hours of audio each": hours, "noisy": noisy, **scores})
    return rows


def publish(
    runs: Sequence[str | Path],
    name: str = "equal_hours_mine_training",
    title: str = "",
    weights: str | Path | None = None,
    card: Mapping[str, Any] | None = None,
    folder: str | Path | None = None,
) -> list[Path]:
    """Write ``<folder>/<name>.json`` from finished campaigns, and the best weights of every system with a card.

    Args:
        runs: folders of campaigns.
        name: of the result.
        title: what the table is about.
        weights: folder for ``<system>.safetensors`` (of several seeds in ``seed<S>/``); None writes none.
        card: what is said on every card beside what the campaign knows: data, licences, limits.
        folder: results/ of the project when None.

    Returns:
        The files: the record, then the weights.

    Raises:
        ConfigError: as of :func:`load_campaign` and :func:`require_equal`, or other weights of that name are there
            already, or the record is a file that is read. Nothing was written then.
        DamagedFileError, WeightsError: as of :func:`load_campaign`.
    """
    systems = sorted((one for run in runs for one in load_campaign(run)), key=_place_in_table)
    require_equal(systems)
    for run in runs:
        require_not_read(name, folder, Path(run) / REPORT)
    several = len({one.seed for one in systems}) > 1
    bases = [_base(one, weights, several) for one in systems] if weights else []
    models = [load_model(one.weights) for one in systems]
    for one, base in zip(systems, bases, strict=bool(bases)):
        _require_no_other(base, one.weights)
    steps = _steps(systems[0])[-1]
    written = [save_result(name, _payload(systems, title, several), folder)]
    for one, base, model in zip(systems, bases, models, strict=bool(bases)):
        kept = read_card(one.weights)["card"]
        told = {
            "title": f"{one.name}: one of the systems that one recipe trained for equally long",
            "system": one.name,
            "seed": one.seed,
            "steps": steps,
            **kept,
            "valid_items": f"{one.config['valid_mixtures']} mixtures of 4 s of the valid split",
            "inputs": one.inputs,
            "command": one.command,
            "commit": one.campaign.get("environment", {}).get("git_commit"),
            "history": f"results/{name}.json",
            **(card or {}),
        }
        written.append(save_model(model, base, told))
    return written


def _payload(systems: Sequence[Trained], title: str, several: bool) -> dict[str, Any]:
    """What the record holds: the table, and whole configs and histories, paths of this machine left out."""
    first = systems[0]
    names = list(dict.fromkeys(one.name for one in systems))
    paths = {f.name for f in dataclasses.fields(TrainConfig) if f.metadata.get("decides", True) is not True}
    trained = {
        f"{one.name}_seed{one.seed}" if several else one.name: {
            "config": {k: v for k, v in one.config.items() if k not in paths}
            | {"teacher": portable(one.config["teacher"])},
            "history": one.history,
            "inputs": one.inputs,
        }
        for one in systems
    }
    seeds = sorted({one.seed for one in systems})
    mix = first.config["mix"]
    return {
        "title": title or f"Equal hours: {', '.join(names)}",
        "note": f"SI-SNR in dB on {first.config['valid_mixtures']} fixed mixtures of the valid split (4 s each), averaged "
        f"weights; {_steps(first)[-1]} steps of {first.config['batch_size']} x {mix['segment_seconds']:g} s each. Weights "
        "are kept of the best validation.",
        "command": list(dict.fromkeys(one.command for one in systems)),
        "config": {"seeds": seeds, "inputs": {k: v for one in systems for k, v in one.inputs.items()}},
        "seed": seeds,
        "data_hash": "",
        "columns": [*(["seed"] if several else []), "hours of audio each", "noisy", *names],
        "rows": course(systems),
        "stages": list({one.command: {"command": one.command, **one.campaign} for one in systems}.values()),
        "systems_trained": trained,
    }


def _place_in_table(one: Trained) -> tuple:
    """Seeds first, the students from no teacher to most of it, then the others."""
    order = [_name(f"{system}_seed0") for system in STUDENTS]
    return one.seed, order.index(one.name) if one.name in order else len(order)


def _base(one: Trained, folder: str | Path, several: bool) -> Path:
    """Where the weights of a system go, without suffix."""
    return Path(folder, f"seed{one.seed}", one.name) if several else Path(folder, one.name)


def _require_no_other(base: Path, weights: Path) -> None:
    """ConfigError if other weights are there already, or these themselves, whose card would be lost."""
    there = base.with_name(f"{base.name}.safetensors")
    if there.exists() and (there.samefile(weights) or there.read_bytes() != weights.read_bytes()):
        raise ConfigError(f"{there}: weights are there already; choose another folder for --weights, or move them away")
    require_writable(there)
