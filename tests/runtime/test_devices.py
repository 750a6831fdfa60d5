"""Threads and denormal numbers are set in one place, and threads come back."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from dccrn_lib.runtime.devices import pick_device, prefer_fast_kernels, set_up_cpu, with_threads
from dccrn_lib.runtime.digests import state_digest
from dccrn_lib.runtime.errors import ConfigError


def test_a_cpu_that_is_set_up_has_its_threads_and_no_denormals():
    with with_threads(torch.get_num_threads()):
        set_up_cpu(threads=1)
        assert torch.get_num_threads() == 1
        assert (torch.tensor([1e-40]) * 1 == 0).all()


def test_threads_come_back_after_an_error():
    before = torch.get_num_threads()
    try:
        with with_threads(before + 1):
            assert torch.get_num_threads() == before + 1
            raise RuntimeError
    except RuntimeError:
        pass
    assert torch.get_num_threads() == before


def test_a_digest_tells_every_value_and_name_apart():
    torch.manual_seed(0)
    first = nn.Linear(2, 2)
    digest = state_digest(first)
    assert digest == state_digest(first) != state_digest(nn.Sequential(first))
    with torch.no_grad():
        first.bias[0] += 1e-6
    assert digest != state_digest(first)


@pytest.mark.parametrize("name", ["auto:1", "mps", "xpu"])
def test_a_device_that_is_not_here_is_refused_before_the_work(name: str):
    if name != "auto:1" and getattr(torch, name).is_available():
        pytest.skip(f"this machine has {name}")
    with pytest.raises(ConfigError, match="device"):
        pick_device(name)


def test_what_trains_on_a_gpu_takes_fast_kernels_and_not_those_of_cudnn_for_attention(monkeypatch):
    found = {}
    monkeypatch.setattr(torch.backends.cuda, "enable_cudnn_sdp", lambda wanted: found.update(attention=wanted))
    monkeypatch.setattr(torch.backends.cudnn, "benchmark", False)
    before = torch.backends.cuda.matmul.allow_tf32
    try:
        prefer_fast_kernels(torch.device("cpu"))
        assert not found and torch.backends.cuda.matmul.allow_tf32 == before
        prefer_fast_kernels(torch.device("cuda"))
        assert found == {"attention": False}
        assert torch.backends.cudnn.benchmark and torch.backends.cuda.matmul.allow_tf32
    finally:
        torch.backends.cuda.matmul.allow_tf32 = before
