"""A lesson open in JupyterLab in a browser: run its cells, look at its widgets."""

from __future__ import annotations

import base64
import re
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import nbformat
from playwright.sync_api import Error as PlaywrightError
from playwright.sync_api import TimeoutError as PlaywrightTimeout

from tests.browser.slices import needed_cells

_OPEN = """
async (path) => {
  const panel = await window.jupyterapp.commands.execute('docmanager:open', {path, factory: 'Notebook'});
  await panel.context.ready;
  await panel.sessionContext.ready;
  window.jupyterapp.shell.activateById(panel.id);
}
"""
_RUN = """
async ({path, index}) => {
  const app = window.jupyterapp;
  const panel = await app.commands.execute('docmanager:open', {path, factory: 'Notebook'});
  panel.content.deselectAll();
  panel.content.activeCellIndex = index;
  await app.commands.execute('notebook:run-cell');
  const cell = panel.content.widgets[index];
  cell.node.dataset.tested = path + ':' + index;
  const error = cell.model.sharedModel.getOutputs().find((o) => o.output_type === 'error');
  return error ? error.ename + ': ' + error.evalue : (cell.model.executionCount === null ? 'did not run' : '');
}
"""
_BYTES = """
async (image) => {
  const data = new Uint8Array(await (await fetch(image.src)).arrayBuffer());
  let text = '';
  for (let i = 0; i < data.length; i += 8192) text += String.fromCharCode(...data.subarray(i, i + 8192));
  return btoa(text);
}
"""
_SOUND = """
async (audio) => {
  const data = await (await fetch(audio.src)).arrayBuffer();
  const sound = await new OfflineAudioContext(1, 1, 16000).decodeAudioData(data);
  const samples = sound.getChannelData(0);
  const power = (from, to) => samples.slice(from, to).reduce((sum, x) => sum + x * x, 0) / (to - from);
  const parts = [0, 1, 2, 3, 4].map((k) => Math.floor(k * samples.length / 4));
  return [sound.duration, ...[0, 1, 2, 3].map((k) => power(parts[k], parts[k + 1]))];
}
"""


class Lesson:
    """One committed notebook, opened in JupyterLab.

    Args:
        page: of Playwright, on a JupyterLab that shows ``window.jupyterapp``.
        notebook: the file, in JupyterLab's folder.
        screenshots: folder for pictures.
    """

    def __init__(self, page, notebook: Path, screenshots: Path) -> None:
        self.page, self.path, self.screenshots = page, notebook.name, screenshots
        self.notebook = nbformat.read(notebook, as_version=4)
        self.done: set[int] = set()
        page.evaluate(_OPEN, self.path)

    def show(self, marker: str, empty: bool = False, also: Sequence[str] = ()) -> Widget:
        """Run the cells that the widget's cell needs, then that cell, and return its widget.

        Args:
            marker: text that only the widget's cell holds.
            empty: it has neither picture nor sound before it is used.
            also: see ``needed_cells``.
        """
        cells = needed_cells(self.notebook, marker, also)
        for index in cells:
            if index in self.done and index != cells[-1]:
                continue
            error = self.page.evaluate(_RUN, {"path": self.path, "index": index})
            assert not error, f"{self.path}, cell {index}: {error}"
            self.done.add(index)
        box = self.page.locator(f'[data-tested="{self.path}:{cells[-1]}"] .jp-OutputArea-output .jupyter-widgets').first
        try:
            box.wait_for()
        except PlaywrightTimeout:
            self.page.screenshot(path=self.screenshots / "no_widget.png")
            raise
        box.scroll_into_view_if_needed()
        widget = Widget(self.page, box, self.screenshots)
        widget.until(lambda now: now.text and (empty or now.pictures or now.sounds))
        return widget


@dataclass(frozen=True)
class Seen:
    """What a widget shows.

    Args:
        text: its words.
        pictures: the bytes of each.
        sounds: of each player, as the browser decodes it, length in seconds and power in each quarter. (The bytes of
            the same sound differ each time: an Ogg stream has a random serial number.)
    """

    text: str
    pictures: tuple[bytes, ...]
    sounds: tuple[tuple[float, ...], ...]

    def number(self, pattern: str) -> float:
        """The number that the pattern's group finds in the words."""
        found = re.search(pattern, self.text)
        assert found, f"{pattern!r} is not in {self.text!r}"
        return float(found[1].replace("−", "-"))


class Widget:
    """A widget on the page."""

    def __init__(self, page, box, screenshots: Path) -> None:
        self.page, self.box, self.screenshots = page, box, screenshots

    def seen(self) -> Seen:
        """What it shows now; read again where a picture or player was exchanged meanwhile."""
        for left in reversed(range(10)):
            try:
                images, players = self.box.locator("img").all(), self.box.locator("audio").all()
                pictures = tuple(base64.b64decode(image.evaluate(_BYTES, timeout=5000)) for image in images)
                sounds = tuple(tuple(player.evaluate(_SOUND, timeout=5000)) for player in players)
                return Seen(self.box.inner_text(), pictures, sounds)
            except PlaywrightError:
                if not left:
                    raise
                self.page.wait_for_timeout(100)

    def until(self, holds: Callable[[Seen], object], seconds: float = 60.0) -> Seen:
        """What it shows as soon as ``holds`` is true of it."""
        end = time.monotonic() + seconds
        while True:
            now = self.seen()
            if holds(now):
                return now
            assert time.monotonic() < end, f"still shows {now.text!r} after {seconds:.0f} s"
            self.page.wait_for_timeout(100)

    def _slider(self, label: str):
        return self.box.locator(".widget-slider, .widget-hslider").filter(
            has=self.page.locator(".widget-label", has_text=re.compile(f"^{re.escape(label)}$"))
        )

    def press(self, label: str, key: str, times: int = 1) -> str:
        """Focus the slider with this label, press a key some times, and return the slider's readout."""
        slider = self._slider(label)
        slider.locator(".noUi-handle").focus()
        for _ in range(times):
            self.page.keyboard.press(key)
        return slider.locator(".widget-readout").inner_text().strip().replace("−", "-")

    def choose(self, label: str, option: str) -> None:
        """Choose an option of the dropdown with this label."""
        dropdown = self.box.locator(".widget-dropdown").filter(
            has=self.page.locator(".widget-label", has_text=re.compile(f"^{re.escape(label)}$"))
        )
        dropdown.locator("select").select_option(label=option)

    def drag(self, label: str, handle: int, key: str, times: int = 1) -> str:
        """Move one handle (0 = low, 1 = high) of the range slider with this label, and return the slider's readout."""
        slider = self._slider(label)
        slider.locator(".noUi-handle").nth(handle).focus()
        for _ in range(times):
            self.page.keyboard.press(key)
        return slider.locator(".widget-readout").inner_text().strip().replace("−", "-")

    def upload(self, title: str, file: Path) -> None:
        """Choose a file in the dialogue that the button with this title opens."""
        with self.page.expect_file_chooser() as dialogue:
            self.click(title)
        dialogue.value.set_files(file)

    def click(self, title: str) -> None:
        """Click the button with this title."""
        self.box.get_by_role("button", name=title).click()

    def picture(self, name: str) -> None:
        """Save a screenshot of the widget."""
        self.box.screenshot(path=self.screenshots / f"{name}.png")
