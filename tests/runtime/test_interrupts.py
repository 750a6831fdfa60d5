"""Signals that end a command: exit code, message, and who goes on ignoring them."""

from __future__ import annotations

import os
import signal
import subprocess
import sys

import pytest

from dccrn_lib.runtime.interrupts import StopSignal, Terminated, deferred_interrupts, tidy_ending

pytestmark = pytest.mark.skipif(os.name != "posix", reason="signals of POSIX")

_COMMAND = """
import argparse, os, sys
from dccrn_lib import cli
from dccrn_lib.cli.main import main
from dccrn_lib.cli.parser import Parser
def strike(**options):
    parser = Parser(**options)
    parser.set_defaults(run=lambda args: os.kill(os.getpid(), int(sys.argv[1])) or 5)
    return parser
sys.modules["struck"] = sys.modules["__main__"]
cli.COMMANDS["strike"] = ("struck:strike", "")
sys.exit(main(["strike"]))
"""


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGHUP])
@pytest.mark.usefixtures("hears_signals")
def test_a_command_that_is_ended_says_so_and_has_the_code_of_the_signal(number):
    done = subprocess.run(
        [sys.executable, "-c", _COMMAND, str(int(number))], capture_output=True, text=True, timeout=60
    )
    assert (done.returncode, done.stderr) == (128 + number, f"error: ended by {number.name}\n")


_IN_A_FINALIZER = """
import os, sys, time
from dccrn_lib.runtime.interrupts import tidy_ending
class Struck:
    def __del__(self):
        os.kill(os.getpid(), int(sys.argv[1]))
        time.sleep(0.001)
with tidy_ending():
    Struck()
    try:
        time.sleep(30)
    finally:
        print("tidied")
print("not ended")
"""


@pytest.mark.usefixtures("hears_signals")
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGHUP, signal.SIGINT])
def test_a_signal_that_comes_in_a_finalizer_is_not_lost(number):
    command = [sys.executable, "-c", _IN_A_FINALIZER, str(int(number))]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60)
    assert (done.stdout, done.returncode != 0) == ("tidied\n", True)
    assert "ignored" not in done.stderr and done.stderr.count("Traceback") == 1  # that of the script, at its end


def test_other_errors_in_a_finalizer_are_told_as_ever(capsys):
    told = []
    before, sys.unraisablehook = sys.unraisablehook, lambda lost: told.append(lost.exc_type)
    try:
        with tidy_ending():
            hook = sys.unraisablehook

            class Broken:
                def __del__(self):
                    raise ValueError

            Broken()
        assert told == [ValueError] and sys.unraisablehook is not hook
    finally:
        sys.unraisablehook = before


def test_a_signal_may_wait_for_the_end_of_a_block():
    reached = []
    with tidy_ending(), pytest.raises(Terminated) as caught:
        with deferred_interrupts():
            signal.raise_signal(signal.SIGTERM)
            reached.append("end of the block")
        reached.append("behind it")
    assert reached == ["end of the block"] and caught.value.number == signal.SIGTERM
    assert signal.getsignal(signal.SIGTERM) == signal.SIG_DFL


def test_nohup_goes_on_being_heeded():
    command = ["nohup", sys.executable, "-c", _COMMAND, str(int(signal.SIGHUP))]
    assert subprocess.run(command, capture_output=True, text=True, timeout=60).returncode == 5


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_training_hears_each_signal_once(number):
    before = signal.signal(signal.SIGHUP, signal.SIG_DFL)
    try:
        with tidy_ending(), StopSignal() as stop:
            signal.raise_signal(number)
        assert stop.asked
        with tidy_ending(), pytest.raises(Terminated) as caught:
            signal.raise_signal(signal.SIGHUP)
        assert caught.value.number == signal.SIGHUP and signal.getsignal(signal.SIGHUP) == signal.SIG_DFL
    finally:
        signal.signal(signal.SIGHUP, before)


def test_an_ignored_sighup_stays_ignored():
    before = signal.signal(signal.SIGHUP, signal.SIG_IGN)
    try:
        with tidy_ending(), StopSignal() as stop:
            signal.raise_signal(signal.SIGHUP)
        assert not stop.asked
    finally:
        signal.signal(signal.SIGHUP, before)
