"""Lesson 05b: its figures and its exercises."""

import json

import nbformat
import numpy as np
import pytest
import torch

from dccrn_lib import results
from dccrn_lib.experiments.recipe import recipe
from dccrn_lib.experiments.training_speed import measure_training
from dccrn_lib.lessons.gpu import figures
from dccrn_lib.lessons.gpu.exercises import (
    FAULTS,
    HOURS_CASE,
    check_diagnosis,
    check_good_enough,
    check_hours,
    check_operations,
    diagnosis_cases,
    sick_log,
    solution_diagnosis,
    solution_good_enough,
    solution_hours,
    solution_operations,
)
from dccrn_lib.lessons.gpu.speeds import bfloat16_gain, cost_of_teaching, speed_lines
from dccrn_lib.results.records import load_result
from dccrn_lib.runtime.paths import notebooks_dir

# ---- figures


def test_step_picture_names_every_part_and_its_precision():
    words = " ".join(t.get_text() for t in figures.step_picture().axes[0].texts)
    assert all(part in words for part in ("mix", "teacher", "student", "$L$ twice", "AT-KL", "backward", "optimiser"))
    assert all(kind in words for kind in figures.PRECISION)


def test_run_log_draws_every_batch_and_a_mean_of_15():
    left, right = figures.run_log(range(20), range(20), [4.0] * 20).axes
    dots, smooth = left.lines
    assert len(dots.get_xdata()) == 20 and smooth.get_ydata()[0] == pytest.approx(7.0)
    assert list(smooth.get_xdata())[0] == 7  # the mean of steps 0 .. 14 stands at its centre
    assert right.get_ylabel() == "s of audio per second"


def test_run_log_takes_no_mean_across_two_stages():
    left, right = figures.run_log(range(40), [0.0] * 20 + [10.0] * 20, [4.0] * 40, {"one": 0, "two": 20}).axes
    _dots, first, second, border = left.lines
    assert first.get_ydata() == pytest.approx(0.0) and second.get_ydata() == pytest.approx(10.0)
    assert border.get_xdata()[0] == 19.5 and right.lines[2].get_xdata()[0] == 19.5
    assert [t.get_text() for t in left.texts] == ["one", "two"]


def test_lead_draws_the_wanted_lead_over_the_best_value_of_the_student():
    curves = {"teacher": ([1, 2], [3.0, 5.0]), "student": ([1, 4, 5], [2.0, 4.5, 4.1])}
    axis = figures.lead(curves, 0.7).axes[0]
    levels = [line.get_ydata()[0] for line in axis.lines[2:]]
    assert levels == pytest.approx([4.5, 5.2])
    assert axis.get_xlabel() == "hours of audio seen"


def test_four_sick_logs_draw_the_column_that_gives_the_fault_away():
    figure = figures.four_sick_logs({kind: sick_log(kind) for kind in FAULTS})
    drawn = {axis.get_ylabel(): axis.lines[0].get_ydata() for axis in figure.axes}
    assert max(drawn["gain of the output"]) < 0
    assert drawn["skipped batches, in all"][-1] == 1000
    assert min(drawn["share of time waiting"]) == 0.8
    assert drawn["KL to the teacher (nat)"][-1] < 0.1
    assert "SI-SNR (dB), dotted" in drawn


# ---- exercises


def test_solutions_are_right():
    assert check_operations(solution_operations)
    assert check_hours(solution_hours())
    assert check_good_enough(solution_good_enough)
    assert check_diagnosis(solution_diagnosis)


@pytest.mark.parametrize("check", [check_operations, check_hours, check_good_enough, check_diagnosis])
def test_unanswered_is_not_yet(check):
    assert repr(check(None)).startswith("Not yet: ")


@pytest.mark.parametrize(
    ("answer", "message"),
    [
        (lambda s, t: 3 * s + t, "these are MACs"),
        (lambda s, t: 6 * s + 6 * t, "no backward pass"),
        (lambda s, t: 2 * (s + t), "forward pass alone"),
        (lambda s, t: 6 * s, "teacher is missing"),
        (lambda s, t: 2 * (2 * s + t), "two passes"),
        (lambda s, t: 18e9, "one pair only"),
        (lambda s, t: 1.0, "count the passes"),
    ],
)
def test_mistakes_in_operations_are_recognised(answer, message):
    verdict = check_operations(answer)
    assert not verdict and message in verdict.message


def top(curve: list[tuple[float, float]]) -> float:
    """Best valid SI-SNR of a curve."""
    return max(value for _, value in curve)


AUDIO = HOURS_CASE["steps"] * HOURS_CASE["batch"] * HOURS_CASE["seconds"]


@pytest.mark.parametrize(
    ("answer", "message"),
    [
        (AUDIO / 3600, "divide by the rate"),
        (AUDIO / 400, "in seconds"),
        (AUDIO / 400 / 60, "in minutes"),
        (AUDIO / 32 / 400 / 3600, "batch is missing"),
        (AUDIO / 4 / 400 / 3600, "lasts 4 s"),
        (1.0, "is not steps"),
    ],
)
def test_mistakes_in_hours_are_recognised(answer, message):
    verdict = check_hours(answer)
    assert not verdict and message in verdict.message


@pytest.mark.parametrize(
    ("answer", "message"),
    [
        (lambda t, s: top(t) - min(s, key=lambda p: abs(p[0] - t[-1][0]))[1] >= 0.7, "FINAL hours"),
        (lambda t, s: t[-1][1] - s[-1][1] >= 0.7, "take the teacher at its best"),
        (lambda t, s: t[-1][1] - top(s) >= 0.7, "take the teacher at its best"),
        (lambda t, s: top(t) - s[-1][1] >= 0.7, "take the student at its best"),
        (lambda t, s: abs(top(t) - top(s)) >= 0.7, "the sign"),
        (lambda t, s: top(t) - top(s) >= 0.5, "0.68 dB is below"),
        (lambda t, s: round(top(t) - top(s), 1) >= 0.7, "do not round"),
        (lambda t, s: top(t) - top(s) >= 0.9, "0.75 dB is enough"),
        (lambda t, s: top(t) - top(s) >= 0.75, "0.71 dB is enough"),
        (lambda t, s: top([p for p in t if p[0] <= s[-1][0]] or t) - top(s) >= 0.7, "trained for longer"),
        (lambda t, s: False, "is enough"),
        (lambda t, s: 1.0, "True or False"),
    ],
)
def test_mistakes_in_the_rule_are_recognised(answer, message):
    verdict = check_good_enough(answer)
    assert not verdict and message in verdict.message


def test_the_rule_may_be_a_comparison_of_numpy_numbers():
    assert check_good_enough(lambda t, s: np.max(np.array(t)[:, 1]) - np.max(np.array(s)[:, 1]) >= 0.7)


def diagnosis(gain=0.1, skipped=0.1, waiting=1 / 3, rise=0.5, fall=0.5, absolute=None):
    """The solution with other thresholds; ``absolute``: the SI-SNR in dB below which KL is to blame."""

    def answer(log):
        first, last = log[0], log[-1]
        if last["gain"] < gain:
            return "gain"
        if last["skipped"] > skipped * last["step"]:
            return "skipped"
        if last["waiting"] > waiting:
            return "loader"
        low = last["si_snr_db"] < (first["si_snr_db"] + rise if absolute is None else absolute)
        return "teacher" if low and last["features"] < fall * first["features"] else "healthy"

    return answer


@pytest.mark.parametrize(
    ("answer", "message"),
    [
        (diagnosis(gain=0.0), "the gain fades towards 0 is 'gain', not 'healthy'"),
        (diagnosis(skipped=0.0), "3 of 1000 steps are skipped is 'healthy', not 'skipped'"),
        (diagnosis(skipped=0.5), "a quarter of the steps is skipped is 'skipped', not 'healthy'"),
        (diagnosis(waiting=0.1), "spent waiting is 'healthy', not 'loader'"),
        (diagnosis(waiting=0.5), "spent waiting is 'loader', not 'healthy'"),
        (diagnosis(absolute=9.0), "rises from -2 to 5 dB is 'healthy', not 'teacher'"),
        (diagnosis(rise=2.0), "rises by 1 dB is 'healthy', not 'teacher'"),
        (diagnosis(fall=2.0), "hardly moves either is 'healthy', not 'teacher'"),
        (lambda log: diagnosis()(log) if log[0]["gain"] >= 0.1 else "gain", "only begins near 0"),
        (diagnosis(gain=0.05), "ends at 0.08"),
        (diagnosis(gain=0.3), "ends at 0.12"),
        (diagnosis(skipped=0.01), "8 % of the steps"),
        (diagnosis(skipped=0.2), "12 % of the steps"),
        (diagnosis(waiting=0.3), "32 % of the time"),
        (diagnosis(waiting=0.38), "35 % of the time"),
        (diagnosis(rise=0.3), "rises by 0.4 dB"),
        (diagnosis(rise=0.9), "rises by 0.6 dB"),
        (diagnosis(fall=0.3), "0.45 of"),
        (diagnosis(fall=0.9), "0.55 of"),
        (
            lambda log: diagnosis()([*log[:-1], {**log[-1], "waiting": np.mean([row["waiting"] for row in log])}]),
            "has ended",
        ),
        (
            lambda log: diagnosis()([*log[:-1], {**log[-1], "si_snr_db": max(r["si_snr_db"] for r in log)}]),
            "falls back",
        ),
    ],
)
def test_other_thresholds_than_the_stated_ones_are_refused(answer, message):
    verdict = check_diagnosis(answer)
    assert not verdict and message in verdict.message


def test_answers_in_tensors_and_empty_bodies_are_read():
    assert check_good_enough(lambda t, s: torch.tensor(top(t) - top(s) >= 0.7))
    assert "returns nothing yet" in check_operations(lambda s, t: None).message


def test_numbers_that_fit_the_extreme_logs_only_do_not_pass():
    def fitted(log):
        last = log[-1]
        found = {"gain": last["gain"] < 0, "skipped": last["skipped"] > 0, "loader": last["waiting"] > 0.1}
        return next((kind for kind, is_it in found.items() if is_it), "teacher" if last["si_snr_db"] < 9 else "healthy")

    assert all(fitted(sick_log(kind)) == kind for kind in (*FAULTS, "healthy"))
    assert not check_diagnosis(fitted)


def test_no_case_of_the_diagnosis_has_two_faults():
    for _what, kind, log in diagnosis_cases():
        only = {  # each fault with the other three switched off
            "gain": diagnosis(skipped=2, waiting=2, fall=-1),
            "skipped": diagnosis(gain=-9, waiting=2, fall=-1),
            "loader": diagnosis(gain=-9, skipped=2, fall=-1),
            "teacher": diagnosis(gain=-9, skipped=2, waiting=2),
        }
        found = [name for name, answer in only.items() if answer(log) == name]
        assert found == ([] if kind == "healthy" else [kind])


@pytest.mark.parametrize(
    ("answer", "message"),
    [
        (lambda log: "healthy", "is 'gain', not 'healthy'"),
        (lambda log: "fine", "one of"),
        (lambda log: solution_diagnosis(log).replace("teacher", "healthy"), "is 'teacher'"),
        (lambda log: solution_diagnosis(log).replace("healthy", "loader"), "is 'healthy'"),
    ],
)
def test_mistakes_in_the_diagnosis_are_recognised(answer, message):
    verdict = check_diagnosis(answer)
    assert not verdict and message in verdict.message


@pytest.mark.parametrize("kind", [*FAULTS, "healthy"])
def test_constructed_logs_show_one_fault_each(kind):
    healthy, sick = sick_log("healthy"), sick_log(kind)
    changed = {key for a, b in zip(healthy, sick, strict=True) for key in a if a[key] != b[key]}
    assert (
        changed
        == {
            "healthy": set(),
            "gain": {"gain"},
            "skipped": {"skipped", "si_snr_db", "features"},
            "loader": {"waiting"},
            "teacher": {"si_snr_db"},
        }[kind]
    )


# ---- records of speed


def gpu_record() -> dict:
    """The CPU's record as `campaign --stage speed` would write it on a GPU: another device, graphs, an agreement."""
    record = load_result("training_speed")
    rows = [{**row, "cuda_graph": True} for row in record["rows"]]
    agreement = {"uformer": {"output": 1e-6, "loss": 2e-7, "gradient": 3e-5}}
    return {**record, "device": "Some GPU", "rows": rows, "agreement_with_cpu": agreement}


def test_a_speed_record_is_told_row_by_row():
    device, agreement, *rows = speed_lines(gpu_record())
    assert device == "device Some GPU, 1 thread, 1 s a mixture"
    assert agreement.strip() == "uformer, off from the CPU by output 1.0e-06, loss 2.0e-07, gradient 3.0e-05"
    assert len(rows) == len(gpu_record()["rows"])
    assert any(
        "uformer" in row and "bfloat16" in row and "3.85 s of audio" in row and "CUDA graph" in row for row in rows
    )


def test_what_teaching_costs_is_a_ratio_of_measured_steps():
    cost = cost_of_teaching(load_result("training_speed"))
    assert cost == {
        (4, "float32", False): pytest.approx(4.4209 / 3.1014, abs=1e-3),
        (4, "bfloat16", False): pytest.approx(7.7975 / 4.8129, abs=1e-3),
    }


def test_bfloat16_makes_the_student_faster_than_the_teacher():
    gains = bfloat16_gain(load_result("training_speed"))
    assert gains["distil_dccrn alone", 4] == pytest.approx(7.7975 / 4.4209, abs=1e-3)
    assert gains["uformer", 4] == pytest.approx(3.8455 / 2.6837, abs=1e-3)
    assert ("distil_dccrn alone", 2) not in gains  # the teacher was not measured at this batch


def test_the_lesson_shows_a_record_from_a_gpu(tmp_path, capsys):
    (tmp_path / "gpu_some.json").write_text(json.dumps(gpu_record()), encoding="utf-8")
    lesson = nbformat.read(notebooks_dir() / "05b_full_size_on_a_gpu.ipynb", as_version=4)
    (cell,) = (c for c in lesson.cells if "gpu_*.json" in c.source and c.cell_type == "code")
    names = {
        "bfloat16_gain": bfloat16_gain,
        "json": json,
        "results": results,
        "results_dir": lambda: tmp_path,
        "speed_lines": speed_lines,
    }
    exec(
        cell.source,
        names
        | {"cost_of_teaching": cost_of_teaching, "operations": {"student": 1, "student with teacher and taps": 1.52}},
    )
    printed = capsys.readouterr().out
    assert "gpu_some" in printed and "device Some GPU" in printed and "nothing in this project" not in printed
    assert "device cpu" in printed  # the CPU's record stands beside it


def test_what_the_library_measures_can_be_told(tmp_path):
    shared = recipe({"speech": "", "noise": "", "rir": ""}, tmp_path, "smoke", device="cpu")
    record = measure_training(shared, "smoke", batches=(1,), precisions=("fp32",), progress=False)
    assert len(speed_lines(record)) == 1 + len(record["rows"]) and list(cost_of_teaching(record)) == [
        (1, "float32", False)
    ]
