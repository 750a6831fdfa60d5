"""A page of the demo as the tests see it, and the script that builds the demo."""

from __future__ import annotations

import base64
import importlib.util
import time
from dataclasses import dataclass, field
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np

from dccrn_lib.runtime.paths import project_root

FOLDER = project_root() / "docs/book/demo"
SECONDS = 240.0  # a machine may be busy with other things
_BASE64 = """(samples) => {
  const bytes = new Uint8Array(samples.buffer, samples.byteOffset, samples.byteLength);
  let text = "";
  for (let i = 0; i < bytes.length; i += 8192) text += String.fromCharCode(...bytes.subarray(i, i + 8192));
  return btoa(text);
}"""


def bundle_module() -> ModuleType:
    """docs/book/demo/bundle.py."""
    spec = importlib.util.spec_from_file_location("demo_bundle", FOLDER / "bundle.py")
    assert spec and spec.loader
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@dataclass
class Visit:
    """A page of the demo in its own context: what it asked for outside the machine, and what went wrong in it."""

    page: Any
    outside: list[str] = field(default_factory=list)
    errors: list[str] = field(default_factory=list)

    def until(self, condition: str, seconds: float = SECONDS) -> None:
        """Wait until a JavaScript expression holds. The page forbids eval, so Playwright's own waiting cannot."""
        end = time.monotonic() + seconds
        while not self.page.evaluate(condition):
            problem = self.page.inner_text("#problem")
            assert not problem or "problem" in condition, problem
            assert time.monotonic() < end, (
                f"{condition} does not hold after {seconds} s: {self.page.inner_text('#status')}"
            )
            self.page.wait_for_timeout(50)

    def samples(self, expression: str) -> np.ndarray:
        """A Float32Array of the page."""
        return np.frombuffer(base64.b64decode(self.page.evaluate(f"({_BASE64})({expression})")), np.float32)

    def channels(self, which: str) -> np.ndarray:
        """dccrn.sound.noisy or .enhanced: (channel, sample)."""
        count = self.page.evaluate(f"dccrn.sound.{which}.length")
        return np.stack([self.samples(f"dccrn.sound.{which}[{c}]") for c in range(count)])

    def choose(self, path: Path) -> None:
        """Choose a file and wait for its result."""
        self.page.set_input_files("#file", path)
        self.until(f"dccrn.sound?.name === {path.name!r} && dccrn.sound.rtf > 0")
