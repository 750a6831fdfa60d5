"""The player of the page under Node.js, with an audio context whose start the test decides."""

from __future__ import annotations

import json
import shutil
import subprocess
from pathlib import Path

import pytest

from tests.demo.demo_page import FOLDER, bundle_module

STUBS = """
const sounding = new Set(), waiting = [];
globalThis.AudioBuffer = class {
  constructor({ length, sampleRate }) { this.duration = length / sampleRate; }
  copyToChannel() {}
};
globalThis.GainNode = class { connect(to) { return to; } disconnect() {} };
globalThis.AudioBufferSourceNode = class {
  connect(to) { return to; }
  start(when, offset) { this.offset = offset; sounding.add(this); }
  stop() { sounding.delete(this); }
};
globalThis.AudioContext = class {
  currentTime = 0;
  resume() { return new Promise((done, failed) => waiting.push({ done, failed })); }
};
const { Player } = await import("./page/player.js");
const player = new Player(() => {});
const load = () => player.load([new Float32Array(32000)], [new Float32Array(32000)], 16000);
const turn = () => new Promise((done) => setImmediate(done));
const ready = async () => { waiting.splice(0).forEach(({ done }) => done()); await turn(); };
load();
"""


@pytest.fixture(scope="module")
def page(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The sources of the page as modules of Node.js."""
    folder = tmp_path_factory.mktemp("player")
    shutil.copytree(FOLDER / "page", folder / "page")
    shutil.copytree(FOLDER / "denoiser", folder / "denoiser", ignore=shutil.ignore_patterns("node_modules", "test"))
    (folder / "package.json").write_text('{"type": "module"}')
    return folder


@pytest.mark.parametrize(
    ("actions", "sources", "offset"),
    [
        ("player.play(); await ready();", 2, 0),
        ("player.play(); player.play(); await ready();", 2, 0),
        ("player.play(); player.pause(); await ready();", 0, 0),
        ("player.play(); player.stop(); await ready();", 0, 0),
        ("player.play(); load(); await ready();", 0, 0),
        ("player.play(); player.pause(); player.play(); await ready();", 2, 0),
        ("player.play(); await ready(); player.seek(1); await ready();", 2, 1),
        ("player.play(); player.seek(1); player.seek(1.5); await ready();", 2, 1.5),
        ("player.seek(1); await ready();", 0, 1),
        ("player.play().catch(() => {}); waiting.pop().failed(); await turn(); player.play(); await ready();", 2, 0),
    ],
)
def test_a_sound_plays_once_and_a_start_can_be_called_off(page: Path, actions: str, sources: int, offset: float):
    programs = bundle_module().node_and_npm()
    if programs is None:
        pytest.skip("no Node.js with npm: install it, or the extra dev")
    script = page / "script.js"
    end = "const { size } = sounding; console.log(JSON.stringify([size, player.offset, player.playing]));"
    stopped = "player.pause(); console.log(sounding.size);"
    script.write_text(STUBS + actions + end + stopped)
    run = subprocess.run([programs[0], str(script)], capture_output=True, text=True, timeout=120)
    assert run.returncode == 0, run.stderr
    state, left = run.stdout.splitlines()
    assert json.loads(state) == [sources, offset, sources > 0]
    assert left == "0"
