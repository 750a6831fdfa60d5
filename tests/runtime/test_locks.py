"""A folder has one writer at a time, and a killed one leaves no lock behind."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from dccrn_lib.runtime import locks
from dccrn_lib.runtime.errors import ConfigError
from dccrn_lib.runtime.locks import only_writer

pytestmark = pytest.mark.skipif(os.name != "posix", reason="locks of POSIX")

_HOLDER = """
import os, sys, time
from dccrn_lib.runtime.locks import only_writer
with only_writer(sys.argv[1]):
    if os.fork() == 0:  # a worker, which outlives its parent for a while
        print("held", flush=True)  # by it, for it has closed the parent's lock by now
        time.sleep(20)
        os._exit(0)
    time.sleep(60)
"""


def test_a_folder_has_one_writer(tmp_path):
    with only_writer(tmp_path / "run"):
        with pytest.raises(ConfigError, match=rf"run: process {os.getpid()} on .* writes into this folder"):
            with only_writer(tmp_path / "run"):
                pass
        (tmp_path / "run" / "result").write_text("kept")
    with only_writer(tmp_path / "run"):
        pass
    assert [path.name for path in (tmp_path / "run").iterdir()] == ["result"]


def test_a_folder_that_stayed_empty_goes_again(tmp_path):
    with only_writer(tmp_path / "run"):
        pass
    assert not (tmp_path / "run").exists()


def test_a_killed_writer_holds_nothing_not_even_by_its_children(tmp_path):
    holder = subprocess.Popen([sys.executable, "-c", _HOLDER, str(tmp_path)], stdout=subprocess.PIPE, text=True)
    assert holder.stdout is not None and holder.stdout.readline() == "held\n"
    with pytest.raises(ConfigError, match=f"process {holder.pid}"):
        with only_writer(tmp_path):
            pass
    holder.kill()
    holder.wait(30)
    with only_writer(tmp_path):
        pass


def test_a_second_writer_may_wait_for_the_first(tmp_path):
    holder = subprocess.Popen([sys.executable, "-c", _HOLDER, str(tmp_path)], stdout=subprocess.PIPE, text=True)
    assert holder.stdout is not None and holder.stdout.readline() == "held\n"
    entered = threading.Event()

    def second():
        with only_writer(tmp_path, wait=True):
            entered.set()

    waiting = threading.Thread(target=second)
    waiting.start()
    assert not entered.wait(1.5)
    holder.kill()
    holder.wait(30)
    assert entered.wait(30)
    waiting.join(30)


def test_where_an_open_file_cannot_be_removed_the_lock_is_closed_first(tmp_path, monkeypatch):
    """So it is on systems without POSIX locks; what is written stays, and the lock goes."""
    monkeypatch.setattr(locks, "fcntl", None)
    opened, real, remove = set(), os.open, Path.unlink

    def watched(path, *args, **options):
        opened.add(descriptor := real(path, *args, **options))
        return descriptor

    def unlink(path, missing_ok=False):
        for descriptor in opened:
            with pytest.raises(OSError):
                os.fstat(descriptor)
        remove(path, missing_ok)

    monkeypatch.setattr(os, "open", watched)
    monkeypatch.setattr(Path, "unlink", unlink)
    with only_writer(tmp_path / "run"):
        (tmp_path / "run" / "result").write_text("kept")
    assert opened and [path.name for path in (tmp_path / "run").iterdir()] == ["result"]
