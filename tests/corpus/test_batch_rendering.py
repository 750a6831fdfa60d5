"""Mixtures rendered in batches from a corpus held on a device: those rendered one by one, up to rounding."""

from __future__ import annotations

import pickle
import warnings
from multiprocessing.reduction import ForkingPickler

import numpy as np
import pytest
import torch
from scipy.signal import resample_poly

from dccrn_lib.corpus.batch_rendering import DeviceCorpus, render_batch, resample
from dccrn_lib.corpus.decoded import decode_corpus
from dccrn_lib.corpus.mixing import MixConfig, MixtureDataset
from dccrn_lib.corpus.planning import SPEEDS
from dccrn_lib.corpus.rendering import render
from tests.corpus.pinned import ALL, KINDS, made_corpus, mixtures

AUGMENTATIONS = {
    "none": {"rir_probability": 0.0, "second_noise_probability": 0.0},
    **{name: {"rir_probability": 0.0, "second_noise_probability": 0.0, name: 1.0} for name in ALL},
    "all": ALL,
}


@pytest.fixture(scope="module")
def corpus(tmp_path_factory):
    folder = tmp_path_factory.mktemp("pinned")
    entries = made_corpus(folder)
    decoded = decode_corpus([e for kind in entries.values() for e in kind], folder / "d", workers=1, progress=False)
    return entries, decoded


@pytest.fixture(autouse=True)
def _without_warnings():
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", RuntimeWarning)  # the silent ones are left out, with a warning
        yield


def dataset(corpus, seconds=0.5, **settings) -> MixtureDataset:
    entries, decoded = corpus
    lists = (entries["speech"], entries["noise"], entries["rir"])
    return MixtureDataset(*lists, MixConfig(segment_seconds=seconds, **settings), seed=1, decoded=decoded)


def held(items: MixtureDataset, decoded) -> DeviceCorpus:
    return DeviceCorpus(items.planner.entries, decoded, decoded.tensor())


def worst(plans, items, decoded) -> float:
    """Largest relative difference between the two renderings, of a whole waveform and of its largest sample."""
    batch = render_batch(plans, held(items, decoded))
    found = []
    for i, plan in enumerate(plans):
        for one, many in zip(render(plan, items.recordings), batch, strict=True):
            difference = many[i].numpy() - one
            found.append(np.linalg.norm(difference) / np.linalg.norm(one))
            found.append(np.abs(difference).max() / np.abs(one).max())
    return max(found)


@pytest.mark.parametrize("name", AUGMENTATIONS)
def test_both_renderings_agree_with_every_augmentation(corpus, name):
    items = dataset(corpus, **AUGMENTATIONS[name])
    plans = [items.plan(i) for i in range(12)]
    used = {
        "rir_probability": any(p.room is not None for p in plans),
        "second_noise_probability": any(p.second_snr_db is not None for p in plans),
        "babble_probability": any(p.babble for p in plans),
        "speed_probability": len({p.speed for p in plans}) > 3,
        "equaliser_probability": all(p.speech.equaliser_db and p.noises[0].equaliser_db for p in plans),
        "wide_level_probability": any(p.level_dbfs < -35 for p in plans),
        "offset_probability": all(p.offset is not None for p in plans),
    }
    assert used.get(name, True)
    assert worst(plans, items, corpus[1]) < 1e-5


@pytest.mark.parametrize("kind", KINDS)
def test_both_renderings_agree_on_the_pinned_mixtures(corpus, kind):
    items = mixtures(corpus[0], kind, corpus[1])
    assert worst([items.plan(i) for i in range(6)], items, corpus[1]) < 1e-5


def test_a_mixture_does_not_depend_on_its_batch(corpus):
    items = dataset(corpus, **ALL)
    plans = [items.plan(i) for i in range(6)]
    device = held(items, corpus[1])
    together = render_batch(plans, device)[0]
    alone = torch.cat([render_batch([plan], device)[0] for plan in plans])
    assert (together - alone).abs().max() < 1e-5 * alone.abs().max()


def test_packed_in_another_process_and_pickled(corpus):
    items = dataset(corpus, **ALL)
    device = held(items, corpus[1])
    plans = [items.plan(i) for i in range(4)]
    packed = pickle.loads(pickle.dumps(device.pack))(pickle.loads(pickle.dumps(plans)))
    assert packed.ids == [p.id for p in plans]
    for ours, theirs in zip(render_batch(plans, device), render_batch(packed, device), strict=True):
        assert torch.equal(ours, theirs)


def test_a_packed_batch_reaches_another_process_as_a_few_kilobytes_without_shared_memory(corpus, monkeypatch):
    items = dataset(corpus, **ALL)
    device = held(items, corpus[1])
    packed = device.pack([items.plan(i) for i in range(4)])
    monkeypatch.setattr(torch.UntypedStorage, "_share_fd_cpu_", None)  # each tensor that travels as such calls it
    sent = bytes(ForkingPickler.dumps(packed))  # as the worker processes of a data loader send it
    assert len(sent) < 10_000
    with warnings.catch_warnings(action="error"):  # torch warns of arrays that may not be written to
        received = pickle.loads(sent)
    for ours, theirs in zip(render_batch(packed, device), render_batch(received, device), strict=True):
        assert torch.equal(ours, theirs)


@pytest.mark.parametrize("up, down", SPEEDS)
def test_speed_is_that_of_scipy(up, down):
    x = np.random.default_rng(0).standard_normal((2, 4001)).astype(np.float32)
    expected = resample_poly(x, up, down, axis=1)[:, :4001]
    got = resample(torch.from_numpy(x), up, down).numpy()
    assert got.shape == x.shape and not got[:, expected.shape[1] :].any()
    assert np.abs(got[:, : expected.shape[1]] - expected).max() < 1e-5
