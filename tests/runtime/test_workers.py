"""Worker processes: what they hear of Ctrl-C, what becomes of one that is killed, and of all when their parent is."""

from __future__ import annotations

import multiprocessing
import os
import signal
import subprocess
import sys
import threading
import time
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path

import pytest
from tqdm import tqdm

from dccrn_lib.runtime.errors import WorkerError
from dccrn_lib.runtime.interrupts import Terminated, tidy_ending
from dccrn_lib.runtime.workers import SpawnPool, spawn_pool, worker_pool


@pytest.mark.usefixtures("hears_signals")
@pytest.mark.parametrize(("shielded", "handler"), [(True, signal.SIG_IGN), (False, signal.default_int_handler)])
def test_a_shielded_process_does_not_hear_ctrl_c(shielded, handler):
    before = signal.getsignal(signal.SIGINT)
    with spawn_pool(1, shielded=shielded) as pool:
        assert pool.submit(signal.getsignal, signal.SIGINT).result() == handler
    assert signal.getsignal(signal.SIGINT) == before


def test_each_task_may_have_a_process_of_its_own():
    with spawn_pool(1, tasks_per_process=1) as pool:
        assert len({pool.submit(os.getpid).result() for _ in range(2)} | {os.getpid()}) == 3


def test_a_killed_process_is_one_error_that_says_what_to_do():
    with pytest.raises(WorkerError, match="^a worker process ended early; take a walk$"):
        with spawn_pool(1, hint="take a walk") as pool:
            pool.submit(os._exit, 1).result()


def test_leaving_early_waits_for_what_runs_and_cancels_the_rest():
    with pytest.raises(KeyboardInterrupt):
        with spawn_pool(1) as pool:
            futures = [pool.submit(time.sleep, 0.2) for _ in range(50)]
            futures[0].result()
            raise KeyboardInterrupt
    assert futures[-1].cancelled() and all(future.done() for future in futures)


def test_a_process_that_starts_is_started_whole_before_a_signal_is_heard(monkeypatch):
    started = []

    def submit(pool, *_task):
        signal.raise_signal(signal.SIGTERM)
        started.append(pool)

    monkeypatch.setattr(ProcessPoolExecutor, "submit", submit)
    with tidy_ending(), pytest.raises(Terminated):
        with spawn_pool(1, shielded=False) as pool:
            pool.submit(int)
    assert started == [pool]


def test_a_signal_while_the_pool_ends_leaves_no_process_that_is_starting(monkeypatch):
    calls, shutdown = [], SpawnPool.shutdown

    def struck(pool, **options):
        calls.append(options)
        if len(calls) == 1:
            signal.raise_signal(signal.SIGTERM)  # as it waits
        shutdown(pool, **options)

    monkeypatch.setattr(SpawnPool, "shutdown", struck)
    with tidy_ending(), pytest.raises(Terminated):
        with spawn_pool(1, tasks_per_process=1, shielded=False) as pool:
            pool.submit(int).result()
            started = pool._processes
    assert calls == [{"wait": True, "cancel_futures": True}]
    assert not any(process.is_alive() for process in started.values())


class _Struck:
    def __del__(self):
        os.kill(os.getpid(), signal.SIGTERM)
        time.sleep(0.001)


def _struck_in_a_finalizer():
    _Struck()
    time.sleep(30)


@pytest.mark.usefixtures("hears_signals")
def test_no_process_outlives_a_pool_that_is_interrupted_while_it_ends():
    with pytest.raises(KeyboardInterrupt):
        with spawn_pool(1, time.sleep, (1.0,), shielded=False, tasks_per_process=1) as pool:
            pool.submit(int).result()  # after it the pool starts another process, which sleeps first
            processes = pool._processes
            threading.Timer(0.3, os.kill, (os.getpid(), signal.SIGINT)).start()
    assert processes is not None and not any(process.is_alive() for process in processes.values())
    assert not multiprocessing.active_children()


def test_a_worker_hears_a_signal_that_comes_in_a_finalizer(capfd):
    with spawn_pool(1) as pool, pytest.raises(Terminated):
        pool.submit(_struck_in_a_finalizer).result(timeout=25)
    assert "Traceback" not in capfd.readouterr().err


_PARENT = """
import os, sys, time
from pathlib import Path
from tqdm import tqdm
from dccrn_lib.runtime.files import atomic_path
from dccrn_lib.runtime.interrupts import tidy_ending
from dccrn_lib.runtime.workers import SpawnPool, spawn_pool, worker_pool

def work(name):
    with atomic_path(Path(sys.argv[2]) / f"{name}.txt") as temporary:
        temporary.write_text("half")
        (Path(sys.argv[2]) / f"worker{os.getpid()}").touch()
        time.sleep(60)

if __name__ == "__main__":
    with tidy_ending():
        if sys.argv[1] == "fork":
            with worker_pool(2) as run, tqdm(disable=True) as bar:
                run(work, range(4), bar)
        else:
            with spawn_pool(2, shielded=False) as pool:
                list(pool.map(work, range(4)))
"""


def alive(pid: int) -> bool:
    """Whether a process runs; one that has ended and was not yet asked for its code does not."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except FileNotFoundError:
        return False


def wait_until(true, seconds: float = 60.0) -> bool:
    end = time.monotonic() + seconds
    while not true() and time.monotonic() < end:
        time.sleep(0.05)
    return true()


@pytest.mark.skipif(not Path("/proc/self/stat").exists(), reason="looks at processes as Linux shows them")
@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM, signal.SIGHUP])
@pytest.mark.parametrize("kind", ["fork", "spawn"])
@pytest.mark.usefixtures("hears_signals")
def test_workers_end_with_their_parent_and_leave_nothing_half_written(tmp_path, kind, number):
    (tmp_path / "parent.py").write_text(_PARENT)
    (tmp_path / "out").mkdir()
    command = [sys.executable, str(tmp_path / "parent.py"), kind, str(tmp_path / "out")]
    parent = subprocess.Popen(command, stderr=subprocess.DEVNULL)
    try:
        assert wait_until(lambda: len(list((tmp_path / "out").glob("worker*"))) == 2, 200)
        workers = [int(path.name.removeprefix("worker")) for path in (tmp_path / "out").glob("worker*")]
        assert all(map(alive, workers))
        parent.send_signal(number)
        parent.wait(30)
    finally:
        parent.kill()
    assert wait_until(lambda: not any(map(alive, workers)))
    assert len(list((tmp_path / "out").iterdir())) == 2, "beside the names of the workers"


@pytest.mark.skipif(sys.platform != "linux", reason="forks")
def test_a_killed_process_of_a_forked_pool_is_the_same_error():
    with pytest.raises(WorkerError, match="^a worker process ended early; .* try fewer workers$"):
        with worker_pool(2) as run, tqdm(disable=True) as bar:
            run(os._exit, [1, 1], bar)


@pytest.mark.skipif(sys.platform != "linux", reason="forks")
def test_a_failed_task_ends_the_others_at_once():
    begun = time.monotonic()
    with pytest.raises(ValueError, match="sleep length"):
        with worker_pool(2) as run, tqdm(disable=True) as bar:
            run(time.sleep, [-1, 0, 60, 60], bar)
    assert time.monotonic() - begun < 50  # else they sleep for 120 s


_LARGE_RESULTS = """
import sys
from tqdm import tqdm
from dccrn_lib.runtime.interrupts import tidy_ending
from dccrn_lib.runtime.workers import worker_pool

def work(k):
    return bytes(16_000_000)

with tidy_ending(), worker_pool(2) as run:
    print("begun", flush=True)
    run(work, range(10_000), tqdm(disable=True))
"""


@pytest.mark.skipif(sys.platform != "linux", reason="forks")
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
@pytest.mark.usefixtures("hears_signals")
def test_a_worker_that_is_told_to_end_while_it_sends_a_result_sends_it_to_its_end(number):
    """Else the parent waits for the rest of it for ever."""
    for k in range(3):
        with subprocess.Popen([sys.executable, "-c", _LARGE_RESULTS], stdout=subprocess.PIPE) as process:
            try:
                assert process.stdout is not None and process.stdout.readline() == b"begun\n"
                time.sleep(0.2 + 0.05 * k)
                process.send_signal(number)
                assert process.wait(timeout=30) != 0
            finally:
                process.kill()
