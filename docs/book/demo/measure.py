"""Measure the built demo in a headless Chromium: what it loads, how fast it computes, how late the live sound is.

    python docs/book/demo/measure.py --demo build/demo --json results/browser_demo.json

Needs a Chromium and the extra ``browser``. Times are taken on an idle machine only, and listed as skipped on a busy one.
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
TIMED = ("computing time of a clip", "computing time of live sound", "what comes too late of live sound")
IDLE_LOAD = 0.5  # load average below which times mean something
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
            rows.append(
                row(
                    f"{name}: seconds of computing, by the clock, per second of audio",
                    page.evaluate("dccrn.sound.rtf"),
                    "s",
                    1.0,
                )
            )
    return rows


def live(page: Any, timed: bool) -> list[dict[str, Any]]:
    """The microphone: its delay and, where ``timed``, after LIVE_SECONDS the real-time factor and what came too late."""
    page.click("#microphone")
    wait(page, "Boolean(dccrn.live)")
    own, total, network = page.evaluate(
        "dccrn.ready().then((d) => [dccrn.live.stream.delaySeconds, dccrn.live.stream.latencySeconds, "
        "d.latencySamples / d.sampleRate].map((s) => 1000 * s))"
    )
    rows = [
        row("live: delay from microphone to output, beside the network's own", own, "ms", network),
        row("live: the same with the buffers that the browser tells of", total, "ms", network),
    ]
    if timed:
        wait(page, f"dccrn.live.take.seconds > {LIVE_SECONDS} && dccrn.live.take.rtf.length > 0")
        rtf, late = page.evaluate("[dccrn.live.take.rtf, dccrn.live.take.late / dccrn.live.take.blocks]")
        rows.append(row("live: seconds of computing, by the clock, per second of audio", sum(rtf) / len(rtf), "s", 1.0))
        rows.append(row("live: blocks that came too late and were passed through", 100 * late, "%", 100.0))
    return rows


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
        if idle:
            rows += recordings(page, lambda: computing_seconds(work))
        rows += live(page, idle)
        version = browser.version
        browser.close()
    files = [ROOT / f"data/demo/noisy/{name}.ogg" for name in CLIPS]
    config = {"weights": WEIGHTS, "browser": f"Chromium {version}, headless", "opened_from": "disk", "bytes": size}
    reason = f"load average {load[0]} before: not idle"
    skipped = [] if idle else [{"measurement": name, "reason": reason} for name in TIMED]
    return {
        "config": config,
        "seed": 0,
        "data_hash": hash_files(files),
        "rows": rows,
        "skipped": skipped,
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
