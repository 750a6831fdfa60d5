"""Metrics: known values, reasons instead of magic numbers, pairing, confidence intervals."""

from __future__ import annotations

import importlib.machinery
import json
import math
import os
import shutil
import signal
import subprocess
import sys
import types

import numpy as np
import pytest
import soundfile
import torch
from pesq import pesq
from torch import nn

from dccrn_lib.audio.files import write_audio
from dccrn_lib.evaluation import systems
from dccrn_lib.evaluation.folders import _refuse_input, evaluate_directories
from dccrn_lib.evaluation.intervals import Difference, bootstrap_ci, compare_systems, paired_difference, t_interval
from dccrn_lib.evaluation.metrics import REFERENCE_METRICS
from dccrn_lib.evaluation.native_pesq import native_pesq
from dccrn_lib.evaluation.pairing import pair_files
from dccrn_lib.evaluation.scores import score_pair
from dccrn_lib.evaluation.systems import Pair, evaluate_systems, score_many
from dccrn_lib.losses import si_snr_db
from dccrn_lib.runtime.errors import AudioError, ConfigError, MetricError
from dccrn_lib.runtime.paths import weights_dir

RATE = 16000
FAST = ["si_snr_db", "gain", "polarity"]


def speech_like(seconds: float = 2.0, seed: int = 0) -> np.ndarray:
    """Noise with a speech-like spectrum and syllables."""
    rng = np.random.default_rng(seed)
    n = int(seconds * RATE)
    shaped = np.convolve(rng.standard_normal(n + 63), np.hanning(64) / 10, mode="valid")
    return (0.1 * shaped * np.sin(np.arange(n) * np.pi / 4000) ** 2).astype(np.float32)


def white(n: int, level: float, seed: int = 1) -> np.ndarray:
    return (level * np.random.default_rng(seed).standard_normal(n)).astype(np.float32)


def test_a_perfect_estimate():
    s = speech_like()
    scores = score_pair(s, s, metrics=REFERENCE_METRICS)
    assert scores["pesq_wb"] == pytest.approx(4.644, abs=1e-3)
    assert scores["pesq_nb"] == pytest.approx(4.549, abs=1e-3)
    assert scores["stoi"] == pytest.approx(1.0, abs=1e-6)
    assert scores["gain"] == pytest.approx(1.0) and scores["polarity"] == 1.0
    assert scores["si_snr_db"] > 60 and scores["reasons"] == {}


def test_noise_lowers_every_quality_metric():
    s = speech_like()
    a, b = (score_pair(s, s + white(s.size, level), metrics=REFERENCE_METRICS) for level in (0.0002, 0.005))
    for name in ("pesq_wb", "pesq_nb", "stoi", "si_snr_db"):
        assert a[name] > b[name] + 0.01


def test_si_snr_is_the_loss_modules():
    s = speech_like()
    e = s + white(s.size, 0.01) + 0.05
    expected = si_snr_db(torch.from_numpy(e)[None], torch.from_numpy(s)[None]).item()
    assert score_pair(s, e, metrics=["si_snr_db"])["si_snr_db"] == pytest.approx(expected, abs=1e-4)


@pytest.mark.parametrize("noise", [0.01, 1e-5])
def test_si_snr_is_blind_to_the_level(noise: float):
    s = speech_like()
    e = s + white(s.size, noise)
    usual, *others = (
        score_pair(g * s, h * g * e, metrics=["si_snr_db"])["si_snr_db"]
        for g, h in ((1, 1), (1e-2, 1), (1e-4, 1), (6e-5, 1), (1, 1e-4), (1e5, 1))
    )
    assert others == pytest.approx([usual] * 5, abs=1e-3)


def test_any_dense_real_array_or_tensor_is_scored():
    s = speech_like()
    e = s + white(s.size, 0.01)
    expected = score_pair(s, e, metrics=FAST)
    backwards = score_pair(s[::-1], torch.from_numpy(e).flip(0), metrics=FAST)
    assert {k: backwards[k] for k in FAST} == pytest.approx({k: expected[k] for k in FAST}, rel=1e-6)
    read_only = s.astype(">f8")
    read_only.flags.writeable = False
    half = torch.from_numpy(e).bfloat16().requires_grad_()
    assert score_pair(read_only, half, metrics=["gain"])["gain"] == pytest.approx(expected["gain"], abs=1e-3)
    integers = (e * 30000).astype(np.int16)
    assert score_pair(s, integers, metrics=["si_snr_db"])["si_snr_db"] == pytest.approx(expected["si_snr_db"], abs=0.1)


@pytest.mark.parametrize(
    "kind",
    [
        lambda s: s.astype(np.complex64),
        lambda s: torch.from_numpy(s).to(torch.complex64),
        lambda s: torch.from_numpy(s).to_sparse(),
        lambda s: torch.from_numpy(s).to("meta"),
        lambda s: s > 0,
        lambda s: s.astype(str),
        lambda s: [s, s[:5]],
        lambda s: (128 + 100 * s).astype(np.uint8),
        lambda s: (30000 * s).astype(np.uint16),
        lambda s: (30000 * s).astype(np.int64),
    ],
)
def test_what_is_no_dense_real_signal_is_refused(kind):
    s = speech_like()[:8000]
    with pytest.raises(MetricError, match="^estimate (must|holds) [^\n]*$"):
        score_pair(s, kind(s), metrics=["si_snr_db"])


@pytest.mark.parametrize("kind", [np.int8, np.int16, np.int32])
def test_integers_have_their_full_scale(kind):
    s = speech_like()[:16000]
    e = np.clip(s, -0.9, 0.9)
    full = -float(np.iinfo(kind).min)
    integers = (e * full).round().astype(kind)
    for given in (integers, torch.from_numpy(integers)):
        assert score_pair(s, given, metrics=["gain"])["gain"] == pytest.approx(_gain(s, e), abs=5e-3)
    silent = score_pair(integers, np.zeros(16000, kind), metrics=["si_snr_db"])
    assert silent["reasons"]["si_snr_db"] == "estimate is silent"


def _gain(s: np.ndarray, e: np.ndarray) -> float:
    return score_pair(s, e, metrics=["gain"])["gain"]


def test_dnsmos_of_integers_is_that_of_floats(monkeypatch):
    heard = []
    package = types.ModuleType("speechmos")
    package.dnsmos = types.SimpleNamespace(
        run=lambda x, sr: heard.append(x) or {"ovrl_mos": 1.0, "sig_mos": 1.0, "bak_mos": 1.0}
    )
    package.__spec__ = importlib.machinery.ModuleSpec("speechmos", None)
    monkeypatch.setitem(sys.modules, "speechmos", package)
    s = (0.5 * speech_like()[:16000]).clip(-1, 1)
    integers = (s * 32767).astype(np.int16)
    assert score_pair(s, integers, metrics=["dnsmos_ovrl"])["dnsmos_ovrl"] == 1.0
    assert np.abs(heard[0] - s).max() < 1e-3


@pytest.mark.parametrize("workers, used", [(None, 8), (1, 1), (12, 12)])
def test_a_number_of_workers_is_honoured(monkeypatch, workers, used):
    asked = []
    monkeypatch.setattr(systems, "usable_cores", lambda: 64)
    monkeypatch.setattr(systems, "score_many", lambda pairs, metrics, workers: asked.append(workers) or iter(()))
    evaluate_systems({}, [], ["si_snr_db"], workers, progress=False)
    assert asked == [used]


def test_gain_and_polarity_see_what_the_others_cannot():
    s = speech_like()
    noisy = s + white(s.size, 0.003)
    up, down = (score_pair(s, noisy, metrics=REFERENCE_METRICS), score_pair(s, -0.5 * noisy, metrics=REFERENCE_METRICS))
    assert down["gain"] == pytest.approx(-0.5 * up["gain"], rel=1e-5) and up["gain"] == pytest.approx(1, abs=0.02)
    assert (up["polarity"], down["polarity"]) == (1.0, -1.0)
    for name in ("stoi", "si_snr_db", "pesq_wb"):
        assert down[name] == pytest.approx(up[name], rel=2e-3)


def test_a_constant_offset_is_neither_gain_nor_polarity():
    c, n = speech_like(), white(2 * RATE, 0.05)
    assert score_pair(c + 0.1, c, metrics=["gain"])["gain"] == pytest.approx(1.0, abs=1e-4)
    assert score_pair(c, c + 0.1, metrics=["gain"])["gain"] == pytest.approx(1.0, abs=1e-4)
    mirrored = score_pair(c + 0.1, -c + n + 0.1, metrics=["polarity", "gain"])
    assert mirrored["polarity"] == -1.0 and mirrored["gain"] == pytest.approx(-1.0, abs=0.05)


def _utterances(seconds: float) -> np.ndarray:
    """0.6 s of speech and 0.55 s of silence, again and again."""
    one = np.concatenate([speech_like(0.6), np.zeros(int(0.55 * RATE), np.float32)])
    return np.tile(one, math.ceil(seconds * RATE / one.size))[: int(seconds * RATE)]


@pytest.mark.skipif(not hasattr(os, "fork"), reason="nothing is forked here")
def test_a_forked_process_that_lives_on_does_not_keep_a_script_from_its_end(tmp_path):
    script = """
import os, time
import numpy as np
from dccrn_lib.evaluation.native_pesq import native_pesq
native_pesq(16000, np.ones(16000, np.float32), np.ones(16000, np.float32), "nb")
if os.fork() == 0:
    time.sleep(60)  # as a worker of a DataLoader that a traceback keeps
    os._exit(0)
"""
    done = subprocess.Popen([sys.executable, "-c", script], stdout=subprocess.DEVNULL, start_new_session=True)
    try:
        assert done.wait(timeout=45) == 0
    finally:
        os.killpg(done.pid, signal.SIGKILL)


def test_a_crash_of_the_native_code_ends_neither_this_process_nor_the_next_score():
    s = _utterances(120)
    value, problem = native_pesq(RATE, s, s + white(s.size, 0.01), "nb")  # more utterances than PESQ has room for
    assert value is None and problem.startswith("crashed")
    value, problem = native_pesq(RATE, s[: 2 * RATE], s[: 2 * RATE], "nb")
    assert value == pytest.approx(4.549, abs=1e-3) and problem == ""


def test_a_file_in_the_folder_one_is_in_is_not_taken_for_a_module(tmp_path, monkeypatch):
    (tmp_path / "pickle.py").write_text("raise SystemExit('a module of the folder one is in')")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("dccrn_lib.evaluation.native_pesq._running", {})  # a process of its own
    value, problem = native_pesq(RATE, _utterances(2), _utterances(2), "nb")
    assert value == pytest.approx(4.549, abs=1e-3) and problem == ""


def test_pesq_of_a_long_recording_is_that_of_its_pieces():
    s = _utterances(120)
    e = s + white(s.size, 0.0001)
    e[60 * RATE :] += white(60 * RATE, 0.001, seed=2)
    long = score_pair(s, e, metrics=["pesq_nb"])["pesq_nb"]
    halves = [score_pair(s[a:b], e[a:b], metrics=["pesq_nb"])["pesq_nb"] for a, b in ((0, 960000), (960000, 1920000))]
    assert halves[0] > halves[1] + 0.1 and long == pytest.approx(sum(halves) / 2, abs=0.02)


def test_pieces_without_speech_have_no_weight():
    s = np.concatenate([speech_like(20), np.zeros(20 * RATE, np.float32)])
    e = s + white(s.size, 0.003)
    alone = score_pair(s[: 20 * RATE], e[: 20 * RATE], metrics=["pesq_wb"])["pesq_wb"]
    assert score_pair(s, e, metrics=["pesq_wb"])["pesq_wb"] == alone


def test_a_constant_offset_does_not_count_as_speech_in_the_weight_of_a_piece(monkeypatch):
    s, found = speech_like(40), []
    s[: 18 * RATE] = 0  # two seconds of speech in the first piece, twenty in the second
    for offset in np.float32([0.0, 0.1]):
        values = iter([1.0, 3.0])
        monkeypatch.setattr("dccrn_lib.evaluation.scores._pesq_piece", lambda *_, v=values: (next(v), None))
        found.append(score_pair(s + offset, s + offset, metrics=["pesq_wb"])["pesq_wb"])
    assert found[1] == pytest.approx(found[0], abs=1e-3) and 2.7 < found[0] < 2.9


def test_up_to_twenty_seconds_the_score_is_the_packages_own():
    s = speech_like(20)
    e = s + white(s.size, 0.003)
    for mode in ("wb", "nb"):
        assert score_pair(s, e, metrics=[f"pesq_{mode}"])[f"pesq_{mode}"] == float(pesq(RATE, s, e, mode))


def test_other_rates_are_resampled():
    from dccrn_lib.audio.resampling import resample

    s = speech_like()
    e = s + white(s.size, 0.01)
    at_48k = [resample(x, RATE, 48000) for x in (s, e)]
    assert score_pair(*at_48k, sample_rate=48000, metrics=["stoi"])["stoi"] == pytest.approx(
        score_pair(s, e, metrics=["stoi"])["stoi"], abs=5e-3
    )


@pytest.mark.parametrize(
    "clean, estimate, words",
    [
        (np.zeros(32000), speech_like(), "clean is silent"),
        (speech_like(), np.zeros(32000), "estimate is silent"),
        (np.full(32000, 0.1), speech_like(), "clean is silent"),
        (speech_like(), np.full(32000, np.nan), "estimate holds NaN"),
        (np.full(32000, np.inf), speech_like(), "clean holds NaN or infinite"),
    ],
)
def test_what_cannot_be_scored_has_a_reason(clean, estimate, words):
    scores = score_pair(clean, estimate, metrics=REFERENCE_METRICS)
    for name in REFERENCE_METRICS:
        assert scores[name] is None and words in scores["reasons"][name]


def test_short_signals():
    s = speech_like()[4000:]
    scores = score_pair(s[:3000], s[:3000] * 0.9, metrics=REFERENCE_METRICS)
    assert scores["pesq_wb"] is None and "0.25 s" in scores["reasons"]["pesq_wb"]
    assert scores["stoi"] is None and "0.25 s" in scores["reasons"]["stoi"]
    assert scores["gain"] == pytest.approx(0.9)
    scores = score_pair(s[:5000], s[:5000], metrics=["stoi", "pesq_wb"])  # pystoi would say 1e-5
    assert scores["stoi"] is None and "0.4 s" in scores["reasons"]["stoi"]
    assert scores["pesq_wb"] is not None


def test_uncorrelated_has_no_polarity():
    s = np.sin(np.arange(16000) * 0.1)
    e = np.cos(np.arange(16000) * 0.3)
    scores = score_pair(s, e, metrics=FAST)
    assert scores["polarity"] is None and "uncorrelated" in scores["reasons"]["polarity"]


def test_wrong_shapes_raise():
    s = speech_like()
    with pytest.raises(MetricError, match="clean has 32000 samples, estimate 31999"):
        score_pair(s, s[:-1])
    with pytest.raises(MetricError, match="shape"):
        score_pair(np.stack([s, s]), np.stack([s, s]))
    with pytest.raises(MetricError, match="shape"):
        score_pair(s[:0], s[:0])
    with pytest.raises(ConfigError, match="did you mean pesq_wb"):
        score_pair(s, s, metrics=["pesq_bw"])


@pytest.mark.slow  # importing librosa takes most of it
def test_dnsmos_where_installed():
    pytest.importorskip("speechmos")
    scores = score_pair(speech_like(), 20 * speech_like(), metrics=["dnsmos_ovrl", "dnsmos_sig"])  # peak above 1
    assert list(scores) == ["dnsmos_ovrl", "dnsmos_sig", "reasons"]
    assert 0.9 < scores["dnsmos_ovrl"] < 3.5 and scores["reasons"] == {}
    assert score_pair(speech_like(), np.zeros(32000), metrics=["dnsmos_bak"])["dnsmos_bak"] is None


# --- statistics


def test_bootstrap_interval():
    x = np.random.default_rng(0).normal(2.0, 1.0, 400)
    low, high = bootstrap_ci(x)
    normal = 1.96 * x.std(ddof=1) / 20  # the normal approximation holds at n = 400
    assert low == pytest.approx(x.mean() - normal, abs=0.02) and high == pytest.approx(x.mean() + normal, abs=0.02)
    assert bootstrap_ci(x) == (low, high) != bootstrap_ci(x, seed=1)
    wide = bootstrap_ci(x, confidence=0.99)
    assert wide[0] < low < high < wide[1]
    assert all(math.isnan(v) for v in bootstrap_ci([1.0]))
    for bad in ([], [1.0, math.nan]):
        with pytest.raises(MetricError):
            bootstrap_ci(bad)


def test_paired_difference():
    b = [1.0, 2.0, 3.0, None, 5.0]
    a = [1.5, 2.7, 3.3, 4.0, math.nan]
    d = paired_difference(a, b)
    assert d.n == 3 and d.mean == pytest.approx(0.5) and d.share_better == 1.0
    assert d.effect_size == pytest.approx(0.5 / 0.2)
    assert 0.29 < d.low <= 0.5 <= d.high < 0.71
    assert paired_difference([1.0], [1.0]).effect_size is None
    assert paired_difference([None], [1.0]).mean is None
    with pytest.raises(MetricError, match="2 and 1"):
        paired_difference([1.0, 2.0], [1.0])
    with pytest.raises(MetricError, match="known: bootstrap, t"):
        paired_difference([1.0], [1.0], method="z")


def test_differences_that_vary_by_rounding_alone_have_no_effect_size():
    d = paired_difference([0.3, 0.4, 0.5], [0.2, 0.3, 0.4])
    assert d.mean == pytest.approx(0.1) and d.effect_size is None
    assert paired_difference([1e-3, 2e-3], [0.0, 0.0]).effect_size == pytest.approx(1.5 * 2**0.5)


@pytest.mark.parametrize("confidence", [0.0, 1.0, 95.0])
@pytest.mark.parametrize("method", ["bootstrap", "t"])
def test_a_confidence_that_is_no_fraction_is_refused(method, confidence):
    with pytest.raises(MetricError, match="confidence must lie between 0 and 1"):
        paired_difference([1.0, 2.0, 3.0], [1.0, 1.5, 3.5], confidence, method=method)


def test_bootstrap_draws_what_its_seed_says():
    x = np.random.default_rng(3).normal(size=37)
    drawn = np.random.default_rng(5).integers(0, 37, (10_000, 37))  # (resample, item)
    by_hand = np.quantile(x[drawn].mean(axis=1), [0.025, 0.975])
    assert bootstrap_ci(x, seed=5) == pytest.approx(tuple(by_hand), abs=1e-12)


def test_t_interval_against_the_textbook():
    # t(0.975, 4) = 2.776; differences 1..5: mean 3, sd 1.5811
    half = 2.7764 * 1.58114 / 5**0.5
    assert t_interval([1, 2, 3, 4, 5]) == pytest.approx((3 - half, 3 + half), abs=1e-3)
    assert t_interval([2.0, 2.0]) == (2.0, 2.0)
    assert np.isnan(t_interval([1.0])).all()
    with pytest.raises(MetricError):
        t_interval([])


@pytest.mark.parametrize(
    ("a", "b", "verdict"),
    [
        ([1.0, 2.1, 3.0, 4.2], [0.0, 1.0, 2.1, 3.0], "better"),
        ([0.0, 1.0, 2.1, 3.0], [1.0, 2.1, 3.0, 4.2], "worse"),
        ([1.0, -1.0, 2.0, -2.0], [0.0, 0.0, 0.0, 0.0], "not distinguishable"),
    ],
)
@pytest.mark.parametrize("method", ["bootstrap", "t"])
def test_verdict_is_the_side_of_zero_the_interval_lies_on(a, b, verdict, method):
    assert paired_difference(a, b, method=method).verdict == verdict


def test_a_difference_in_words():
    d = Difference(0.42951, 0.3651, 0.4939, 80, effect_size=1.234, share_better=0.8625)
    assert d.text("dB") == "+0.43 [+0.365, +0.494] dB" and d.text(form="+.3f") == "+0.430 [+0.365, +0.494]"
    assert d.in_full("dB") == "+0.43 [+0.365, +0.494] dB (n = 80, effect size +1.23, higher on 86 %)"
    assert str(d) == "+0.43 [+0.365, +0.494] better"
    assert Difference(-1.0, None, None, 1, "t").text() == "-1"
    nothing = compare_systems({"a": [{"stoi": None}], "b": [{"stoi": 1.0}]}, "a", "b", "stoi")
    assert nothing.in_full() == "no item could be scored for both" and nothing.verdict == "not distinguishable"
    assert nothing.record()["ci"] == [None, None]


def a_pair(name: int, level: float) -> Pair:
    clean = speech_like(0.5, seed=name)
    return Pair({"name": name}, clean, clean + white(clean.size, level))


def test_pairs_are_scored_in_their_order_and_drawn_as_they_are_needed():
    drawn = []

    def pairs():
        for k in range(30):
            drawn.append(k)
            yield a_pair(k, 0.001 * (1 + k % 3))

    scored = score_many(pairs(), FAST, workers=2)
    first = next(scored)
    assert len(drawn) <= 8  # four for each process: thirty signals are never in memory at once
    rest = list(scored)
    assert [first["name"], *(item["name"] for item in rest)] == list(range(30))
    assert [first, *rest] == list(score_many(pairs(), FAST, workers=1))


def test_an_estimate_that_is_not_there_is_an_item_with_a_reason():
    [item] = score_many([Pair({"name": 1}, speech_like(), "the model gave up")], ("gain",))
    assert item == {"name": 1, "gain": None, "reasons": {"gain": "the model gave up"}}


# --- folders


@pytest.fixture
def folders(tmp_path):
    """Three pairs; noisy gets nosier from a to c. FLOAT keeps them exact."""
    for i, name in enumerate(["a", "b", "sub/c"]):
        s = speech_like(1.0, seed=i)
        write_audio(tmp_path / "clean" / f"{name}.wav", s, RATE, subtype="FLOAT")
        noisy = s + white(s.size, 0.005 * (i + 1), seed=9 + i)
        write_audio(tmp_path / "noisy" / f"{name}.wav", noisy, RATE, subtype="FLOAT")
    return tmp_path


class Half(nn.Module):
    """A stand-in for a network: half the level, inverted."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return -0.5 * x


def test_scoring_noisy_files(folders):
    result = evaluate_directories(
        folders / "clean", folders / "noisy", json_path=folders / "out" / "r.json", metrics=FAST, progress=False
    )
    assert result == json.loads((folders / "out" / "r.json").read_text())
    assert (result["model"], result["system"], result["n"], result["n_scored"]) == (None, "noisy", 3, 3)
    assert [item["file"] for item in result["items"]] == ["a.wav", "b.wav", "sub/c.wav"]
    values = [item["si_snr_db"] for item in result["items"]]
    assert values[0] > values[1] > values[2]
    assert result["mean"]["si_snr_db"] == pytest.approx(np.mean(values), abs=1e-6)
    low, high = result["ci95"]["si_snr_db"]
    assert values[2] <= low <= result["mean"]["si_snr_db"] <= high <= values[0]
    assert "noisy_mean" not in result and result["unscored"] == []


def test_scoring_a_model_and_a_folder(folders):
    by_model = evaluate_directories(folders / "clean", folders / "noisy", model=Half(), metrics=FAST, progress=False)
    assert (by_model["model"], by_model["system"]) == ("Half", "model")
    assert by_model["mean"]["polarity"] == -1.0 and by_model["mean"]["gain"] == pytest.approx(-0.5, abs=0.02)
    assert by_model["improvement"]["si_snr_db"]["mean"] == pytest.approx(0, abs=1e-3)
    assert set(by_model["improvement"]) == {"si_snr_db"}
    assert by_model["noisy_mean"]["gain"] == pytest.approx(1.0, abs=0.04)
    same = evaluate_directories(
        folders / "clean", folders / "noisy", enhanced=folders / "clean", metrics=FAST, progress=False
    )
    assert same["system"] == "enhanced" and same["improvement"]["si_snr_db"]["share_better"] == 1.0
    with pytest.raises(ConfigError, match="not both"):
        evaluate_directories(folders / "clean", folders / "noisy", model=Half(), enhanced=folders / "noisy")


def test_processes_give_the_same(folders):
    arguments = {"metrics": ["si_snr_db", "stoi"], "progress": False, "model": Half()}
    one = evaluate_directories(folders / "clean", folders / "noisy", workers=1, **arguments)
    two = evaluate_directories(folders / "clean", folders / "noisy", workers=2, **arguments)
    assert one == two


def test_what_cannot_be_scored_is_counted(folders):
    write_audio(folders / "clean" / "b.wav", np.zeros(RATE), RATE, subtype="FLOAT")
    x = np.zeros(RATE, dtype=np.float32)
    x[7] = np.nan
    import soundfile

    soundfile.write(folders / "noisy" / "a.wav", x, RATE, subtype="FLOAT")
    result = evaluate_directories(
        folders / "clean", folders / "noisy", json_path=folders / "r.json", metrics=FAST, progress=False
    )
    assert (result["n"], result["n_scored"]) == (3, 1) and result["n_metric"]["gain"] == 1
    reasons = {entry["file"]: entry["reason"] for entry in result["unscored"]}
    assert reasons["b.wav"] == "clean is silent" and "index 7" in reasons["a.wav"]
    assert result["mean"]["si_snr_db"] == result["items"][2]["si_snr_db"]
    assert result["ci95"]["si_snr_db"] == [None, None]  # one value has no interval


def test_stereo_and_rates(folders):
    from dccrn_lib.audio.files import read_audio
    from dccrn_lib.audio.resampling import resample

    x, _ = read_audio(folders / "noisy" / "a.wav")
    stereo = np.concatenate([0.5 * x + 0.1, 1.5 * x - 0.1])
    write_audio(folders / "noisy" / "a.wav", resample(stereo, RATE, 48000), 48000, subtype="FLOAT")
    result = evaluate_directories(folders / "clean", folders / "noisy", metrics=["gain"], progress=False)
    assert result["items"][0]["gain"] == pytest.approx(1.0, abs=0.05)  # of one channel alone: 0.5 or 1.5


def test_lengths_are_checked_first(folders):
    write_audio(folders / "noisy" / "b.wav", speech_like(0.9), RATE)
    with pytest.raises(MetricError) as error:
        evaluate_directories(folders / "clean", folders / "noisy", json_path=folders / "r.json", progress=False)
    assert "b.wav 0.9000 s, clean 1.0000 s" in str(error.value) and "\n" not in str(error.value)
    assert not (folders / "r.json").exists()


def test_unpaired_files_are_named(folders):
    (folders / "noisy" / "b.wav").rename(folders / "noisy" / "bb.wav")
    with pytest.raises(MetricError) as error:
        pair_files(folders / "clean", folders / "noisy")
    assert "1 only in" in str(error.value) and "b.wav" in str(error.value) and "bb.wav" in str(error.value)
    (folders / "empty").mkdir()
    with pytest.raises(MetricError, match="no audio file in"):
        pair_files(folders / "clean", folders / "empty")
    with pytest.raises(AudioError, match="no such folder"):
        pair_files(folders / "clean", folders / "absent")


def test_pairing_rules(tmp_path):
    def make(folder: str, *names: str):
        for name in names:
            (tmp_path / folder).mkdir(exist_ok=True)
            (tmp_path / folder / name).write_bytes(b"x")
        return tmp_path / folder

    clean = make("clean", "x1.wav", "x2.wav")
    assert [p[0] for p in pair_files(clean, make("flac", "x2.flac", "x1.flac"))] == ["x1.flac", "x2.flac"]
    dns = make("dns", "clean_fileid_1.wav", "clean_fileid_12.wav")
    noisy = make("dns_noisy", "book_00_snr5_tl-20_fileid_12.wav", "amy_3_snr15_tl-30_fileid_1.wav")
    pairs = [(name, c.name) for name, c, _ in pair_files(dns, noisy)]
    assert pairs == [
        ("amy_3_snr15_tl-30_fileid_1.wav", "clean_fileid_1.wav"),
        ("book_00_snr5_tl-20_fileid_12.wav", "clean_fileid_12.wav"),
    ]
    with pytest.raises(MetricError, match="without a partner"):
        pair_files(clean, noisy)


@pytest.mark.parametrize("suffix", [".wav", ".flac"])
def test_one_cut_recording_refuses_no_other(folders, suffix):
    for folder in ("clean", "noisy"):
        (folders / folder / "b.wav").unlink()
        write_audio(folders / folder / f"b{suffix}", speech_like(3.0), RATE)
    path = folders / "noisy" / f"b{suffix}"
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    result = evaluate_directories(folders / "clean", folders / "noisy", metrics=FAST, progress=False)
    assert result["n_scored"] == result["n"] - 1
    assert {entry["file"] for entry in result["unscored"]} == {f"b{suffix}"}


def test_one_sample_of_rounding_among_three_rates(tmp_path):
    for seconds in (1.00003, 1.00007, 1.0001):
        for name, rate in (("clean", 48000), ("noisy", 44100), ("enhanced", 22050)):
            x = np.resize(speech_like(2.0), int(np.ceil(seconds * rate)))
            write_audio(tmp_path / name / f"{seconds}.wav", x, rate)
        write_audio(tmp_path / "noisy" / f"{seconds}.wav", np.resize(speech_like(2.0), int(seconds * 16000)), 16000)
    result = evaluate_directories(
        tmp_path / "clean", tmp_path / "noisy", enhanced=tmp_path / "enhanced", metrics=FAST, progress=False
    )
    assert result["n"] == result["n_scored"] == 3


@pytest.mark.parametrize("name", ["clean/a.wav", "noisy/a.wav", "link.json", "clean/new.flac"])
def test_the_result_never_replaces_a_recording(folders, name):
    (folders / "link.json").symlink_to(folders / "clean" / "a.wav")
    before = (folders / "clean" / "a.wav").read_bytes(), (folders / "noisy" / "a.wav").read_bytes()
    with pytest.raises(ConfigError, match="another file|no recording"):
        evaluate_directories(folders / "clean", folders / "noisy", json_path=folders / name, metrics=FAST)
    assert before == ((folders / "clean" / "a.wav").read_bytes(), (folders / "noisy" / "a.wav").read_bytes())


def test_the_result_never_replaces_the_models_card(folders):
    card = weights_dir() / "distil_dccrn.json"
    before = card.read_bytes()
    with pytest.raises(ConfigError, match="another file"):
        _refuse_input(card, [], "distil_dccrn")
    assert card.read_bytes() == before


def test_a_name_that_is_no_text_is_scored_and_written(folders):
    for folder in ("clean", "noisy"):
        old = os.path.join(os.fsencode(folders / folder), b"a.wav")
        os.rename(old, old.replace(b"a.wav", b"caf\xe9.wav"))
    evaluate_directories(
        folders / "clean", folders / "noisy", json_path=folders / "r.json", metrics=FAST, progress=False
    )
    names = {item["file"] for item in json.loads((folders / "r.json").read_text())["items"]}
    assert os.fsdecode(b"caf\xe9.wav") in names


@pytest.mark.parametrize("value", [1e25, 1e12, np.nan, np.inf])
@pytest.mark.parametrize("side", ["clean", "noisy", "enhanced"])
def test_one_file_beyond_all_sound_costs_its_own_scores_only(folders, side, value):
    shutil.copytree(folders / "noisy", folders / "enhanced")
    s = speech_like(1.0, seed=0)
    s[100] = value
    soundfile.write(folders / side / "a.wav", s, RATE, subtype="FLOAT")
    result = evaluate_directories(
        folders / "clean",
        folders / "noisy",
        enhanced=folders / "enhanced",
        json_path=folders / "r.json",
        metrics=["stoi", *FAST],
        progress=False,
    )
    assert (result["n"], result["n_scored"]) == (3, 2)
    assert {entry["file"] for entry in result["unscored"]} == {"a.wav"}
    assert all("a.wav holds a" in entry["reason"] for entry in result["unscored"])
    assert math.isfinite(result["mean"]["si_snr_db"])


@pytest.mark.parametrize("value", [1e12, 1e25, 3e38])
def test_signals_in_memory_beyond_all_sound_have_a_reason(value):
    s, e = speech_like(), speech_like()
    e[100] = value
    for clean, estimate, name in ((s, e, "estimate"), (e, s, "clean")):
        scores = score_pair(clean, estimate, metrics=REFERENCE_METRICS)
        for metric in REFERENCE_METRICS:
            assert scores[metric] is None and f"{name} holds values beyond" in scores["reasons"][metric]


def test_floats_in_units_of_integers_are_scored_as_usual():
    s = speech_like()
    e = s + white(s.size, 0.01)
    usual, large = (score_pair(k * s, k * e, metrics=["stoi", *FAST]) for k in (np.float32(1), np.float32(2**31)))
    assert large.pop("reasons") == usual.pop("reasons") == {} and large == pytest.approx(usual, rel=1e-3)


def test_both_means_are_over_the_same_files(folders):
    shutil.copytree(folders / "noisy", folders / "enhanced")
    silent = np.zeros(RATE, np.float32)
    write_audio(folders / "enhanced" / "a.wav", silent, RATE, subtype="FLOAT")  # the least noisy one
    result = evaluate_directories(
        folders / "clean", folders / "noisy", enhanced=folders / "enhanced", metrics=FAST, progress=False
    )
    assert result["mean"]["si_snr_db"] == result["noisy_mean"]["si_snr_db"]  # they are copies
    assert result["n_metric"]["si_snr_db"] == result["noisy_n_metric"]["si_snr_db"] == 2


def test_one_odd_sampling_rate_costs_its_own_scores_only(folders):
    for folder in ("clean", "noisy"):
        soundfile.write(folders / folder / "a.wav", speech_like(1.0), 1_000_003)
    result = evaluate_directories(folders / "clean", folders / "noisy", metrics=FAST, progress=False)
    assert result["n_scored"] == 2 and all("1000003 Hz" in entry["reason"] for entry in result["unscored"])
    with pytest.raises(AudioError, match="7 Hz"):
        score_pair(speech_like(), speech_like(), sample_rate=7)


def test_scoring_keeps_the_mode_of_each_layer():
    class Mixtures(list):
        config, seed = None, 0

    s = torch.from_numpy(speech_like()[:16000])
    item = {"id": "0", "snr_db": 5.0, "label": "fan", "clean": s, "noisy": s + 0.001 * torch.randn(16000)}
    model = nn.Sequential(nn.Identity().eval(), nn.Dropout(0.5)).train()
    model[0].eval()
    model.register_parameter("unused", nn.Parameter(torch.zeros(1)))
    items = evaluate_systems({"a": model}, Mixtures([item]), ["si_snr_db"], workers=1, progress=False)
    assert items["a"][0]["si_snr_db"] > 10
    assert [module.training for module in model.modules()] == [True, False, True]


def test_a_system_without_weights_is_scored():
    class Mixtures(list):
        config, seed = None, 0

    s = torch.from_numpy(speech_like()[:16000])
    item = {"id": "0", "snr_db": 5.0, "label": "fan", "clean": s, "noisy": s + 0.001 * torch.randn(16000)}
    items = evaluate_systems({"mask": Half()}, Mixtures([item]), ["polarity"], workers=1, progress=False)
    assert [i["polarity"] for i in items["mask"]] == [-1.0]
