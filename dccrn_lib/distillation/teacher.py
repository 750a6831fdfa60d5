"""The teacher of a run: run live in every step, or read from disk where the same mixtures come again and again.

:class:`CachedTeacher` keeps what a student needs of each mixture in a file of its own: the output, and of each layer

    A'(f, t) = sqrt( mean over chan of A(f, t)^2 ),

a feature of one channel with the same attention map as the teacher's. Methods that compare attention maps or outputs
cannot tell it from the live one; methods that compare channels need the live one.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from pathlib import Path

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save
from torch import Tensor, nn

from dccrn_lib.distillation.attention import channel_attention
from dccrn_lib.distillation.freezing import freeze
from dccrn_lib.distillation.taps import FeatureTap
from dccrn_lib.runtime.digests import state_digest
from dccrn_lib.runtime.files import hash_files, write_bytes
from dccrn_lib.runtime.paths import joined_paths

_HEARD = 64  # one sample in so many tells a mixture from another one of its name
_ROUNDING = 1e-3  # of the peak: workers and device render the same mixture up to rounding


class Teacher:
    """A frozen network that shows its output and, if asked, the features of its layers.

    Args:
        network: the teacher; it is frozen.
        tapped: whether to record features.
    """

    def __init__(self, network: nn.Module, tapped: bool) -> None:
        self.network = freeze(network)
        self.tap = FeatureTap(network) if tapped else None

    def __call__(self, noisy: Tensor, ids: Sequence[str]) -> tuple[Tensor, dict[str, Tensor] | None]:
        """Output (batch, sample) and features of a batch of mixtures (batch, sample) with those names."""
        with torch.no_grad():
            return self.network(noisy), dict(self.tap.features) if self.tap else None

    def close(self) -> None:
        """Remove the hooks."""
        if self.tap:
            self.tap.close()


class CachedTeacher(Teacher):
    """The same from ``<folder>/<key>/<mixture>.safetensors``; a mixture that is not there yet is computed and kept.

    Args:
        network, tapped: as for :class:`Teacher`.
        folder: holds the caches; one folder for each key.
        key: all that decides what a mixture's name stands for and what the teacher makes of it: seed, mixing,
            manifests, precision. The teacher's config and weights are added.

    A mixture of 4 s takes 0.26 MB for the output, and 1.2 MB for the 12 layers of a Uformer, in float32. A file that is
    damaged is computed anew, and so is the answer to another mixture of the same name: recordings may change while their
    manifests do not.

    Raises:
        OSError: of the call, when an answer cannot be written; the message names its file.
    """

    def __init__(self, network: nn.Module, tapped: bool, folder: str | Path, key: Mapping) -> None:
        super().__init__(network, tapped)
        decides = json.dumps(
            [key, tapped, repr(getattr(network, "config", None)), state_digest(network)], sort_keys=True
        )
        self.folder = Path(folder) / hashlib.sha256(decides.encode()).hexdigest()[:16]

    def __call__(self, noisy: Tensor, ids: Sequence[str]) -> tuple[Tensor, dict[str, Tensor] | None]:
        """As of :class:`Teacher`; a feature is (batch, 1, freq, frame)."""
        files = [self.folder / f"{name}.safetensors" for name in ids]
        items = self._items(files, noisy)
        if items is None:
            self._keep(files, noisy, *super().__call__(noisy, ids))
            items = [load_file(file, device=str(noisy.device)) for file in files]
        batch = {name: torch.stack([item[name] for item in items]) for name in items[0] if name != "heard"}
        return batch.pop("output"), batch if self.tap else None

    def _items(self, files: Sequence[Path], noisy: Tensor) -> list[dict[str, Tensor]] | None:
        """What the cache has of a batch; None unless it has all of it, whole."""
        if not all(file.is_file() for file in files):
            return None
        try:
            items = [load_file(file, device=str(noisy.device)) for file in files]
        except SafetensorError:
            return None
        whole = all("output" in item and item["output"].shape == noisy.shape[1:] for item in items)
        whole = whole and all(_is_of(item.get("heard"), x) for item, x in zip(items, noisy, strict=True))
        alike = len({frozenset((name, part.shape) for name, part in item.items()) for item in items}) == 1
        return items if whole and alike and (len(items[0]) > 2) == (self.tap is not None) else None

    def _keep(self, files: Sequence[Path], noisy: Tensor, output: Tensor, features: dict[str, Tensor] | None) -> None:
        parts = {name: channel_attention(f).sqrt()[:, None] for name, f in (features or {}).items()}
        parts |= {"output": output.float(), "heard": noisy[:, ::_HEARD].float()}
        for i, file in enumerate(files):  # not by safetensors itself, whose errors say neither errno nor file
            write_bytes(file, save({name: part[i].cpu().contiguous() for name, part in parts.items()}))


def _is_of(heard: Tensor | None, noisy: Tensor) -> bool:
    """Whether an answer was given to this mixture (sample,), by what was kept of the one that it was given to."""
    wanted = noisy[::_HEARD].float()
    if heard is None or heard.shape != wanted.shape:
        return False
    return bool((heard - wanted).abs().max() <= _ROUNDING * noisy.abs().max())


def file_digest(manifests: str) -> str:
    """Digest of the contents of manifests joined by commas ("" for none)."""
    return hash_files(joined_paths(manifests))
