"""Measure the built demo in a headless Chromium: what it loads, how fast it computes, how late the live sound is.

    python docs/book/demo/measure.py --demo build/demo --json results/browser_demo.json

Needs a Chromium and the extra ``browser``. Times by the clock are taken on an idle machine only, and listed as skipped on a
busy one; the time for which the browser's processes were computing (Linux) holds for both.
"""

from __future__ import annotations

import argparse
import os
import shutil
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import soundfile
from bundle import CLIPS, ROOT, WEIGHTS, sizes

from dccrn_lib.results.records import save_result
from dccrn_lib.results.tables import table
from dccrn_lib.runtime.files import hash_files

NAMES = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable", "chrome")
CLOCK = "seconds of computing, by the clock, per second of audio"
LATE = "blocks that came too late and were passed through"
IDLE_LOAD = 0.5  # load average below which times by the clock mean something
LIVE_SECONDS = 6.0
PATIENCE = 300.0  # seconds


def computing_seconds(marker: str) -> float | None:
    """CPU seconds so far of the processes whose command line holds ``marker``; None where /proc does not tell."""
    if not Path("/proc/self/stat").exists():
        return None
    total = 0
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            if marker not in (folder / "cmdline").read_text(errors="replace"):
                continue
            fields = (folder / "stat").read_text().rsplit(")", 1)[1].split()
        except (FileNotFoundError, ProcessLookupError):  # it has ended
            continue
        total += int(fields[11]) + int(fields[12])
    return total / os.sysconf("SC_CLK_TCK")


def wait(page: Any, condition: str) -> None:
    """Poll, since the page forbids the eval that Playwright's own waiting needs."""
    end = time.monotonic() + PATIENCE
    while not page.evaluate(condition):
        if problem := page.inner_text("#problem"):
            raise SystemExit(f"error: the page says: {problem}")
        if time.monotonic() > end:
            raise SystemExit(f"error: {condition} did not come true within {PATIENCE:.0f} s")
        page.wait_for_timeout(50)


def row(measurement: str, value: float, unit: str, reference: float) -> dict[str, Any]:
    return {
        "measurement": measurement,
        "value": value,
        "unit": unit,
        "reference": reference,
        "ratio": value / reference,
    }


def recordings(page: Any, used: Callable[[], float | None]) -> list[dict[str, Any]]:
    """Two clips, opened by their buttons: real-time factors of the second; the first click also loads the network."""
    rows = []
    for index, name in enumerate(CLIPS[:2]):
        before = used()
        page.click(f"#clips button >> nth={index}")
        wait(page, f"dccrn.sound?.name === {name!r} && dccrn.sound.rtf > 0")
        after, seconds = used(), page.evaluate("dccrn.sound.noisy[0].length / dccrn.sound.sampleRate")
        if index and before is not None and after is not None:
            value = (after - before) / seconds
            rows.append(row(f"{name}: CPU seconds per second of audio, all of the browser", value, "s", 1.0))
        if index:
            rows.append(row(f"{name}: {CLOCK}", page.evaluate("dccrn.sound.rtf"), "s", 1.0))
    return rows


def live(page: Any, idle: bool) -> list[dict[str, Any]]:
    """The microphone for LIVE_SECONDS: delay, real-time factor, blocks that came too late."""
    if not idle:  # what is late is skipped; only the delays shall come out
        page.evaluate("dccrn.liveOptions = {backlogSeconds: 600}")
    page.click("#microphone")
    wait(page, f"dccrn.live?.take.seconds > {LIVE_SECONDS if idle else 1.0} && dccrn.live.take.rtf.length > 0")
    take = page.evaluate(
        "({rtf: dccrn.live.take.rtf, late: dccrn.live.take.late / dccrn.live.take.blocks, "
        "delay: dccrn.live.stream.delaySeconds, total: dccrn.live.stream.latencySeconds})"
    )
    page.click("#finish")
    wait(page, "dccrn.sound?.name === 'microphone'")
    network_ms = page.evaluate("dccrn.ready().then((d) => 1000 * d.latencySamples / d.sampleRate)")
    return [
        row("live: delay from microphone to output, beside the network's own", 1000 * take["delay"], "ms", network_ms),
        row("live: the same with the buffers that the browser tells of", 1000 * take["total"], "ms", network_ms),
        row(f"live: {CLOCK}", sum(take["rtf"]) / len(take["rtf"]), "s", 1.0),
        row(f"live: {LATE}", 100 * take["late"], "%", 100.0),
    ]


def measure(folder: Path, executable: str) -> dict[str, Any]:
    """Open the demo from disk and take all measurements; the record without its environment."""
    from playwright.sync_api import sync_playwright

    load = [round(os.getloadavg()[0], 2)]
    idle = load[0] < IDLE_LOAD
    size = sizes(folder)
    start = sum(n for name, n in size.items() if name != "engine.js")
    rows = [
        row("page before anything is chosen", start / 1e6, "MB", 15.0),
        row("network and ONNX Runtime, loaded once at the first use", size["engine.js"] / 1e6, "MB", 15.0),
        row("all files", sum(size.values()) / 1e6, "MB", 15.0),
    ]
    with tempfile.TemporaryDirectory(prefix="dccrn-measure-") as work, sync_playwright() as p:
        samples, rate = soundfile.read(ROOT / f"data/demo/noisy/{CLIPS[0]}.ogg")
        soundfile.write(Path(work) / "microphone.wav", samples, rate, subtype="PCM_16")
        flags = [
            "--no-sandbox",
            "--disable-gpu",
            "--use-fake-device-for-media-stream",
            "--use-fake-ui-for-media-stream",
        ]
        flags += [f"--use-file-for-fake-audio-capture={work}/microphone.wav", f"--user-agent=measure {work}"]
        browser = p.chromium.launch(executable_path=executable, headless=True, args=flags)
        page = browser.new_page(viewport={"width": 1280, "height": 900})
        page.set_default_timeout(1000 * PATIENCE)
        page.goto((folder / "index.html").as_uri())
        wait(page, "document.querySelectorAll('#clips button').length > 0")
        rows += recordings(page, lambda: computing_seconds(work))
        rows += live(page, idle)
        version = browser.version
        browser.close()
    files = [ROOT / f"data/demo/noisy/{name}.ogg" for name in CLIPS]
    config = {"weights": WEIGHTS, "browser": f"Chromium {version}, headless", "opened_from": "disk", "bytes": size}
    timed = [] if idle else [r for r in rows if r["measurement"].endswith((CLOCK, LATE))]
    return {
        "config": config,
        "seed": 0,
        "data_hash": hash_files(files),
        "rows": [r for r in rows if r not in timed],
        "skipped": [{"measurement": r["measurement"], "reason": f"load average {load[0]}: not idle"} for r in timed],
        "load_average": [*load, round(os.getloadavg()[0], 2)],
    }


def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--demo", type=Path, default=ROOT / "build/demo", help="built demo (default: build/demo)")
    parser.add_argument("--json", type=Path, help="result file to write; the table is printed in any case")
    a = parser.parse_args()
    executable = os.environ.get("DCCRN_BROWSER") or next(filter(None, map(shutil.which, NAMES)), None)
    if executable is None:
        raise SystemExit("error: no Chromium found: install it, or name one in DCCRN_BROWSER")
    record = measure(a.demo.resolve(), executable)
    print(table({"name": "browser_demo", **record}), end="")
    for item in record["skipped"]:
        print(f"skipped: {item['measurement']}: {item['reason']}")
    print(f"load average before and after: {record['load_average']} (an idle machine is near 0)")
    if a.json:
        print(save_result(a.json.stem, record, a.json.parent))
    return 0


if __name__ == "__main__":
    sys.exit(main())
