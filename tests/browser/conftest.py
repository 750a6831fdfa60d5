"""One JupyterLab server and one headless browser for all tests of this folder.

The browser is that of tests/chromium.py. DCCRN_SCREENSHOTS names a folder to keep the pictures in.
"""

from __future__ import annotations

import json
import os
import re
import secrets
import signal
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import pytest

from dccrn_lib.runtime.paths import project_root
from tests.chromium import chromium

# a pop-up about news and an extension list would ask the network
QUIET_LAB = {"disabledExtensions": {"@jupyterlab/apputils-extension:announcements": True}}


@pytest.fixture(scope="session")
def browser() -> Iterator:
    """A headless Chromium with a fresh profile."""
    with chromium() as program:
        yield program


@pytest.fixture(scope="session")
def lab(browser, tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[str, Path]]:
    """(address with token, folder) of a JupyterLab on copies of the lessons; it and its kernels stop at the end."""
    pytest.importorskip("jupyterlab", reason="the extra notebooks is not installed")
    home = tmp_path_factory.mktemp("lab")
    folder, config = home / "notebooks", home / "config"
    copy_lessons(project_root() / "notebooks", folder, home / "run")
    (config / "labconfig").mkdir(parents=True)
    (config / "labconfig" / "page_config.json").write_text(json.dumps(QUIET_LAB), encoding="utf-8")
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    token = secrets.token_hex(16)
    environment = os.environ | {
        "JUPYTER_CONFIG_DIR": str(config),
        "JUPYTER_DATA_DIR": str(home / "data"),
        "JUPYTER_RUNTIME_DIR": str(home / "runtime"),
        "IPYTHONDIR": str(home / "ipython"),
        "JUPYTERLAB_SETTINGS_DIR": str(home / "settings"),
        "JUPYTERLAB_WORKSPACES_DIR": str(home / "workspaces"),
        "PYTHONPATH": os.pathsep.join(filter(None, [str(project_root()), os.environ.get("PYTHONPATH")])),
    }
    command = [
        sys.executable,
        "-m",
        "jupyterlab",
        "--no-browser",
        "--allow-root",
        "--ip=127.0.0.1",
        f"--port={port}",
        "--ServerApp.port_retries=0",
        f"--IdentityProvider.token={token}",
        f"--ServerApp.root_dir={folder}",
        "--ServerApp.terminals_enabled=False",
        "--LabApp.expose_app_in_browser=True",
        "--LabApp.extension_manager=readonly",
    ]
    url = f"http://127.0.0.1:{port}"
    with (home / "lab.log").open("wb") as log:
        server = subprocess.Popen(command, cwd=home, env=environment, stdout=log, stderr=log, start_new_session=True)
        try:
            _wait_until_up(f"{url}/api/status?token={token}", server, home / "lab.log")
            yield f"{url}/lab?token={token}", folder
        finally:
            _stop(server)


def copy_lessons(source: Path, folder: Path, run: Path) -> None:
    """Copy the committed lessons, with the profile smoke and ``run`` as folder of their run."""
    folder.mkdir()
    for path in sorted(source.glob("0*.ipynb")):
        text = path.read_text(encoding="utf-8")
        text = text.replace('profile: str = \\"quick\\"', 'profile: str = \\"smoke\\"')
        text = re.sub(r'out: str = \\"\\"', lambda _: f'out: str = \\"{run.as_posix()}\\"', text)
        (folder / path.name).write_text(text, encoding="utf-8")


def _wait_until_up(url: str, server: subprocess.Popen, log: Path, seconds: float = 180.0) -> None:
    end = time.monotonic() + seconds
    while time.monotonic() < end and server.poll() is None:
        try:
            with urllib.request.urlopen(url, timeout=5):
                return
        except (urllib.error.URLError, ConnectionError, TimeoutError):
            time.sleep(0.2)
    raise RuntimeError(f"JupyterLab did not answer within {seconds:.0f} s:\n{log.read_text(errors='replace')[-2000:]}")


def _stop(server: subprocess.Popen) -> None:
    """Ask the server to stop, which shuts its kernels down too; kill its process group if it does not."""
    server.send_signal(signal.SIGTERM)
    try:
        server.wait(timeout=30)
    except subprocess.TimeoutExpired:
        os.killpg(server.pid, signal.SIGKILL)
        server.wait()
