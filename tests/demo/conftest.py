"""The built demo and a Chromium whose microphone is fed from a file, one each for all tests of this folder.

DCCRN_DEMO names a finished build to test; without it the fixture builds one. DCCRN_SCREENSHOTS names a folder to keep
pictures in.
"""

from __future__ import annotations

import functools
import http.server
import os
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import soundfile

from dccrn_lib.runtime.paths import project_root
from tests.chromium import chromium
from tests.demo.demo_page import SECONDS, Visit, bundle_module


@pytest.fixture(scope="session")
def microphone(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What the fake microphone hears, over and over: a noisy clip as WAV."""
    path = tmp_path_factory.mktemp("microphone") / "clip.wav"
    samples, rate = soundfile.read(project_root() / "data/demo/noisy/fan_5db_en.ogg")
    soundfile.write(path, samples, rate, subtype="PCM_16")
    return path


@pytest.fixture(scope="session")
def browser(microphone: Path) -> Iterator[Any]:
    """A headless Chromium with that microphone."""
    with chromium(f"--use-file-for-fake-audio-capture={microphone}") as program:
        yield program


@pytest.fixture(scope="session")
def demo(browser, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Folder of the built demo."""
    if named := os.environ.get("DCCRN_DEMO"):
        return Path(named).resolve()
    pytest.importorskip("onnx", reason="the extra export is not installed")
    build = bundle_module()
    if build.node_and_npm() is None:
        pytest.skip("no Node.js with npm: install it, or the extra dev")
    folder = tmp_path_factory.mktemp("demo") / "demo"
    build.build(folder)
    return folder


class _Quiet(http.server.SimpleHTTPRequestHandler):
    def log_message(self, format: str, *args: Any) -> None:  # not into the report of the tests
        pass


@pytest.fixture(scope="session")
def server(demo: Path) -> Iterator[str]:
    """Address of a plain web server for the demo."""
    handler = functools.partial(_Quiet, directory=str(demo))
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as running:
        threading.Thread(target=running.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{running.server_port}/"
        running.shutdown()


@pytest.fixture
def visit(browser, demo: Path, request: pytest.FixtureRequest) -> Iterator[Any]:
    """``visit("file")`` or ``visit("http")``, with options of the context: a page of the demo, ready to use.

    Afterwards no page may have asked anything outside the machine, nor have raised an error.
    """
    visits = []

    def start(form: str = "file", **options: Any) -> Visit:
        context = browser.new_context(**options)
        v = Visit(context.new_page())
        v.page.set_default_timeout(1000 * SECONDS)
        visits.append((v, context))
        address = f"{demo.as_uri()}/" if form == "file" else request.getfixturevalue("server")

        def guard(route: Any) -> None:
            if route.request.url.startswith((address, "blob:", "data:")):
                route.continue_()
            else:
                v.outside.append(route.request.url)
                route.abort()

        context.route("**/*", guard)
        v.page.on("pageerror", lambda error: v.errors.append(str(error)))
        v.page.on("console", lambda m: v.errors.append(m.text) if m.type == "error" else None)
        v.page.goto(f"{address}index.html")
        v.until("document.querySelectorAll('#clips button').length > 0")
        return v

    yield start
    for v, context in visits:
        context.close()
        assert v.outside == []
        assert v.errors == []
