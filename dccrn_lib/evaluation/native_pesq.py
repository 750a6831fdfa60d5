"""PESQ in a process of its own: the C code of the package pesq can end the process that calls it.

That code keeps tables for 50 utterances and writes beyond them where a recording holds more: some recordings end
the process by a segmentation fault, others get a wrong number. ``dccrn_lib.evaluation.scores`` hands it pieces
that cannot hold so many; the process here is for whatever else may go wrong, so that one file never takes the
scores of the others along. One such process serves each process that scores, and ends with it.
"""

from __future__ import annotations

import atexit
import os
import pickle
import signal
import subprocess
import sys
import threading
from typing import BinaryIO

import numpy as np

from dccrn_lib.runtime.interpreters import child_command, child_environment

_SERVE = "from dccrn_lib.evaluation.native_pesq import serve; serve()"
_lock = threading.Lock()
_running: dict[int, subprocess.Popen] = {}  # by the process that asks: a fork must not share the pipe


def serve() -> None:
    """Answer requests on standard input until it ends: (rate, clean, estimate, mode) -> (value, name of the error)."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the process that asks hears Ctrl-C and ends this one
    requests: BinaryIO = sys.stdin.buffer
    answers: BinaryIO = os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)  # what the C code prints must not stand between the answers
    from pesq import PesqError, pesq

    while True:
        try:
            rate, clean, estimate, mode = pickle.load(requests)
        except EOFError:
            return
        try:
            answer = float(pesq(rate, clean, estimate, mode)), ""
        except (PesqError, ValueError) as error:
            answer = None, type(error).__name__
        pickle.dump(answer, answers)
        answers.flush()


def native_pesq(sample_rate: int, clean: np.ndarray, estimate: np.ndarray, mode: str) -> tuple[float | None, str]:
    """The package's number.

    Args:
        sample_rate: 8000 or 16000 Hz.
        clean, estimate: float32 (sample,).
        mode: "wb" or "nb".

    Returns:
        (value, "") or (None, what happened): the name of the package's exception, or "crashed (signal N)" where
        its process ended without an answer.
    """
    with _lock:
        process = _process()
        requests, answers = process.stdin, process.stdout
        assert requests is not None and answers is not None  # both were asked for as pipes
        try:
            pickle.dump((sample_rate, clean, estimate, mode), requests, protocol=pickle.HIGHEST_PROTOCOL)
            requests.flush()
            return pickle.load(answers)
        except (EOFError, BrokenPipeError, pickle.UnpicklingError):
            status = _end()
            return None, f"crashed (signal {-status})" if status < 0 else f"ended early (exit code {status})"
        except BaseException:  # Ctrl-C in the middle: the next request must not read this one's answer
            process.kill()
            _end()
            raise


def _process() -> subprocess.Popen:
    """The running process; a new one where there is none."""
    process = _running.get(os.getpid())
    if process is None or process.poll() is not None:
        process = subprocess.Popen(
            child_command(_SERVE), stdin=subprocess.PIPE, stdout=subprocess.PIPE, env=child_environment()
        )
        _running[os.getpid()] = process
    return process


@atexit.register
def _end() -> int:
    """Close the pipe of this process's server, which ends it; its exit status, 0 where there is none."""
    process = _running.pop(os.getpid(), None)
    if process is None:
        return 0
    assert process.stdin is not None and process.stdout is not None  # both were asked for as pipes
    try:
        process.stdin.close()
    except BrokenPipeError:
        pass  # it ended before it read the request
    try:
        status = process.wait(timeout=2)
    except subprocess.TimeoutExpired:  # a process forked since then, of a DataLoader perhaps, holds the pipe open, too
        process.kill()
        status = process.wait()
    process.stdout.close()
    return status
