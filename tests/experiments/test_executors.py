"""Trainings of an experiment on executors: the same scores everywhere, one error, and a dask cluster."""

from __future__ import annotations

import threading
from concurrent.futures import ProcessPoolExecutor, ThreadPoolExecutor
from dataclasses import replace
from multiprocessing import get_context

import pytest
import torch

from dccrn_lib.experiments import grid
from dccrn_lib.experiments.executors import cluster_executor, run_jobs
from dccrn_lib.results.records import load_result
from dccrn_lib.runtime.errors import ConfigError
from dccrn_lib.training.profiles import get_profile

TINY = replace(
    get_profile("smoke"), segment_seconds=0.5, student_steps=2, valid_mixtures=1, test_mixtures=2, test_seconds=1.0
)
METHODS, SEEDS = ["none"], [0, 1]


pytestmark = pytest.mark.usefixtures("one_thread", "flushed")


def sweep(corpus, out, executor=None, seeds=SEEDS):
    return grid.run_sweep(
        METHODS, seeds, TINY, out, corpus, metrics=("si_snr_db",), workers=1, progress=False, executor=executor
    )


@pytest.fixture(scope="module")
def here(corpus, tmp_path_factory):
    return sweep(corpus, tmp_path_factory.mktemp("here"))


@pytest.fixture(params=["threads", pytest.param("processes", marks=pytest.mark.slow)])
def executor(request):
    if request.param == "threads":
        with ThreadPoolExecutor(2) as pool:
            yield pool
    else:
        with ProcessPoolExecutor(2, get_context("spawn")) as pool:
            yield pool


def test_every_executor_gives_the_scores_of_one_process(corpus, here, executor, tmp_path):
    runs = sweep(corpus, tmp_path, executor)
    assert [(r.method, r.seed) for r in runs] == [("none", 0), ("none", 1)]
    assert [r.items for r in runs] == [r.items for r in here]
    assert [r["seed"] for r in load_result("sweep", tmp_path)["rows"]] == [0, 1]


def test_a_grid_goes_on_on_another_executor_where_it_stopped(corpus, here, tmp_path):
    sweep(corpus, tmp_path, seeds=[0])
    before = (tmp_path / "none" / "seed0" / "best.safetensors").stat().st_mtime_ns
    with ThreadPoolExecutor(1) as pool:
        runs = sweep(corpus, tmp_path, pool)
    assert [r.items for r in runs] == [r.items for r in here]
    assert (tmp_path / "none" / "seed0" / "best.safetensors").stat().st_mtime_ns == before


def test_jobs_in_threads_take_turns_and_leave_the_threads_as_they_were():
    inside, most, threads = [0], [0], set()

    def job(n: int) -> int:
        inside[0] += 1
        most[0] = max(most[0], inside[0])
        threads.add(torch.get_num_threads())
        threading.Event().wait(0.01)
        inside[0] -= 1
        return n * n

    torch.set_num_threads(2)
    with ThreadPoolExecutor(4) as pool:
        assert dict(run_jobs(job, range(8), pool)) == {n: n * n for n in range(8)}
    assert most == [1] and threads == {1} and torch.get_num_threads() == 2


def test_the_first_error_cancels_what_has_not_begun():
    begun = []

    def job(n: int) -> None:
        begun.append(n)
        threading.Event().wait(0.05)
        raise ConfigError(f"job {n}")

    with ThreadPoolExecutor(1) as pool, pytest.raises(ConfigError, match="job 0"):
        list(run_jobs(job, range(50), pool))
    assert len(begun) < 5


def test_a_training_that_was_told_to_stop_ends_the_grid(monkeypatch):
    config = grid.train_config("student", "smoke", {"speech": "s", "noise": "n", "rir": ""}, "out")
    jobs = [grid.GridJob("none", replace(config, out=f"out/seed{k}", seed=k), list, ()) for k in range(3)]
    monkeypatch.setattr(
        grid, "train_and_score", lambda job: None if job.config.seed else grid.SweepRun(job.name, job.config.seed, [])
    )
    assert [run.seed for run in grid.run_grid(jobs)] == [0]


def test_no_address_is_no_cluster():
    with cluster_executor("") as executor:
        assert executor is None


def test_a_dask_cluster_gives_the_scores_of_one_process(corpus, here, tmp_path):
    distributed = pytest.importorskip("distributed", reason="the extra cluster is not installed")
    with distributed.LocalCluster(
        n_workers=1, threads_per_worker=2, processes=False, protocol="tcp", dashboard_address=None
    ) as cluster:
        with cluster_executor(cluster.scheduler_address) as executor:
            runs = sweep(corpus, tmp_path, executor)
    assert [r.items for r in runs] == [r.items for r in here]


def test_a_cluster_that_does_not_answer_is_one_line(monkeypatch):
    pytest.importorskip("distributed", reason="the extra cluster is not installed")
    monkeypatch.setattr("dccrn_lib.experiments.executors.CONNECT_SECONDS", 0.5)
    with pytest.raises(ConfigError, match="no dask scheduler answers") as error:
        with cluster_executor("tcp://127.0.0.1:9"):
            pass
    assert "\n" not in str(error.value)
