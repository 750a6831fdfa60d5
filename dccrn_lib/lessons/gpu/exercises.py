"""Exercises of lesson 05b: operations of a step, hours of a run, the rule for a teacher, the diagnosis of a log."""

from __future__ import annotations

from collections.abc import Callable, Sequence

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
    got = float(answer(s, t))
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
    if abs(got - solution_hours()) < 0.01:
        return right("60,000 x 32 x 4 s = 2133 h of audio; at 400 s of audio per second 5.33 h.")
    for value, message in named.items():
        if abs(got - value) < 1e-3 * value:
            return wrong(message)
    return wrong(f"{got:g} h is not steps x batch x seconds / rate")


Curve = Sequence[tuple[float, float]]


def solution_good_enough(teacher: Curve, student: Curve) -> bool:
    """Whether the teacher's last valid SI-SNR leads the student's last by 0.7 dB."""
    return teacher[-1][1] - student[-1][1] >= WANTED_LEAD


@grader
def check_good_enough(answer: Callable[[Curve, Curve], bool] | None) -> Verdict:
    """Grade a function (teacher, student) -> bool; each a list of (hours, valid SI-SNR in dB), in order of hours."""
    if is_unanswered(answer):
        return wrong("write a function of (teacher, student) and pass it here")
    cases = (
        ([(10, 12.0), (20, 14.0)], [(10, 12.0), (20, 13.0)], True, "a lead of 1 dB at the end is enough"),
        ([(10, 12.0), (20, 13.2)], [(10, 11.0), (20, 12.0), (40, 13.1)], False,
         "compare with the student at its FINAL hours: the student goes on learning after the teacher has stopped"),
        ([(10, 14.0), (20, 13.0)], [(10, 12.0), (20, 13.0)], False,
         "take the teacher as it is at the end, not at its best: the last weights will teach"),
        ([(20, 12.0)], [(20, 13.0)], False, "the sign: here the student leads"),
        ([(20, 13.6)], [(20, 13.0)], False, "0.6 dB is below the rule's 0.7 dB"),
        ([(20, 13.75)], [(20, 13.0)], True, "0.75 dB is enough"),
    )  # fmt: skip
    for teacher, student, wanted, message in cases:
        got = answer(teacher, student)
        if not isinstance(got, bool):
            return wrong(f"return True or False, not {type(got).__name__}")
        if got is not wanted:
            return wrong(message)
    return right("the teacher's last value, minus the student's last, at least 0.7 dB.")


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
    if last["gain"] <= 0:
        return "gain"
    if last["skipped"] > 0.1 * last["step"]:
        return "skipped"
    if last["waiting"] > 0.3:
        return "loader"
    if last["features"] < 0.5 * first["features"] and last["si_snr_db"] < first["si_snr_db"] + 0.5:
        return "teacher"
    return "healthy"


@grader
def check_diagnosis(answer: Callable[[list[dict[str, float]]], str] | None) -> Verdict:
    """Grade a function from a log (rows as in the lesson) to "gain", "skipped", "loader", "teacher" or "healthy"."""
    if is_unanswered(answer):
        return wrong("write a function of (log) and pass it here")
    for kind in (*FAULTS, "healthy"):
        got = answer(sick_log(kind))
        if got not in (*FAULTS, "healthy"):
            return wrong(f"the answer is one of {', '.join(FAULTS)} or healthy, not {got!r}")
        if got != kind:
            return wrong(f"a log whose last row is {sick_log(kind)[-1]} is {kind!r}, not {got!r}")
    return right("each of the four faults is told from a healthy log.")
