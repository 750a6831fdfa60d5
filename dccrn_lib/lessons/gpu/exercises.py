"""Exercises of lesson 05b: operations of a step, hours of a run, the rule for a teacher, the diagnosis of a log."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
from torch import Tensor

from dccrn_lib.lessons.grading import Verdict, grader, is_unanswered, right, wrong

WANTED_LEAD = 0.7  # dB that a teacher should lead by, see the lesson
HOURS_CASE = {"steps": 60_000, "batch": 32, "seconds": 4.0, "rate": 400.0}  # of the second exercise
FAULTS = ("gain", "skipped", "loader", "teacher")


def _close(a: float, b: float) -> bool:
    return abs(a - b) <= 1e-6 * max(1.0, abs(b))


def solution_operations(student_macs: float, teacher_macs: float) -> float:
    """Operations of distillation for a second of audio: the student three times, the teacher once, 2 for a MAC."""
    return 2 * (3 * student_macs + teacher_macs)


@grader
def check_operations(answer: Callable[[float, float], float] | None) -> Verdict:
    """Grade a function (student MACs, teacher MACs, both for a second of audio) -> operations of a distillation step."""
    if is_unanswered(answer):
        return wrong("write a function of (student_macs, teacher_macs) and pass it here")
    s, t = 2.0e9, 3.0e9
    out = answer(s, t)
    if is_unanswered(out):
        return wrong("the function returns nothing yet; it returns a number of operations")
    got = float(out)
    named = {
        3 * s + t: "these are MACs; a MAC is a multiplication and an addition, two operations",
        2 * (3 * s + 3 * t): "the teacher has no backward pass: it is frozen and runs once",
        2 * (s + t): "this is the forward pass alone; the student's backward pass costs twice as much again",
        2 * 3 * s: "the teacher is missing: it runs in every step",
        2 * (2 * s + t): "backward is two passes, one for the gradient of the inputs and one for that of the weights",
    }
    if _close(got, solution_operations(s, t)):
        other = float(answer(1.0, 10.0))
        return right("2 (3 S + T).") if _close(other, 26.0) else wrong("right for one pair only: use the arguments")
    for value, message in named.items():
        if _close(got, value):
            return wrong(message)
    return wrong(f"{got:g} operations for S = {s:g} and T = {t:g} MACs; count the passes of each network")


def solution_hours() -> float:
    """Hours that the run of the second exercise takes."""
    c = HOURS_CASE
    return c["steps"] * c["batch"] * c["seconds"] / c["rate"] / 3600


@grader
def check_hours(answer: float | None) -> Verdict:
    """Grade the hours that 60,000 steps of 32 mixtures of 4 s take at 400 s of audio per second."""
    if is_unanswered(answer):
        return wrong("give one number, in hours")
    c, got = HOURS_CASE, float(answer)
    audio = c["steps"] * c["batch"] * c["seconds"]
    named = {
        audio / 3600: "these are the hours of audio; divide by the rate",
        audio / c["rate"]: "in seconds; 3600 of them make an hour",
        audio / c["rate"] / 60: "in minutes",
        c["steps"] * c["seconds"] / c["rate"] / 3600: "the batch is missing: each step passes 32 mixtures",
        c["steps"] * c["batch"] / c["rate"] / 3600: "each mixture lasts 4 s",
    }
    if abs(got - solution_hours()) < 0.05:  # more digits would be pretence
        return right("60,000 x 32 x 4 s = 2133 h of audio; at 400 s of audio per second 5.33 h.")
    for value, message in named.items():
        if abs(got - value) < 1e-3 * value:
            return wrong(message)
    return wrong(f"{got:g} h is not steps x batch x seconds / rate")


Curve = Sequence[tuple[float, float]]


def solution_good_enough(teacher: Curve, student: Curve) -> bool:
    """Whether the teacher's best valid SI-SNR leads the student's best by 0.7 dB: the best weights are kept."""
    return max(value for _, value in teacher) - max(value for _, value in student) >= WANTED_LEAD


@grader
def check_good_enough(answer: Callable[[Curve, Curve], bool] | None) -> Verdict:
    """Grade a function (teacher, student) -> bool; each a list of (hours, valid SI-SNR in dB), in order of hours."""
    if is_unanswered(answer):
        return wrong("write a function of (teacher, student) and pass it here")
    cases = (
        ([(10, 12.0), (20, 14.0)], [(10, 12.0), (20, 13.0)], True, "a lead of 1 dB at the end is enough"),
        ([(10, 12.0), (20, 13.2)], [(10, 11.0), (20, 12.0), (40, 13.1)], False,
         "compare with the student at its FINAL hours: the student goes on learning after the teacher has stopped"),
        ([(10, 14.0), (20, 13.0)], [(10, 12.0), (20, 13.0)], True,
         "take the teacher at its best, not as it is at the end: the best weights are kept, so they teach"),
        ([(10, 12.0), (20, 13.8)], [(10, 13.4), (20, 12.9)], False,
         "take the student at its best, too: of its run the best weights are kept as well"),
        ([(20, 12.0)], [(20, 13.0)], False, "the sign: here the student leads"),
        ([(20, 13.68)], [(20, 13.0)], False, "0.68 dB is below the rule's 0.7 dB: do not round"),
        ([(20, 13.75)], [(20, 13.0)], True, "0.75 dB is enough"),
        ([(20, 13.71)], [(20, 13.0)], True, "0.71 dB is enough"),
        ([(20, 13.69)], [(20, 13.0)], False, "0.69 dB is below the rule's 0.7 dB"),
        ([(20, 13.0), (40, 14.0)], [(20, 13.1)], True,
         "the teacher may have been trained for longer than the student: its best weights teach, whenever it had them"),
    )  # fmt: skip
    for teacher, student, wanted, message in cases:
        got = answer(teacher, student)
        got = got.item() if isinstance(got, Tensor) and got.ndim == 0 else got
        if not isinstance(got, bool | np.bool_):  # a comparison of NumPy numbers gives the second
            return wrong(f"return True or False, not {type(got).__name__}")
        if bool(got) is not wanted:
            return wrong(message)
    return right("the teacher's best value, minus the student's best, at least 0.7 dB.")


def sick_log(kind: str) -> list[dict[str, float]]:
    """A log of eleven rows with the columns of the lesson, constructed: healthy, or with one fault."""
    rows = []
    for i in range(11):
        row = {"step": 100 * i, "si_snr_db": 8 + 0.4 * i, "gain": 0.6 + 0.03 * i, "features": 0.3 / (1 + 0.3 * i)}
        row |= {"skipped": 0, "waiting": 0.03}
        if kind == "gain":
            row["gain"] *= -1
        elif kind == "skipped":
            row |= {"skipped": 100 * i, "si_snr_db": 8.0, "features": 0.3}
        elif kind == "loader":
            row["waiting"] = 0.8
        elif kind == "teacher":
            row["si_snr_db"] = 8 + 0.01 * i
        rows.append(row)
    return rows


def solution_diagnosis(log: list[dict[str, float]]) -> str:
    """The fault of a log by its first and last row: one of ``FAULTS``, or "healthy"."""
    first, last = log[0], log[-1]
    if last["gain"] < 0.1:
        return "gain"
    if last["skipped"] > 0.1 * last["step"]:
        return "skipped"
    if last["waiting"] > 1 / 3:
        return "loader"
    if last["features"] < 0.5 * first["features"] and last["si_snr_db"] < first["si_snr_db"] + 0.5:
        return "teacher"
    return "healthy"


def diagnosis_cases() -> list[tuple[str, str, list[dict[str, float]]]]:
    """(what is special about it, its diagnosis, the log): faults that are not extreme, and healthy logs that look odd."""

    def changed(kind: str, **columns: Callable[[int], float]) -> list[dict[str, float]]:
        return [row | {name: value(i) for name, value in columns.items()} for i, row in enumerate(sick_log(kind))]

    return [
        ("the gain fades towards 0", "gain", changed("healthy", gain=lambda i: 0.62 - 0.06 * i)),
        ("the gain only begins near 0", "healthy", changed("healthy", gain=lambda i: 0.05 + 0.08 * i)),
        ("3 of 1000 steps are skipped", "healthy", changed("healthy", skipped=lambda i: min(i, 3))),
        ("a quarter of the steps is skipped", "skipped", changed("healthy", skipped=lambda i: 25 * i)),
        ("a fifth of the time is spent waiting", "healthy", changed("healthy", waiting=lambda i: 0.2)),
        ("two fifths of the time are spent waiting", "loader", changed("healthy", waiting=lambda i: 0.4)),
        ("SI-SNR rises from -2 to 5 dB", "healthy", changed("healthy", si_snr_db=lambda i: -2 + 0.7 * i)),
        ("KL falls and SI-SNR stays at 14 dB", "teacher", changed("healthy", si_snr_db=lambda i: 14.0)),
        ("SI-SNR stays at 14 dB, and KL hardly moves either", "healthy",
         changed("healthy", si_snr_db=lambda i: 14.0, features=lambda i: 0.02 - 0.0002 * i)),
        ("KL falls and SI-SNR rises by 1 dB", "healthy", changed("healthy", si_snr_db=lambda i: 8 + 0.1 * i)),
        ("the gain ends at 0.12", "healthy", changed("healthy", gain=lambda i: 0.62 - 0.05 * i)),
        ("the gain ends at 0.08", "gain", changed("healthy", gain=lambda i: 0.58 - 0.05 * i)),
        ("8 % of the steps are skipped", "healthy", changed("healthy", skipped=lambda i: 8 * i)),
        ("12 % of the steps are skipped", "skipped", changed("healthy", skipped=lambda i: 12 * i)),
        ("32 % of the time is spent waiting", "healthy", changed("healthy", waiting=lambda i: 0.32)),
        ("35 % of the time is spent waiting", "loader", changed("healthy", waiting=lambda i: 0.35)),
        ("the waiting has ended", "healthy", changed("healthy", waiting=lambda i: 0.9 - 0.09 * i)),
        ("KL falls to 0.45 of what it was and SI-SNR stays", "teacher",
         changed("healthy", si_snr_db=lambda i: 14.0, features=lambda i: 0.2 - 0.011 * i)),
        ("KL falls to 0.55 of what it was and SI-SNR stays", "healthy",
         changed("healthy", si_snr_db=lambda i: 14.0, features=lambda i: 0.2 - 0.009 * i)),
        ("KL falls and SI-SNR rises by 0.4 dB", "teacher", changed("healthy", si_snr_db=lambda i: 8 + 0.04 * i)),
        ("KL falls and SI-SNR rises by 0.6 dB", "healthy", changed("healthy", si_snr_db=lambda i: 8 + 0.06 * i)),
        ("KL falls, SI-SNR rises by 2 dB and falls back", "teacher",
         changed("healthy", si_snr_db=lambda i: 8 + 0.08 * i * (10 - i))),
    ]  # fmt: skip


@grader
def check_diagnosis(answer: Callable[[list[dict[str, float]]], str] | None) -> Verdict:
    """Grade a function from a log (rows as in the lesson) to "gain", "skipped", "loader", "teacher" or "healthy"."""
    if is_unanswered(answer):
        return wrong("write a function of (log) and pass it here")
    plain = [(f"the last row is {sick_log(kind)[-1]}", kind, sick_log(kind)) for kind in (*FAULTS, "healthy")]
    for what, kind, log in plain + diagnosis_cases():
        got = answer(log)
        if got not in (*FAULTS, "healthy"):
            return wrong(f"the answer is one of {', '.join(FAULTS)} or healthy, not {got!r}")
        if got != kind:
            return wrong(f"a log in which {what} is {kind!r}, not {got!r}")
    return right("each of the four faults is told from healthy logs, and from logs that only look odd.")
