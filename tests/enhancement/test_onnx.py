"""Exported models equal PyTorch, run without torch, and say what they are."""

from __future__ import annotations

import json
import subprocess
import sys
import warnings

import numpy as np
import pytest
import soundfile
import torch

from dccrn_lib.audio.stft import STFTConfig
from dccrn_lib.enhancement.frame_step import FrameStep
from dccrn_lib.enhancement.stream_step import StreamingCore
from dccrn_lib.enhancement.waveform import enhance_waveform
from dccrn_lib.networks.dccrn import DCCRN, DCCRNConfig
from dccrn_lib.networks.presets import build_model, config_from_dict
from dccrn_lib.runtime.errors import AudioError, ConfigError, WeightsError

onnx = pytest.importorskip("onnx", reason="the extra export is not installed")
ort = pytest.importorskip("onnxruntime", reason="the extra export is not installed")

from dccrn_lib.cli import main as cli  # noqa: E402
from dccrn_lib.enhancement import onnx_export  # noqa: E402
from dccrn_lib.enhancement.onnx_export import METADATA, export_onnx, precision_loss  # noqa: E402
from dccrn_lib.enhancement.onnx_runtime import OnnxEnhancer, enhance_wav  # noqa: E402

TINY = {"channels": (4, 8, 8, 8, 8, 8), "rnn_units": 8}


def lively(model: DCCRN) -> DCCRN:
    """Weights large enough for an audible output, biases and statistics away from their start."""
    generator = torch.Generator().manual_seed(3)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if "bias" in name:
                parameter.normal_(0.0, 0.1, generator=generator)
            elif "conv.weight" in name:
                parameter.normal_(0.0, 0.15, generator=generator)
        for name, buffer in model.named_buffers():
            if name.endswith("running_mean"):
                buffer.normal_(0.0, 0.2, generator=generator)
    return model.eval()


def tiny(**fields) -> DCCRN:
    torch.manual_seed(0)
    return lively(DCCRN(DCCRNConfig(**{**TINY, **fields})))


def noise(length: int) -> np.ndarray:
    return (0.3 * np.random.default_rng(length).standard_normal(length)).astype(np.float32)


def offline(model: DCCRN, x: np.ndarray) -> np.ndarray:
    with torch.no_grad():
        return model(torch.from_numpy(x)[None])[0].numpy()


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    """A small model with both kinds exported: (model, {kind: path})."""
    model, folder = tiny(lstm="complex"), tmp_path_factory.mktemp("onnx")
    return model, {kind: export_onnx(model, folder / f"{kind}.onnx", kind) for kind in ("streaming", "offline")}


VARIANTS = [
    {"lstm": "complex"},
    {"lstm": "real", "norm": "complex_batch", "mask": "C"},
    {"lstm": "complex", "mask": "R", "decoder_lookahead": 0},
    {"lstm": "real", "decoder_lookahead": 0, "stft": STFTConfig(320, 160, 512, "sqrt_hann")},
    {"lstm": "complex", "stft": STFTConfig(300, 70, 512, "hann")},
]


@pytest.mark.parametrize("kind", ["streaming", "offline"])
@pytest.mark.parametrize("fields", VARIANTS)
def test_runner_equals_torch_at_three_lengths(tmp_path, fields, kind):
    model = tiny(**fields)
    runner = OnnxEnhancer(export_onnx(model, tmp_path / "model.onnx", kind))
    for length in (1, 777, 5003):
        x = noise(length)
        expected, out = offline(model, x), runner.enhance(x)
        assert out.shape == x.shape and out.dtype == np.float32
        np.testing.assert_allclose(out, expected, atol=1e-5)
    assert expected.std() > 0.01  # something to compare


@pytest.mark.parametrize("kind", ["streaming", "offline"])
def test_full_student_equals_torch(tmp_path, kind):
    torch.manual_seed(0)
    model = lively(build_model("distil_dccrn"))
    runner = OnnxEnhancer(export_onnx(model, tmp_path / "student.onnx", kind))
    for length in (1, 3000, 8000):
        x = noise(length)
        np.testing.assert_allclose(runner.enhance(x), offline(model, x), atol=1e-4)


def test_offline_core_takes_any_number_of_frames(files):
    model, paths = files
    session = ort.InferenceSession(str(paths["offline"]))
    for frames in (1, 2, 33):
        spectrum = torch.randn(1, 257, frames, dtype=torch.complex64)
        parts = torch.stack([spectrum.real, spectrum.imag], dim=1).numpy()
        out = session.run(["enhanced"], {"spectrum": parts})[0]
        assert out.shape == (1, 2, 257, frames)
        with torch.no_grad():
            expected = model.enhance_spectrum(spectrum).numpy()
        np.testing.assert_allclose(out[:, 0] + 1j * out[:, 1], expected, atol=1e-5)


def test_streaming_step_has_fixed_shapes_and_states_in_and_out(files):
    model, paths = files
    session = ort.InferenceSession(str(paths["streaming"]))
    inputs = {i.name: i.shape for i in session.get_inputs()}
    outputs = {o.name: o.shape for o in session.get_outputs()}
    states = FrameStep(StreamingCore(model)).initial_states()
    assert inputs.pop("spectrum") == [1, 2, 257, 1] and inputs.pop("active") == [1]
    assert outputs.pop("enhanced") == [1, 2, 257, 1]
    assert inputs == {f"state.{name}": list(state.shape) for name, state in states.items()}
    assert list(outputs) == [f"new_state.{name}" for name in states]


def test_push_and_flush_in_any_pieces(files):
    model, paths = files
    runner, x = OnnxEnhancer(paths["streaming"]), noise(2345)
    assert runner.latency_samples == 999
    for _ in range(2):  # flush starts anew
        pieces = [runner.push(x[a:b]) for a, b in ((0, 0), (0, 1), (1, 900), (900, 901), (901, 2345))]
        assert [p.size for p in pieces] == [0, 1, 899, 1, 1444]
        out = np.concatenate([*pieces, runner.flush()])
        assert not out[:999].any()
        np.testing.assert_allclose(out[999:], offline(model, x), atol=1e-5)


def test_metadata_tell_all(files):
    model, paths = files
    for kind, path in paths.items():
        metadata = {p.key: p.value for p in onnx.load(str(path)).metadata_props}
        assert set(metadata) == set(METADATA)
        assert metadata["kind"] == kind
        assert metadata["sample_rate"] == "16000" and metadata["latency_samples"] == "999"
        sizes = [metadata[key] for key in ("window_length", "hop_length", "fft_size", "window", "lookahead_frames")]
        assert sizes == ["400", "100", "512", "hann", "6"]
        assert config_from_dict(json.loads(metadata["config"])) == model.config


def test_export_is_silent_and_leaves_the_model_alone(tmp_path, capfd):
    model = tiny().train()
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        for kind in ("streaming", "offline"):
            export_onnx(model, tmp_path / f"{kind}.onnx", kind)
    assert capfd.readouterr() == ("", "")
    assert model.training and all(p.requires_grad for p in model.parameters())
    assert sorted(p.name for p in tmp_path.iterdir()) == ["offline.onnx", "streaming.onnx"]


def test_failed_export_leaves_the_old_file(tmp_path, monkeypatch):
    path = tmp_path / "model.onnx"
    path.write_bytes(b"old")

    def fail(*_args, **_kwargs):
        raise OSError("disk full")

    monkeypatch.setattr(onnx, "save", fail)
    with pytest.raises(OSError, match="disk full"):
        export_onnx(tiny(), path)
    assert path.read_bytes() == b"old" and list(tmp_path.iterdir()) == [path]


@pytest.mark.parametrize(
    ("arguments", "reason"),
    [
        ({"kind": "live"}, "streaming, offline"),
        ({"precision": "fp8"}, "float32, float16, int8"),
        ({"path": "model.wav"}, "must end in .onnx"),
        ({"model": "distil_dccrn"}, "expected a DCCRN from build_model or load_model, got str"),
    ],
)
def test_unknown_options_are_refused(tmp_path, arguments, reason):
    path = tmp_path / arguments.get("path", "model.onnx")
    with pytest.raises(ConfigError, match=reason):
        export_onnx(**{"model": tiny(), **arguments, "path": path})
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("kind", ["streaming", "offline"])
def test_uformer_is_refused_with_the_reason(tmp_path, kind):
    with pytest.raises(ConfigError, match="Uformer is not exported: its global time attention"):
        export_onnx(build_model("uformer_mini"), tmp_path / "model.onnx", kind)


def test_int8_is_smaller_and_its_loss_is_measured(capfd):
    torch.manual_seed(0)
    model = lively(build_model("distil_dccrn_mini"))
    loss = precision_loss(model, noise(8000))
    assert 20 < loss["snr_db"] < 120  # reduced, yet the same signal
    assert loss["size_ratio"] < 1
    assert capfd.readouterr() == ("", "")


@pytest.mark.parametrize("kind", ["streaming", "offline"])
def test_float16_halves_the_file_and_changes_little(kind, capfd):
    torch.manual_seed(0)
    loss = precision_loss(lively(build_model("distil_dccrn_mini")), noise(8000), "float16", kind)
    assert 50 < loss["snr_db"] < 120
    assert loss["size_ratio"] < 0.75  # the rest is the graph
    assert capfd.readouterr() == ("", "")


def test_the_streaming_graph_holds_one_product_a_layer_and_nothing_to_guess(files):
    model, paths = files
    graph = onnx.load(str(paths["streaming"])).graph
    kinds = [node.op_type for node in graph.node]
    layers = 2 * len(model.config.channels) + 4 + 2  # encoder and decoder, two complex LSTMs, two projections
    assert kinds.count("Gemm") == layers and not {"Conv", "ConvTranspose", "LSTM", "MatMul"} & set(kinds)
    assert not {"Shape", "Expand", "ConstantOfShape", "Where", "Cast", "Pad"} & set(kinds)  # all sizes are known
    assert kinds.count("Transpose") <= 4  # spectrum in and out, real and imaginary part of the bottleneck


def test_runner_needs_no_torch(files, tmp_path):
    import soundfile

    _, paths = files
    soundfile.write(tmp_path / "in.wav", noise(1600), 16000)
    arguments = ["run-onnx", str(paths["streaming"]), str(tmp_path / "in.wav"), str(tmp_path / "out.wav")]
    code = (
        "import sys\n"
        "for name in ('torch', 'torchaudio', 'scipy', 'onnx', 'tqdm', 'jsonargparse'):\n"
        "    sys.modules[name] = None  # importing it fails, as where it is not installed\n"
        "from dccrn_lib.cli.main import main\n"
        f"sys.exit(main({arguments}))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60)
    assert (done.returncode, done.stdout, done.stderr) == (0, f"{tmp_path / 'out.wav'}\n", "")
    assert soundfile.info(tmp_path / "out.wav").frames == 1600


def test_wav_in_wav_out_keeps_channels_and_format(files, tmp_path):
    import soundfile

    model, paths = files
    x = 0.5 * np.stack([noise(1700), noise(1701)[:1700]], axis=1)  # below full scale
    for kind in paths:
        soundfile.write(tmp_path / "in.wav", x, 16000, subtype="FLOAT")
        enhance_wav(paths[kind], tmp_path / "in.wav", tmp_path / "out.wav", overwrite=True)
        out, rate = soundfile.read(tmp_path / "out.wav", dtype="float32")
        assert rate == 16000 and soundfile.info(tmp_path / "out.wav").subtype == "FLOAT"
        for channel in range(2):
            expected = enhance_waveform(model, np.ascontiguousarray(x[:, channel]))  # at one level, too
            np.testing.assert_allclose(out[:, channel], expected, atol=1e-5)


def test_an_output_that_exists_is_replaced_only_when_asked_to(files, tmp_path):
    import soundfile

    _, paths = files
    soundfile.write(tmp_path / "in.wav", noise(1700), 16000)
    (tmp_path / "out.wav").write_text("mine")
    with pytest.raises(
        AudioError, match=r"out\.wav exists; choose another output name, or replace it with --overwrite"
    ):
        enhance_wav(paths["offline"], tmp_path / "in.wav", tmp_path / "out.wav")
    assert (tmp_path / "out.wav").read_text() == "mine"
    enhance_wav(paths["offline"], tmp_path / "in.wav", tmp_path / "out.wav", overwrite=True)
    assert soundfile.info(tmp_path / "out.wav").frames == 1700


def test_wav_beyond_full_scale_is_not_clipped(files, tmp_path):
    import soundfile

    model, paths = files
    x = 20 * noise(1700)  # peak near 20
    expected = enhance_waveform(model, x)
    assert np.abs(expected).max() > 1.5
    soundfile.write(tmp_path / "in.wav", x, 16000, subtype="FLOAT")
    enhance_wav(paths["offline"], tmp_path / "in.wav", tmp_path / "out.wav")
    out, _ = soundfile.read(tmp_path / "out.wav", dtype="float32")
    np.testing.assert_allclose(out, expected, atol=1e-4)
    gain_db = enhance_wav(paths["offline"], tmp_path / "in.wav", tmp_path / "out.flac")  # holds no more than full scale
    out, _ = soundfile.read(tmp_path / "out.flac", dtype="float32")
    np.testing.assert_allclose(out, expected / np.abs(expected).max(), atol=2e-4)
    assert 10 ** (gain_db / 20) == pytest.approx(0.9999 / np.abs(expected).max(), rel=1e-3)
    assert soundfile.info(tmp_path / "out.flac").subtype == "PCM_24"


def test_the_command_says_that_it_lowered_a_file_and_keeps_its_tags(files, tmp_path, capsys):
    import soundfile

    _, paths = files
    for name, scale in (("loud", 20), ("usual", 0.1)):
        with soundfile.SoundFile(tmp_path / f"{name}.wav", "w", 16000, 1, "FLOAT") as file:
            file.title = "Talk"
            file.write(scale * noise(1700))
        out = str(tmp_path / f"{name}.flac")
        assert cli.main(["run-onnx", str(paths["offline"]), str(tmp_path / f"{name}.wav"), out]) == 0
        said = capsys.readouterr().out
        assert said.startswith(out) and ("lowered by" in said) == (name == "loud"), said
        with soundfile.SoundFile(out) as file:
            assert file.title == "Talk"


def test_opus_in_opus_out(files, tmp_path):
    import soundfile

    _, paths = files
    soundfile.write(tmp_path / "in.opus", noise(4800), 16000, format="OGG", subtype="OPUS")
    enhance_wav(paths["offline"], tmp_path / "in.opus", tmp_path / "out.opus")
    enhance_wav(paths["offline"], tmp_path / "in.opus", tmp_path / "out.wav")
    assert soundfile.info(tmp_path / "out.opus").subtype == "OPUS"
    coded, plain = (soundfile.read(tmp_path / f"out.{kind}")[0] for kind in ("opus", "wav"))
    assert len(coded) == len(plain) and np.std(coded) == pytest.approx(np.std(plain), rel=0.3) and np.std(plain) > 1e-4


def test_a_long_file_is_written_in_pieces(files, tmp_path, monkeypatch):
    """libsndfile's Vorbis encoder crashes on very long writes."""
    import soundfile

    _, paths = files
    source = tmp_path / "in.wav"
    soundfile.write(source, np.zeros((300_000, 1), np.float32), 16000)
    lengths, real = [], soundfile.SoundFile.write

    def watched(self, data):
        lengths.append(len(data))
        real(self, data)

    monkeypatch.setattr(soundfile.SoundFile, "write", watched)
    monkeypatch.setattr(OnnxEnhancer, "enhance", lambda self, x: x)
    enhance_wav(paths["offline"], source, tmp_path / "out.ogg")
    assert (
        sum(lengths[1:]) == 300_000 and max(lengths) <= 1 << 18
    )  # the first is of one sample, by which the rate is tried
    assert soundfile.info(tmp_path / "out.ogg").frames == 300_000


def test_an_output_that_its_format_cannot_hold_is_refused(files, tmp_path, monkeypatch):
    import soundfile

    from dccrn_lib.audio import recording

    _, paths = files
    soundfile.write(tmp_path / "in.flac", noise(4800), 16000)
    monkeypatch.setattr(recording, "_LARGEST", 2 * 4800 - 1)
    with pytest.raises(AudioError, match="WAV holds up to 4 GiB.*use .w64"):
        enhance_wav(paths["offline"], tmp_path / "in.flac", tmp_path / "out.wav")
    enhance_wav(paths["offline"], tmp_path / "in.flac", tmp_path / "out.w64")


def test_command_line_says_what_is_wrong_in_one_line(files, tmp_path, capsys):
    import soundfile

    _, paths = files
    model, source, out = str(paths["offline"]), str(tmp_path / "in.wav"), str(tmp_path / "out.wav")
    text = tmp_path / "text.wav"
    text.write_text("not audio")
    (tmp_path / "folder.wav").mkdir()
    soundfile.write(tmp_path / "fast.wav", noise(800), 48000)
    soundfile.write(tmp_path / "empty.wav", np.zeros(0, np.float32), 16000)
    soundfile.write(source, noise(800), 16000)
    for arguments, words in [
        ([model, str(tmp_path / "none.wav"), out], "none.wav"),
        ([model, str(text), out], "text.wav"),
        ([model, str(tmp_path / "fast.wav"), out], "48000 Hz"),
        ([model, str(tmp_path / "empty.wav"), out], "empty.wav has no samples"),
        ([model, source, source], "is the input itself"),
        ([model, source, str(tmp_path / "out.xyz")], "out.xyz: give a file name that ends in"),
        ([model, source, str(tmp_path / "out")], "ends in .wav"),
        ([model, source, str(tmp_path / "folder.wav")], "folder.wav: give a file name"),
        ([model, source, str(text / "out.wav")], "text.wav: "),
        ([str(tmp_path / "none.onnx"), source, out], "none.onnx"),
        ([str(text), source, out], "not a model"),
    ]:
        assert cli.main(["run-onnx", *arguments]) == 1
        error = capsys.readouterr().err
        assert words in error and error.count("\n") == 1, error
    assert not (tmp_path / "out.wav").exists()
    with pytest.raises(SystemExit, match="2"):
        cli.main(["run-onnx", "only one"])


def test_runner_refuses_bad_samples_and_foreign_files(files, tmp_path):
    _, paths = files
    runner = OnnxEnhancer(paths["offline"])
    for bad in (np.zeros((2, 5), np.float32), np.zeros(5, np.int16), np.array([0.0, np.nan]), np.zeros(0)):
        with pytest.raises(AudioError):
            runner.enhance(bad)
    live = OnnxEnhancer(paths["streaming"])
    for bad in (np.array([1e300]), np.full(200, 2e6, np.float32)):
        for take in (runner.enhance, live.enhance, live.push):
            with pytest.raises(AudioError, match="beyond 1e.06"):
                take(bad)
    for take in (runner.enhance, live.enhance, live.push):  # a float16 would turn the limit into infinity
        with pytest.raises(AudioError, match="NaN or infinity"):
            take(np.array([0.1, np.inf], np.float16))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        live.push(noise(400).astype(np.float16))
    live.reset()
    assert np.isfinite(live.push(noise(400))).all() and live.push(np.zeros(0, np.float32)).size == 0
    with pytest.raises(AudioError, match="kind offline"):
        runner.push(noise(10))
    graph = onnx.load(str(paths["offline"]))
    del graph.metadata_props[:]
    onnx.save(graph, str(tmp_path / "foreign.onnx"))
    with pytest.raises(WeightsError, match="metadata"):
        OnnxEnhancer(tmp_path / "foreign.onnx")


@pytest.mark.parametrize(
    ("key", "value"), [("window", None), ("window", "box"), ("sample_rate", "16 kHz"), ("kind", "on")]
)
def test_damaged_metadata_are_named(files, tmp_path, key, value):
    graph = onnx.load(str(files[1]["streaming"]))
    kept = [(p.key, p.value) for p in graph.metadata_props if p.key != key] + ([(key, value)] if value else [])
    del graph.metadata_props[:]
    onnx.helper.set_model_props(graph, dict(kept))
    onnx.save(graph, str(tmp_path / "damaged.onnx"))
    with pytest.raises(WeightsError, match="metadata"):
        OnnxEnhancer(tmp_path / "damaged.onnx")


def test_flac_of_unknown_length_is_read_by_decoding(files, tmp_path):
    import soundfile

    _, paths = files
    outputs = []
    for known in (True, False):
        soundfile.write(tmp_path / "in.flac", 0.3 * noise(4800), 16000)
        if not known:
            data = bytearray((tmp_path / "in.flac").read_bytes())
            data[21] &= 0xF0  # total samples 0, as an encoder writes into a pipe
            data[22:26] = bytes(4)
            (tmp_path / "in.flac").write_bytes(data)
        enhance_wav(paths["offline"], tmp_path / "in.flac", tmp_path / "out.wav", overwrite=True)
        outputs.append(soundfile.read(tmp_path / "out.wav")[0])
    assert len(outputs[0]) == 4800 and np.array_equal(*outputs)


def test_what_is_no_whole_recording_is_refused_by_the_runner_too(files, tmp_path):
    import soundfile

    _, paths = files
    soundfile.write(tmp_path / "in.wav", noise(4800), 16000)
    data = (tmp_path / "in.wav").read_bytes()
    (tmp_path / "in.wav").write_bytes(data[:5000])
    with pytest.raises(AudioError, match="cut off"):
        enhance_wav(paths["offline"], tmp_path / "in.wav", tmp_path / "out.wav")
    (tmp_path / "in.wav").write_bytes(data[:40] + bytes(4) + data[44:])
    with pytest.raises(AudioError, match="did not finish it"):
        enhance_wav(paths["offline"], tmp_path / "in.wav", tmp_path / "out.wav")


def test_int8_is_judged_at_the_level_at_which_a_file_is_heard(monkeypatch, tmp_path):
    heard = []
    loss = {"snr_db": 1.0, "size_ratio": 1.0, "time_ratio": 1.0}
    monkeypatch.setattr(onnx_export, "precision_loss", lambda model, samples, precision: heard.append(samples) or loss)
    x = 0.3 * np.random.default_rng(0).standard_normal(16000)
    for gain in (1.0, 1e-3):
        soundfile.write(tmp_path / "a.wav", gain * x, 16000, subtype="FLOAT")
        assert cli.main(["bench", "int8", str(tmp_path / "a.wav")]) == 0
    assert heard[0].dtype == np.float32 and np.allclose(heard[0], heard[2], atol=1e-5)


def test_an_offline_file_has_no_stream_to_end(files):
    with pytest.raises(AudioError, match="kind offline"):
        OnnxEnhancer(files[1]["offline"]).flush()


def test_what_numpy_takes_for_no_array_is_refused(files):
    live = OnnxEnhancer(files[1]["streaming"])
    for bad in (torch.zeros(5, requires_grad=True), torch.zeros(5, dtype=torch.bfloat16), [[1.0, 2.0], [1.0]]):
        with pytest.raises(AudioError, match="float samples of shape"):
            live.push(bad)


def test_a_lack_of_memory_for_a_whole_signal_comes_with_the_cure(files, monkeypatch):
    runner = OnnxEnhancer(files[1]["offline"])

    class Full:
        def run(self, *_):
            raise RuntimeError("Failed to allocate memory for requested buffer of size 786530304")

    monkeypatch.setattr(runner, "session", Full())
    with pytest.raises(AudioError, match="--kind streaming"):
        runner.enhance(noise(4000))
