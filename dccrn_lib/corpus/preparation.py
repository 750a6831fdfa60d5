"""The public collections by name: manifests for training, and the published test pairs for ``evaluate``."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from pathlib import Path

from dccrn_lib.corpus import public_corpora
from dccrn_lib.corpus.manifest import ScanReport
from dccrn_lib.corpus.synthesis.corpus import CorpusPaths
from dccrn_lib.runtime.errors import ConfigError, nearest_name
from dccrn_lib.runtime.paths import PathLike

#: Name -> kind of its recordings and the function that writes one manifest of them.
_SINGLE: dict[str, tuple[str, Callable[..., ScanReport]]] = {
    "librispeech": ("speech", public_corpora.librispeech),
    "voicebank": ("speech", public_corpora.voicebank),
    "demand": ("noise", public_corpora.demand),
    "musan": ("noise", public_corpora.musan),
    "esc50": ("noise", public_corpora.esc50),
}
#: Collections that :func:`prepare` knows.
COLLECTIONS = (*_SINGLE, "dns")
#: Collections with a published test set of pairs.
_PAIRS = {"voicebank": public_corpora.voicebank_test_pairs, "dns": public_corpora.dns_test_pairs}
PAIRED = tuple(_PAIRS)


def prepare(name: str, root: PathLike, out: PathLike, music: bool = True, progress: bool = True) -> list[ScanReport]:
    """Write the manifests of a collection: speech.jsonl, noise.jsonl or rir.jsonl, each where it has such recordings.

    Args:
        name: one of :data:`COLLECTIONS`.
        root: the folder it was unpacked to.
        out: folder to write; made if need be.
        music: whether the music of MUSAN counts as noise; other collections have none.
        progress: show a bar.

    Raises:
        ConfigError: no such collection.
        ManifestError: a folder without the collection's layout, or without a file that can be used.

    Returns:
        A report for each manifest.
    """
    _require(name, COLLECTIONS)
    if name == "dns":
        return public_corpora.dns_reports(root, out, progress=progress)
    kind, recipe = _SINGLE[name]
    if name == "musan":
        recipe = partial(recipe, music=music)
    return [recipe(root, getattr(CorpusPaths.of(out), kind), progress=progress)]


def copy_test_pairs(name: str, root: PathLike, out: PathLike) -> tuple[Path, int]:
    """Copy the published test set of a collection to out/noisy and out/clean, the files of a pair under one name.

    Args:
        name: one of :data:`PAIRED`.
        root: of VoiceBank-DEMAND, the folder it was unpacked to; of the DNS Challenge, one of its synthetic test sets.
        out: folder to write; made if need be.

    Raises:
        ConfigError: no such collection.
        ManifestError: no pairs, or a noisy file without its clean one.

    Returns:
        The folder, and the number of pairs.
    """
    _require(name, PAIRED)
    pairs = _PAIRS[name](root)
    return public_corpora.copy_pairs(pairs, out), len(pairs)


def _require(name: str, known: tuple[str, ...]) -> None:
    if name not in known:
        raise ConfigError(f"no public collection {name!r}; {nearest_name(name, list(known))}")
