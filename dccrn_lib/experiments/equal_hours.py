"""Systems that one recipe trained for equally long, side by side: their course on valid, and their weights with cards.

    python -m dccrn_lib campaign --stage students --teacher uformer_best --seeds 0 --steps 6300 ... --out runs/mine
    python -m dccrn_lib experiment equal-hours runs/mine --name mine_training --weights mine

One campaign or several: each system and each seed may have had a folder of its own. What would make them unequal is
refused: another recipe, other recordings, another teacher, another number of steps, a stage that was not finished, and
campaigns of several folders that do not say what they learnt from. The scores on the test split are those of
``experiment shipped-weights``.

Source: ours.
"""

from __future__ import annotations

import dataclasses
import math
import re
import shlex
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from dccrn_lib.corpus.mix_config import MixConfig
from dccrn_lib.experiments.recipe import STUDENTS, SYSTEMS, as_options, manifest_options, portable, recipe
from dccrn_lib.networks.weights import load_model, read_card, save_model
from dccrn_lib.results.records import require_not_read, save_result
from dccrn_lib.runtime.errors import ConfigError, DamagedFileError, WeightsError
from dccrn_lib.runtime.files import read_json, require_writable
from dccrn_lib.runtime.paths import results_dir
from dccrn_lib.runtime.settings import flat, shown
from dccrn_lib.training.config import TrainConfig
from dccrn_lib.training.run_folder import CONFIG, WEIGHTS, with_newer_fields
from dccrn_lib.training.validation import VALID_SETS

REPORT = "stage_students.json"
HISTORY = "history.json"
_CURE = "remove it and give the command of the campaign again"  # of the report: one that is whole ends the call at once
_NUMBER = (int, float)
#: Validations of two systems on the same mixtures agree in the SI-SNR of what is noisy, in dB, up to rounding.
_SAME_MIXTURES = 0.01
#: Fields in which the systems of a comparison may differ: what each is, not how long or on what it learns.
OWN = ("model", "method", "reading", "normalisation", "seed")


class Trained(NamedTuple):
    """A system of a finished campaign.

    Attributes:
        name: as records and tables call it: ``student_at_kl``, ``dccrn_e``.
        seed: of its weights and mixtures.
        config: its fields, those of paths included, and as they are by default those that ``config.json`` lacks.
        history: its losses and validations.
        inputs: SHA-256 by name (speech, noise, rir, teacher) of what it learnt from.
        weights: its best on valid.
        campaign: what ``stage_students.json`` says.
        command: that trains its campaign again, and before it the teacher where that is the campaign's own.
        assumed: fields that are newer than its ``config.json``.
    """

    name: str
    seed: int
    config: dict[str, Any]
    history: dict[str, Any]
    inputs: dict[str, str]
    weights: Path
    campaign: dict[str, Any]
    command: str
    assumed: tuple[str, ...] = ()


def load_campaign(out: str | Path) -> list[Trained]:
    """The systems of a campaign whose students are finished.

    Args:
        out: its folder; it may have been moved since.

    Raises:
        ConfigError: no such campaign there, or it was stopped, or the folder of a system is incomplete.
        DamagedFileError: a file of it is empty, cut off or holds something else.
    """
    out = Path(out)
    if not (out / REPORT).is_file():
        raise ConfigError(f"{out}: no {REPORT}; name the --out folder of a `campaign` that trained students")
    report = read_json(out / REPORT, _CURE)
    if report.get("stopped", True):
        raise ConfigError(f"{out}: stopped after {report.get('steps')} steps; the same `campaign` command resumes it")
    _require_kinds(out / REPORT, {"inputs": {}, **report}, {"systems": Mapping, "inputs": Mapping, "steps": int})
    newest = recipe({"speech": "", "noise": "", "rir": ""}, "")
    configs, histories, assumed = {}, {}, {}
    for system in report["systems"]:
        cure = f"restore it, or train {system} anew in another folder"
        try:
            held = read_json(out / system / CONFIG, cure)
            histories[system] = read_json(out / system / HISTORY, cure)
        except FileNotFoundError as error:
            raise ConfigError(f"{error.filename}: gone; {cure}") from None
        configs[system] = with_newer_fields(held, newest)
        _require_kinds(out / system / CONFIG, flat(configs[system]), {k: _kind(v) for k, v in flat(newest).items()})
        assumed[system] = tuple(name for name in flat(configs[system]) if name not in flat(held))
        _require_validations(out / system / HISTORY, histories[system])
    if not configs:
        raise ConfigError(f"{out / REPORT}: names no systems; train anew in another folder")
    inputs = {system: report.get("inputs", {}).get(system) or {} for system in configs}
    _require_kinds(out / REPORT, inputs, dict.fromkeys(configs, Mapping))
    command = _command(out, report, list(configs.values()))
    return [
        Trained(
            _name(system),
            config["seed"],
            config,
            histories[system],
            inputs[system],
            out / system / WEIGHTS,
            report,
            command,
            assumed[system],
        )
        for system, config in configs.items()
    ]


def _kind(value: Any) -> Any:
    """What a field is in JSON."""
    return _NUMBER if isinstance(value, float) else list if isinstance(value, tuple) else type(value)


def _require_kinds(path: Path, held: Mapping[str, Any], kinds: Mapping[str, Any]) -> None:
    """DamagedFileError unless a record holds these keys, with values of these kinds."""
    for key, kind in kinds.items():
        if not isinstance(held.get(key), kind):
            raise DamagedFileError(
                f"{path}: is damaged ({key} is {shown(held.get(key))}); restore it, or train anew in another folder"
            )


def _require_validations(path: Path, history: Mapping[str, Any]) -> None:
    """ConfigError if a history holds no validation or a training diverged, DamagedFileError if one is incomplete."""
    if not history.get("valid"):
        raise ConfigError(f"{path}: holds no validation; train anew in another folder")
    _require_kinds(path, history, {"valid": list})
    for each in history["valid"]:
        kinds = {"step": int, "hours": _NUMBER, "si_snr_db": _NUMBER, "noisy_si_snr_db": _NUMBER}
        _require_kinds(path, each if isinstance(each, Mapping) else {}, kinds)
        if not math.isfinite(each["si_snr_db"]):
            raise ConfigError(
                f"{path}: SI-SNR of step {each['step']} is {each['si_snr_db']}: the training diverged; leave its campaign "
                "out, or train it anew in another folder with a lower learning rate"
            )


def _name(system: str) -> str:
    """The name in records: ``distil_dccrn_at_kl_seed0`` is ``student_at_kl``."""
    return re.sub(r"_seed\d+$", "", system).replace("distil_dccrn_", "student_")


def _command(out: Path, report: Mapping, configs: Sequence[Mapping]) -> str:
    """The call of ``campaign`` that trains its students again, manifests by their file names.

    A teacher that the campaign itself has trained is trained by a call before it.
    """
    teachers = {c["teacher"]: Path(c["out"]).parent / "uformer" / WEIGHTS for c in configs if c["teacher"]}
    own = any(Path(teacher) == place for teacher, place in teachers.items())
    systems = [re.sub(r"_seed\d+$", "", system) for system in report["systems"]]
    words = [] if own else sorted({f"--teacher={portable(teacher)}" for teacher in teachers})
    words.append(f"--systems={','.join(name for name in SYSTEMS if name in systems)}")
    students = _call("students", words, out, report, configs)
    first, learnt = out / "stage_teacher.json", out / "uformer" / CONFIG
    if not (own and first.is_file() and learnt.is_file()):
        return students
    newest = recipe({"speech": "", "noise": "", "rir": ""}, "")
    config = with_newer_fields(read_json(learnt, _CURE), newest)
    _require_kinds(learnt, flat(config), {k: _kind(v) for k, v in flat(newest).items()})
    stage = read_json(first, _CURE)
    _require_kinds(first, stage, {"steps": int})
    return f"{_call('teacher', [], out, stage, [config])} && {students}"


def _call(stage: str, words: Sequence[str], out: Path, report: Mapping, configs: Sequence[Mapping]) -> str:
    """The call of ``campaign`` for one of its stages."""
    first = configs[0]
    # in the order of the call, the first seed first: it is that of DCCRN-E
    seeds = ",".join(map(str, dict.fromkeys(c["seed"] for c in configs)))
    length = f"--minutes={report['minutes']}" if report.get("minutes") else f"--steps={report['steps']}"
    manifests = {kind: first[kind] for kind in ("speech", "noise", "rir")}
    size = "smoke" if first["model"].endswith("_mini") else "full"
    usual = flat(recipe(manifests, "", size))
    decided = ("out", "teacher", "steps", *OWN)
    given = {k: v for k, v in flat(first).items() if k in usual and k not in decided}
    given = {k: tuple(v) if isinstance(v, list) else v for k, v in given.items()}
    return shlex.join(
        [
            *("python", "-m", "dccrn_lib", "campaign", f"--stage={stage}", f"--seeds={seeds}", *words, length),
            *manifest_options(manifests),
            f"--out=runs/{out.resolve().name}",
            *(["--size=smoke"] if size == "smoke" else []),
            *as_options({k: v for k, v in given.items() if v != usual[k]}),
        ]
    )


def require_equal(systems: Sequence[Trained]) -> None:
    """ConfigError unless these were trained by one recipe, for equally many steps, on the same recordings, by one teacher.

    Also if there is none, or one of them comes twice.
    """
    if not systems:
        raise ConfigError("name at least one folder of a campaign")
    deciding = {f.name for f in dataclasses.fields(TrainConfig) if f.metadata.get("decides", True) is True}
    first, seen = systems[0], set()
    taught: dict[str, str] = {}
    noisy = [v["noisy_si_snr_db"] for v in first.history["valid"]]
    several = len({one.weights.parent.parent for one in systems}) > 1
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
        if any(
            abs(v["noisy_si_snr_db"] - n) > _SAME_MIXTURES for v, n in zip(one.history["valid"], noisy, strict=True)
        ):
            raise ConfigError(
                f"{who} was validated on other mixtures than {first.name}: what is noisy scores otherwise"
            )
        needed = ("speech", "noise", "rir", *(["teacher"] if one.config["teacher"] else []))
        if several and (silent := [kind for kind in needed if kind not in one.inputs]):
            raise ConfigError(
                f"{one.weights.parent.parent / REPORT}: does not say by which {silent[0]} {one.name} was trained, so that "
                "it cannot be told whether it is that of the other campaigns; publish it on its own"
            )
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
        card: what is said on every card beside what the campaign knows: data, licences, limits; a title of its own.
        folder: results/ of the project when None.

    Returns:
        The files: the record, then the weights.

    Raises:
        ConfigError: as of :func:`load_campaign` and :func:`require_equal`, or other files of that name are there
            already, or the record is a file that is read, or ``card`` says otherwise than the campaign. Nothing was
            written then.
        DamagedFileError: as of :func:`load_campaign`.
        WeightsError: weights are damaged or gone.
    """
    systems = sorted((one for run in runs for one in load_campaign(run)), key=_place_in_table)
    require_equal(systems)
    read = [Path(run) / REPORT for run in runs]
    for one in systems:
        home = one.weights.parent
        read += [home / CONFIG, home / HISTORY, one.weights, one.weights.with_suffix(".json")]
    for file in read:
        require_not_read(name, folder, file)
    record = Path(folder or results_dir()) / f"{name}.json"
    several = len({one.seed for one in systems}) > 1
    bases = [_base(one, weights, several) for one in systems] if weights else []
    models = [load_model(one.weights) for one in systems]
    cards = [_card(one, record, card or {}) for one in systems]
    for one, base, told in zip(systems, bases, cards, strict=bool(bases)):
        _require_no_other(base, one.weights, record, told)
    written = [save_result(name, _payload(systems, title, several), folder)]
    for base, model, told in zip(bases, models, cards, strict=bool(bases)):
        written.append(save_model(model, base, told))
    return written


def _card(one: Trained, record: Path, more: Mapping[str, Any]) -> dict[str, Any]:
    """What the card of a system says; ConfigError where ``more`` says otherwise than its campaign."""
    kept = read_card(one.weights).get("card", {})
    best = {"step": kept.get("step"), **kept["valid"]} if isinstance(kept.get("valid"), Mapping) else {}
    if not any(best.items() <= validation.items() for validation in one.history["valid"]) or not best:
        raise WeightsError(f"{one.weights}: not of a validation in {HISTORY} beside it; put back those of its training")
    commits = list(dict.fromkeys(e.get("git_commit") for e in _environments(one.campaign)))
    told = {
        "title": f"{one.name}: one of the systems that one recipe trained for equally long",
        "system": one.name,
        "seed": one.seed,
        "steps": _steps(one)[-1],
        **kept,
        "valid_items": f"{one.config['valid_mixtures']} mixtures of {_valid_seconds(one):g} s of the valid split",
        "inputs": one.inputs,
        "command": one.command,
        "commit": commits[0] if len(commits) == 1 else commits,
        "history": portable(str(record)),
    }
    for key, value in more.items():
        known = key != "title" and not (key == "commit" and None in commits)
        if known and told.get(key) not in (None, value):
            raise ConfigError(f"the card says {key} = {shown(value)}, the campaign {shown(told[key])}; leave it out")
    return {**told, **more}


def _environments(campaign: Mapping) -> list[Mapping]:
    """Those of all calls that trained a campaign, the last one last; an empty one where it is not known."""
    found = [*(campaign.get("earlier_environments") or []), campaign.get("environment")]
    return [each if isinstance(each, Mapping) else {} for each in found]


def _valid_seconds(one: Trained) -> float:
    """Length of the mixtures that a campaign validates on."""
    return VALID_SETS["plain"](MixConfig(**one.config["mix"])).segment_seconds


def _payload(systems: Sequence[Trained], title: str, several: bool) -> dict[str, Any]:
    """What the record holds: the table, whole histories, and of the configs what decides: no path of this machine."""
    first = systems[0]
    names = list(dict.fromkeys(one.name for one in systems))
    paths = {f.name for f in dataclasses.fields(TrainConfig) if f.metadata.get("decides", True) is not True}
    trained = {
        f"{one.name}_seed{one.seed}" if several else one.name: {
            "config": {k: v for k, v in one.config.items() if k not in (*paths, *one.assumed)}
            | {"teacher": portable(one.config["teacher"])},
            **({"assumed": {k: flat(one.config)[k] for k in one.assumed if k not in paths}} if one.assumed else {}),
            "history": one.history,
            "inputs": one.inputs,
        }
        for one in systems
    }
    seeds = sorted({one.seed for one in systems})
    mix = first.config["mix"]
    newer = sorted({name for one in systems for name in one.assumed if name not in paths})
    assumed = f" Fields that are newer than a training, taken to be as by default: {', '.join(newer)}." if newer else ""
    return {
        "title": title or f"Equal hours: {', '.join(names)}",
        "note": f"SI-SNR in dB on {first.config['valid_mixtures']} fixed mixtures of the valid split "
        f"({_valid_seconds(first):g} s each), {'averaged' if first.config['ema_decay'] else 'unaveraged'} "
        f"weights; {_steps(first)[-1]} steps of {first.config['batch_size']} x {mix['segment_seconds']:g} s each. Weights "
        f"are kept of the best validation.{assumed}",
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


def _require_no_other(base: Path, weights: Path, record: Path, told: Mapping[str, Any]) -> None:
    """ConfigError if other weights are there already, or a card with more than ``told``, or these weights, or no place."""
    there, card = (base.with_name(f"{base.name}{suffix}") for suffix in (".safetensors", ".json"))
    if there.exists() and (there.samefile(weights) or there.read_bytes() != weights.read_bytes()):
        raise ConfigError(f"{there}: weights are there already; choose another folder for --weights, or move them away")
    if card.resolve() == record.resolve() or (card.exists() and not there.exists()):
        raise ConfigError(f"{card}: no card of these weights, and would be lost; choose another folder for --weights")
    if card.exists():
        said = read_json(card, "move it away").get("card") or {}
        if lost := sorted(said.keys() - told.keys()):
            raise ConfigError(
                f"{card}: says {', '.join(lost)} too, which would be lost; give --card, or another folder"
            )
    nearest = next(place for place in base.parents if place.exists())
    if not nearest.is_dir():
        raise ConfigError(f"{there}: {nearest} is a file, not a folder; choose another folder for --weights")
    require_writable(there)
