"""Several networks at once: what each learns alone, the same mixtures for all, resumable, timed, on the device."""

from __future__ import annotations

import json
from dataclasses import replace

import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode

from dccrn_lib.cli import main as cli
from dccrn_lib.corpus.mixing import MixtureDataset
from dccrn_lib.experiments.campaign import SEARCH, plan, search
from dccrn_lib.experiments.recipe import STUDENTS, recipe
from dccrn_lib.networks.presets import build_model
from dccrn_lib.networks.weights import load_model, save_model
from dccrn_lib.runtime.errors import ConfigError, DccrnError
from dccrn_lib.runtime.files import write_json
from dccrn_lib.training import lockstep, objective, trainee
from dccrn_lib.training.config import ALONE_ONLY
from dccrn_lib.training.lockstep import Lockstep, Stage, run_stage
from dccrn_lib.training.loop import train
from dccrn_lib.training.schedule import rate_factor

pytestmark = pytest.mark.usefixtures("one_thread")


@pytest.fixture(scope="module")
def teacher(tmp_path_factory):
    torch.manual_seed(7)
    return str(save_model(build_model("uformer_mini"), tmp_path_factory.mktemp("teacher") / "teacher"))


def config(corpus, out, **changes):
    settings = {"model": "distil_dccrn_mini", "device": "cpu", "valid_mixtures": 2, **changes}
    return recipe(corpus, out, "smoke", **settings)


def history(folder) -> dict:
    return json.loads((folder / "history.json").read_text())


@pytest.mark.parametrize("method, optimiser", [("none", "adam"), ("none", "muon"), ("at_kl", "muon")])
def test_learns_what_the_plain_loop_learns(corpus, teacher, tmp_path, method, optimiser):
    options = {"method": method, "teacher": teacher if method != "none" else "", "optimiser": optimiser}
    decay = 20.0 * (method == "at_kl")  # strong enough to be seen after three steps
    c = config(
        corpus,
        tmp_path / "a",
        **options,
        muon_weight_decay=decay,
        normalisation="softmax",
        warmup_steps=1,
        decay_fraction=1e-9,
    )
    run_stage(Stage("one", {"one": c}, 1.0), tmp_path, steps=3, progress=False)
    together = history(tmp_path / "a")
    steps = together["train"]  # so short a stage validates after every step
    alone = train(replace(c, out=str(tmp_path / "b"), steps=3, valid_every=3), progress=False).history
    assert steps[-1]["learning_rate"] == pytest.approx(alone["train"][0]["learning_rate"])  # that of Adam
    for term in ("clean", "teacher", "features"):
        if term in alone["train"][0]:
            mean = sum(step[term] for step in steps) / len(steps)
            assert len(steps) == 3 and mean == pytest.approx(alone["train"][0][term], rel=2e-5)
    assert together["balance"] == pytest.approx(alone["balance"], rel=1e-5)
    first, second = load_model(tmp_path / "a" / "best"), load_model(tmp_path / "b" / "best")
    # Muon makes a full step out of the smallest gradient, so that rounding shows; the output is compared
    x = 0.1 * torch.randn(1, 8000, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        assert (first(x) - second(x)).norm() < 2e-3 * second(x).norm()
    if decay:
        size = float(first.encoder[1].conv.weight_real.detach().square().mean())
        assert size == pytest.approx(float(second.encoder[1].conv.weight_real.detach().square().mean()), rel=1e-3)
        plain = config(corpus, tmp_path / "c", **options, normalisation="softmax", warmup_steps=1, decay_fraction=1e-9)
        run_stage(Stage("plain", {"one": plain}, 1.0), tmp_path, steps=3, progress=False)
        third = load_model(tmp_path / "c" / "best")
        assert size < 0.9 * float(third.encoder[1].conv.weight_real.detach().square().mean())


def test_systems_of_one_seed_see_the_same_mixtures_and_others_do_not(corpus, tmp_path):
    systems = {name: config(corpus, tmp_path / name, seed=seed) for name, seed in (("a", 0), ("b", 0), ("c", 1))}
    run_stage(Stage("three", systems, 1.0), tmp_path, steps=2, progress=False)
    clean = {name: history(tmp_path / name)["train"][-1]["clean"] for name in systems}
    assert clean["a"] == clean["b"]
    assert clean["a"] != clean["c"]


def test_rendered_on_the_device_a_stage_learns_the_same(corpus, teacher, tmp_path):
    means = {}
    for rendering in ("workers", "device"):
        out = tmp_path / rendering
        systems = {"taught": config(corpus, out / "taught", method="at_kl", teacher=teacher, rendering=rendering)}
        report = run_stage(Stage("one", systems, 1.0), out, steps=2, progress=False)
        assert report["rendering"] == rendering
        means[rendering] = history(out / "taught")["train"][0]
    assert means["device"] == pytest.approx(means["workers"], rel=1e-4)


def test_a_stopped_stage_goes_on_as_if_nothing_had_happened(corpus, teacher, tmp_path):
    def stage(folder):
        systems = {
            "alone": config(corpus, folder / "alone"),
            "taught": config(corpus, folder / "taught", method="at_kl", teacher=teacher, seed=1),
        }
        return Stage("pair", systems, 1.0)

    whole, parts = tmp_path / "whole", tmp_path / "parts"
    run_stage(stage(whole), whole, steps=20, progress=False)
    stopped = run_stage(stage(parts), parts, steps=20, stop_after=3, progress=False)
    assert stopped["stopped"] and stopped["steps"] == 3
    assert not run_stage(stage(parts), parts, steps=20, progress=False)["stopped"]
    for name in ("alone", "taught"):  # the first point after the stop is a mean of steps before and after it
        assert history(whole / name)["train"] == history(parts / name)["train"]
    a, b = (torch.load(f / "stage_pair.pt", weights_only=True)["systems"] for f in (whole, parts))
    for name in a:
        for part in ("model", "average"):
            for key, value in a[name][part].items():
                assert torch.equal(value, b[name][part][key]), (name, key)


def test_minutes_end_a_stage_with_its_rate_cooled_down(corpus, tmp_path):
    record = run_stage(
        Stage("timed", {"a": config(corpus, tmp_path / "a")}, 1.0), tmp_path, minutes=0.05, progress=False
    )
    assert not record["stopped"] and record["seconds"] >= 3.0 and record["steps"] > 1
    points = history(tmp_path / "a")
    assert points["valid"][-1]["step"] == record["steps"]
    assert points["train"][-1]["learning_rate"] < points["train"][0]["learning_rate"]
    assert run_stage(Stage("timed", {"a": config(corpus, tmp_path / "a")}, 1.0), tmp_path, minutes=0.05) == record


@pytest.mark.parametrize(
    "asked, words",
    [
        ({"steps": 3}, "steps = 2, asked for 3"),
        ({"minutes": 1.0}, "minutes = None, asked for 1.0"),
        ({"steps": 2, "systems": ("a", "b")}, "systems = a, asked for a, b"),
    ],
)
def test_a_finished_stage_is_not_taken_for_another_one(corpus, tmp_path, asked, words):
    def stage(names):
        return Stage("s", {name: config(corpus, tmp_path / name) for name in names}, 1.0)

    names = asked.pop("systems", ("a",))
    run_stage(stage(["a"]), tmp_path, steps=2, progress=False)
    with pytest.raises(ConfigError, match=words):
        run_stage(stage(names), tmp_path, progress=False, **asked)
    assert not (tmp_path / "b").exists()


def test_choosing_the_weight_of_the_features_leaves_no_graph_behind(corpus, teacher, tmp_path):
    """Captured steps would send gradients to the stream on which it was made."""
    systems = {"a": config(corpus, tmp_path / "a", method="at_kl", teacher=teacher)}
    balanced = Lockstep(Stage("s", systems, 1.0), tmp_path, progress=False).trainees["a"]
    assert balanced.state.history["balance"] and balanced.objective.tap is not None
    assert not balanced.objective.tap.features


def test_fewer_steps_than_were_made_are_refused(corpus, tmp_path):
    stage = Stage("s", {"a": config(corpus, tmp_path / "a")}, 1.0)
    run_stage(stage, tmp_path, steps=9, stop_after=4, progress=False)
    before = (tmp_path / "stage_s.pt").read_bytes()
    with pytest.raises(ConfigError, match="has made 4 steps, asked for 3"):
        run_stage(stage, tmp_path, steps=3, progress=False)
    assert (tmp_path / "stage_s.pt").read_bytes() == before


def test_rate_rises_stays_and_falls(corpus, tmp_path):
    c = config(corpus, tmp_path, warmup_steps=4, decay_fraction=0.5)
    assert [rate_factor(s, 0.1, c) for s in (0, 1, 3, 9)] == [0.25, 0.5, 1.0, 1.0]
    assert rate_factor(99, 0.5, c) == 1.0
    assert rate_factor(99, 0.75, c) == pytest.approx(0.5)
    assert rate_factor(99, 1.0, c) == pytest.approx(0.02)


def test_a_batch_without_a_finite_gradient_poisons_nothing_and_is_named(corpus, tmp_path, monkeypatch):
    plain, calls = objective.Objective.terms, []

    def sick(self, network, batch):
        calls.append(1)
        if len(calls) in (2, 3):
            batch = replace(batch, noisy=batch.noisy * float("nan"))  # what BatchNorm sees too
        return plain(self, network, batch)

    monkeypatch.setattr(objective.Objective, "terms", sick)
    monkeypatch.setattr(trainee, "READ_WITHIN", 2)  # steps: in between two validations
    stage = Stage("sick", {"a": config(corpus, tmp_path / "a", epoch_mixtures=5)}, 1.0)
    run_stage(stage, tmp_path, steps=30, stop_after=5, progress=False)
    skipped = torch.load(tmp_path / "stage_sick.pt", weights_only=True)["systems"]["a"]["history"]["skipped"]
    assert skipped == [
        {"step": 1, "mixtures": [2, 3]},
        {"step": 2, "mixtures": [4, 0]},
    ]  # as a training on its own says it
    run_stage(stage, tmp_path, steps=6, progress=False)
    assert history(tmp_path / "a")["skipped"] == skipped
    best = load_model(tmp_path / "a" / "best")
    assert all(value.isfinite().all() for value in best.state_dict().values())


def test_the_record_of_a_system_holds_the_steps_of_its_stage(corpus, tmp_path):
    c = config(corpus, tmp_path / "a")
    run_stage(Stage("steps", {"a": c}, 1.0), tmp_path, steps=3, stop_after=1, progress=False)
    assert json.loads((tmp_path / "a" / "config.json").read_text())["steps"] == 3
    made = run_stage(Stage("minutes", {"b": replace(c, out=str(tmp_path / "b"))}, 1.0), tmp_path, 0.02, progress=False)
    assert json.loads((tmp_path / "b" / "config.json").read_text())["steps"] == made["steps"] != c.steps


def test_b_is_chosen_on_four_mixtures_as_by_a_training_alone(corpus, teacher, tmp_path):
    c = config(corpus, tmp_path / "a", method="at_kl", teacher=teacher, batch_size=6, warmup_steps=1)
    run_stage(Stage("one", {"a": c}, 1.0), tmp_path, steps=1, progress=False)
    alone = train(replace(c, out=str(tmp_path / "b"), steps=1, valid_every=1), progress=False).history
    assert history(tmp_path / "a")["balance"] == pytest.approx(alone["balance"], rel=1e-5)


def test_the_count_of_skipped_batches_of_an_earlier_campaign_is_read(corpus, tmp_path):
    stage = Stage("old", {"a": config(corpus, tmp_path / "a")}, 1.0)
    run_stage(stage, tmp_path, steps=3, stop_after=1, progress=False)
    saved = torch.load(tmp_path / "stage_old.pt", weights_only=True)
    saved["systems"]["a"]["history"]["skipped"] = 2
    torch.save(saved, tmp_path / "stage_old.pt")
    run_stage(stage, tmp_path, steps=3, progress=False)
    assert history(tmp_path / "a")["skipped"] == [{"step": None, "mixtures": []}] * 2


@pytest.mark.parametrize("method, options", [("at_kl", {"accumulation": 2}), ("none", {"repeat_epoch": True})])
def test_micro_batches_and_repeated_epochs_are_honoured(corpus, teacher, tmp_path, method, options):
    c = config(corpus, tmp_path / "a", method=method, teacher=teacher if method != "none" else "", **options)
    c = replace(c, optimiser="adam", epoch_mixtures=4, warmup_steps=1, decay_fraction=1e-9)
    run_stage(Stage("one", {"a": c}, 1.0), tmp_path, steps=4, progress=False)
    alone = train(replace(c, out=str(tmp_path / "b"), steps=4, valid_every=1), progress=False).history
    together = history(tmp_path / "a")
    assert together["balance"] == pytest.approx(alone["balance"], rel=1e-5)
    for ours, theirs in zip(together["train"], alone["train"], strict=True):
        assert ours["total"] == pytest.approx(theirs["total"], rel=1e-4)
    plain = replace(c, out=str(tmp_path / "c"), accumulation=1, repeat_epoch=False)
    run_stage(Stage("plain", {"c": plain}, 1.0), tmp_path, steps=4, progress=False)
    assert history(tmp_path / "c")["train"][-1]["total"] != pytest.approx(together["train"][-1]["total"], rel=1e-4)


def test_a_network_without_an_average_trains_on_after_a_snapshot(corpus, tmp_path):
    c = config(corpus, tmp_path / "a", ema_decay=0.0)
    run_stage(Stage("kept", {"a": c}, 1.0, snapshot_hours=(1e-9,)), tmp_path, steps=3, progress=False)
    assert load_model(tmp_path / "a" / "after_1e-09h") is not None
    run_stage(Stage("plain", {"b": replace(c, out=str(tmp_path / "b"))}, 1.0), tmp_path, steps=3, progress=False)
    assert history(tmp_path / "a")["train"] == history(tmp_path / "b")["train"]


# ---- what is refused


def files(folder) -> dict:
    return {str(p): p.read_bytes() for p in folder.rglob("*") if p.is_file() and p.parent.name != "decoded"}


@pytest.mark.parametrize("finished", [False, True])
@pytest.mark.parametrize("change", [{"learning_rate": 0.5}, {"model": "uformer_mini"}, {"ema_decay": 0.5}])
def test_a_stage_by_another_recipe_is_not_resumed(corpus, tmp_path, finished, change):
    def stage(**changes):
        systems = {"a": config(corpus, tmp_path / "a"), "b": config(corpus, tmp_path / "b", **changes)}
        return Stage("two", systems, 1.0)

    run_stage(stage(), tmp_path, steps=2, stop_after=None if finished else 1, progress=False)
    before = files(tmp_path)
    name, value = next(iter(change.items()))
    with pytest.raises(ConfigError, match=f"/b: the run there has {name} = .*, asked for {value!r}"):
        run_stage(stage(**change), tmp_path, steps=2, progress=False)
    assert files(tmp_path) == before
    run_stage(stage(checkpoint_minutes=9.0, workers=1), tmp_path, steps=2, progress=False)  # decides nothing


def test_a_system_that_a_checkpoint_lacks_is_refused_before_anything_is_written(corpus, tmp_path):
    a, b = (config(corpus, tmp_path / name) for name in "ab")
    run_stage(Stage("s", {"a": a}, 1.0), tmp_path, steps=2, stop_after=1, progress=False)
    before = files(tmp_path)
    with pytest.raises(ConfigError, match=r"stage_s.pt: holds no b; resume with the same systems"):
        run_stage(Stage("s", {"a": a, "b": b}, 1.0), tmp_path, steps=2, progress=False)
    assert files(tmp_path) == before


def test_a_system_that_is_left_out_is_refused_since_its_progress_would_be_lost(corpus, tmp_path):
    a, b = (config(corpus, tmp_path / name) for name in "ab")
    run_stage(Stage("s", {"a": a, "b": b}, 1.0), tmp_path, steps=2, stop_after=1, progress=False)
    before = files(tmp_path)
    with pytest.raises(ConfigError, match=r"stage_s.pt: holds b too, whose progress would be lost"):
        run_stage(Stage("s", {"a": a}, 1.0), tmp_path, steps=2, progress=False)
    assert files(tmp_path) == before


def test_a_stage_that_is_refused_while_it_opens_leaves_no_run_behind(corpus, teacher, tmp_path):
    alone = config(corpus, tmp_path / "alone")
    taught = config(corpus, tmp_path / "taught", method="output", teacher=str(tmp_path / "gone"))
    with pytest.raises(DccrnError, match="gone"):
        run_stage(Stage("s", {"alone": alone, "taught": taught}, 1.0), tmp_path, steps=2, progress=False)
    assert not [name for name in files(tmp_path) if name.endswith("config.json")]


@pytest.mark.parametrize("place", ["validate", "history"])
def test_a_validation_that_fails_is_noted_nowhere_and_made_when_the_stage_is_resumed(
    corpus, tmp_path, monkeypatch, place
):
    def stage(folder):
        return Stage("s", {name: config(corpus, folder / name) for name in "ab"}, 1.0)

    run_stage(stage(tmp_path / "whole"), tmp_path / "whole", steps=4, progress=False)
    calls = []

    def failing(real):
        def call(*args, **kwargs):
            calls.append(place)
            if len(calls) == 6:  # of the second system, in the third validation
                raise OSError(28, "No space left on device")
            return real(*args, **kwargs)

        return call

    def counted(path, *args, **kwargs):
        return (spoilt if str(path).endswith("history.json") else write_json)(path, *args, **kwargs)

    with monkeypatch.context() as patch:
        if place == "validate":
            patch.setattr(lockstep, "validate", failing(lockstep.validate))
        else:
            spoilt = failing(write_json)
            patch.setattr(lockstep, "write_json", counted)
        with pytest.raises(OSError, match="No space left"):
            run_stage(stage(tmp_path / "cut"), tmp_path / "cut", steps=4, progress=False)
    run_stage(stage(tmp_path / "cut"), tmp_path / "cut", steps=4, progress=False)
    for name in "ab":
        whole, cut = (history(tmp_path / folder / name) for folder in ("whole", "cut"))
        assert (whole["train"], whole["valid"]) == (cut["train"], cut["valid"])


@pytest.mark.parametrize(
    "change",
    [
        {"valid_every": 7}, {"max_bad_batches": 3}, {"compile": True}, {"sync_batch_norm": False}, {"tensorboard": True},
        {"teacher_cache": "kept", "repeat_epoch": True, "method": "output", "teacher": "uformer"},
    ],
)  # fmt: skip
def test_what_only_a_training_on_its_own_honours_is_refused_by_name(corpus, tmp_path, change):
    name = next(iter(change))
    assert set(change) & set(ALONE_ONLY) == {name}
    with pytest.raises(ConfigError, match=f"a: {name} = .* has no effect on networks that are trained side by side"):
        run_stage(Stage("x", {"a": config(corpus, tmp_path / "a", **change)}, 1.0), tmp_path, steps=1, progress=False)
    assert not files(tmp_path)


def test_systems_that_would_see_other_mixtures_are_refused(corpus, tmp_path):
    systems = {"a": config(corpus, tmp_path / "a"), "b": config(corpus, tmp_path / "b", epoch_mixtures=9)}
    with pytest.raises(ConfigError, match="must share epoch_mixtures, and b has another one"):
        run_stage(Stage("x", systems, 1.0), tmp_path, steps=1, progress=False)


@pytest.mark.parametrize(
    "command", [["campaign"], ["experiment", "teacher-strength", "run", "--teachers", "a=uformer"]]
)
@pytest.mark.parametrize(
    "words, name, cure",
    [
        (["--valid-every", "7"], "valid_every", "leave it out"),
        (["--compile=true"], "compile", "leave it out"),
        (["--set", "max_bad_batches=3"], "max_bad_batches", "leave it out"),
        (["--teacher_cache", "kept"], "teacher_cache", "leave it out"),
        (["--set", "steps=3"], "steps", "write it as --steps"),
    ],
)
def test_the_commands_refuse_by_name_what_they_do_not_honour(corpus, tmp_path, capsys, command, words, name, cure):
    given = [f"--{kind}={path}" for kind, path in corpus.items()]
    with pytest.raises(SystemExit) as stopped:
        cli.main([*command, *given, "--out", str(tmp_path / "c"), "--steps", "1", *words])
    assert stopped.value.code == 2 and not (tmp_path / "c").exists()
    error = capsys.readouterr().err
    assert f"error: {name} is no setting here" in error and cure in error


def test_the_plan_gives_every_system_the_same_recipe(corpus, tmp_path):
    stages = plan(recipe(corpus, tmp_path), seeds=(0, 1, 2))
    assert [s.name for s in stages] == ["teacher", "students"]
    assert sum(s.share for s in stages) == pytest.approx(1.0)
    systems = stages[1].systems
    assert set(systems) == {"dccrn_e", *(f"{name}_seed{seed}" for name in STUDENTS for seed in range(3))}
    same = ("optimiser", "learning_rate", "muon_learning_rate", "batch_size", "mix", "spectral_weight", "ema_decay")
    teacher = stages[0].systems["uformer"]
    for c in systems.values():
        assert all(getattr(c, key) == getattr(teacher, key) for key in same)
        assert bool(c.teacher) == (c.method != "none")
    assert set(search(recipe(corpus, tmp_path)).systems) == set(SEARCH)


def test_the_plan_takes_the_systems_that_are_asked_for(corpus, tmp_path):
    asked = ["distil_dccrn_at_kl", "distil_dccrn_alone"]
    (stage,) = plan(recipe(corpus, tmp_path), seeds=(4,), systems=asked, teacher="uformer")
    assert set(stage.systems) == {f"{name}_seed4" for name in asked}
    assert stage.systems["distil_dccrn_at_kl_seed4"].teacher == "uformer"


def test_the_command_trains_all_stages(corpus, tmp_path, capsys):
    given = [f"--{kind}={path}" for kind, path in corpus.items()]
    command = ["campaign", *given, "--out", str(tmp_path), "--size", "smoke", "--seeds", "0", "--steps", "2", "--quiet"]
    command += ["--valid-mixtures", "2", "--set", "device=cpu"]
    assert cli.main(command) == 0
    assert "students: 2 steps" in capsys.readouterr().out
    for name in ("uformer", "dccrn_e", *(f"{s}_seed0" for s in STUDENTS)):
        assert load_model(tmp_path / name / "best") is not None
    assert cli.main(command) == 0  # finished: nothing to do


@pytest.mark.parametrize(
    "wrong, words",
    [
        (["--steps", "2", "--minutes", "1"], "minutes or in steps"),
        ([], "minutes or in steps"),
        (["--steps", "2", "--seeds", "a"], "whole numbers"),
        (["--steps", "2", "--teacher-share", "1.5"], "between 0 and 1"),
        (["--steps", "2", "--systems", "dccrn"], "dccrn_e"),
    ],
)
def test_wrong_lengths_are_refused(corpus, tmp_path, capsys, wrong, words):
    given = [f"--{kind}={path}" for kind, path in corpus.items()]
    assert cli.main(["campaign", *given, "--out", str(tmp_path / "c"), "--size", "smoke", "--quiet", *wrong]) == 2
    assert words in capsys.readouterr().err


@pytest.mark.parametrize(
    "given, words",
    [
        (["--seeds", "1,2"], "takes one seed"),
        (["--systems", "dccrn_e"], "--systems has no effect on --stage search"),
        (["--teacher", "uformer"], "--teacher has no effect on --stage search"),
    ],
)
def test_the_search_honours_its_seed_and_refuses_what_it_cannot(corpus, tmp_path, monkeypatch, capsys, given, words):
    asked = []
    monkeypatch.setattr(
        "dccrn_lib.training.lockstep.run_stage",
        lambda stage, *_, **__: asked.append(stage) or {"steps": 1, "hours_each": 0.0, "stopped": False},
    )
    command = ["campaign", *(f"--{kind}={path}" for kind, path in corpus.items()), "--out", str(tmp_path / "c")]
    command += ["--size", "smoke", "--stage", "search", "--steps", "1", "--quiet"]
    assert cli.main([*command, "--seeds", "7"]) == 0 and cli.main(command) == 0
    assert [{c.seed for c in stage.systems.values()} for stage in asked] == [{7}, {0}]
    assert cli.main([*command, *given]) == 2 and words in capsys.readouterr().err


def test_students_wait_for_a_teacher_that_was_stopped(corpus, tmp_path, monkeypatch, capsys):
    done = {"steps": 1, "hours_each": 0.0, "stopped": False}
    monkeypatch.setattr("dccrn_lib.training.lockstep.run_stage", lambda *_, **__: done)
    command = ["campaign", *(f"--{kind}={path}" for kind, path in corpus.items()), "--out", str(tmp_path)]
    command += ["--size", "smoke", "--stage", "students", "--steps", "1", "--quiet"]
    report = tmp_path / "stage_teacher.json"
    report.write_text('{"stopped": true, "steps": 5}')
    assert cli.main(command) == 2 and "was stopped after 5 steps" in capsys.readouterr().err
    assert cli.main([*command, "--teacher", "uformer"]) == 0  # whoever names it wants it as it is
    report.write_text('{"stopped": false, "steps": 5}')
    assert cli.main(command) == 0


def test_methods_with_adapters_are_refused(corpus, teacher, tmp_path):
    c = config(corpus, tmp_path / "a", method="fitnets", teacher=teacher)
    with pytest.raises(ConfigError, match="a campaign trains the methods"):
        run_stage(Stage("x", {"a": c}, 1.0), tmp_path, steps=1, progress=False)


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_captured_steps_learn_what_eager_ones_learn(corpus, teacher, tmp_path):
    found = {}
    for graphs in (False, True):
        folder = tmp_path / str(graphs)
        systems = {
            "alone": config(corpus, folder / "alone", device="cuda"),
            "taught": config(corpus, folder / "taught", device="cuda", method="at_kl", teacher=teacher),
        }
        record = run_stage(Stage("pair", systems, 1.0), folder, steps=12, graphs=graphs, progress=False)
        assert record["cuda_graphs"] is graphs
        found[graphs] = [history(folder / name)["train"][-1]["clean"] for name in systems]
    assert found[True] == pytest.approx(found[False], rel=1e-2)


def test_a_finished_stage_is_not_taken_for_one_under_another_teacher(corpus, tmp_path):
    weights = save_model(build_model("uformer_mini"), tmp_path / "t")
    stage = Stage("s", {"a": config(corpus, tmp_path / "a", method="output", teacher=str(weights))}, 1.0)
    done = run_stage(stage, tmp_path, steps=2, progress=False)
    assert run_stage(stage, tmp_path, steps=2, progress=False) == done
    save_model(build_model("uformer_mini"), tmp_path / "t")
    with pytest.raises(ConfigError, match="the contents of teacher are no longer"):
        run_stage(stage, tmp_path, steps=2, progress=False)


def test_a_stage_whose_best_weights_are_gone_is_not_resumed(corpus, tmp_path):
    stage = Stage("s", {"a": config(corpus, tmp_path / "a")}, 1.0)
    run_stage(stage, tmp_path, steps=20, stop_after=10, progress=False)
    (tmp_path / "a" / "best.safetensors").unlink()
    with pytest.raises(ConfigError, match="best.safetensors is gone"):
        run_stage(stage, tmp_path, steps=20, progress=False)


def test_a_snapshot_that_fails_is_taken_when_the_stage_is_resumed(corpus, tmp_path, monkeypatch):
    def full(self, hours):
        raise OSError(28, "No space left on device")

    c = config(corpus, tmp_path / "a")
    stage = Stage("s", {"a": c}, 1.0, snapshot_hours=(2 * c.batch_size * c.mix.segment_seconds / 3600,))  # two steps
    with monkeypatch.context() as patch:
        patch.setattr(Lockstep, "snapshot", full)
        with pytest.raises(OSError, match="No space left"):
            run_stage(stage, tmp_path, steps=4, progress=False)
    run_stage(stage, tmp_path, steps=4, progress=False)
    (card,) = (json.loads(p.read_text())["card"] for p in (tmp_path / "a").glob("after_*.json"))
    assert card["step"] == 2


def test_the_documents_train_another_seed_of_the_baseline_for_as_many_steps(root):
    page = (root / "docs/training.md").read_text(encoding="utf-8")
    assert "--stage students --systems dccrn_e --seeds 1 --steps N" in page


def test_every_seed_has_mixtures_of_its_own_from_the_split_train(corpus, tmp_path):
    systems = {f"s{seed}": config(corpus, tmp_path / f"s{seed}", seed=seed) for seed in (0, 1)}
    for seed, feed in Lockstep(Stage("two", systems, 1.0), tmp_path, progress=False).feeds.items():
        c = systems[f"s{seed}"]
        own = MixtureDataset(c.speech, c.noise, c.rir, c.mix, seed, c.epoch_mixtures, "train")
        for part in ("noisy", "clean"):
            assert torch.equal(getattr(feed, part), torch.stack([own[i][part] for i in range(c.batch_size)]))


def test_only_gradients_beyond_the_limit_are_clipped(corpus, tmp_path):
    found = {}
    for limit in (1e6, 1e-3):
        out = tmp_path / str(limit)
        stage = Stage("s", {"a": config(corpus, out / "a", gradient_clip=limit)}, 1.0)
        one = Lockstep(stage, out, progress=False).trainees["a"]
        one.control(0.0)
        one.run()
        found[limit] = torch.cat([p.grad.flatten() for p in one.parameters if p.grad is not None])
    assert 1 < found[1e6].norm() < 1e3 and found[1e-3].norm().item() == pytest.approx(1e-3, rel=1e-3)
    assert torch.nn.functional.cosine_similarity(found[1e6], found[1e-3], dim=0) > 0.9999


def test_clipping_takes_as_few_kernels_however_many_parameters_there_are(corpus, tmp_path):
    class Counted(TorchDispatchMode):
        calls = 0

        def __torch_dispatch__(self, func, types, args=(), kwargs=None):
            self.calls += 1
            return func(*args, **(kwargs or {}))

    one = Lockstep(Stage("s", {"a": config(corpus, tmp_path / "a")}, 1.0), tmp_path, progress=False).trainees["a"]
    one.control(0.0)
    one.run()
    before = [p.grad.clone() for p in one.parameters]
    with Counted() as counted:
        one._shrink_gradients(torch.tensor(0.5), torch.tensor(True))
    views = 2 * len(before) + 1  # of each gradient, before and after: no kernels
    assert counted.calls <= views + 5
    assert all(
        torch.equal(p.grad, 0.5 * g) and p.grad.shape == p.shape for p, g in zip(one.parameters, before, strict=True)
    )


def test_minutes_count_over_all_calls_and_hours_are_those_of_the_audio(corpus, tmp_path):
    stage = Stage("m", {"a": config(corpus, tmp_path / "a")}, 1.0)
    run_stage(stage, tmp_path, minutes=1.0, stop_after=1, progress=False)
    saved = torch.load(tmp_path / "stage_m.pt", weights_only=True)
    torch.save({**saved, "seconds": 59.99}, tmp_path / "stage_m.pt")
    record = run_stage(stage, tmp_path, minutes=1.0, stop_after=50, progress=False)
    assert not record["stopped"] and record["seconds"] >= 60
    assert record["hours_each"] == pytest.approx(record["steps"] * 2 * 0.5 / 3600)
    assert history(tmp_path / "a")["valid"][-1]["hours"] == pytest.approx(record["hours_each"])
