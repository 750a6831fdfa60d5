"""The commands that make, list and pack corpora."""

from __future__ import annotations

import argparse
from typing import Any

from dccrn_lib.cli.checks import count, file, folder, fraction, named, positive, seed
from dccrn_lib.cli.parser import Parser
from dccrn_lib.runtime.errors import ConfigError


def synth(**options: Any) -> Parser:
    """The parser of ``corpus synth``."""
    p = Parser(**options)
    p.add_argument("--out", type=folder, required=True, metavar="DIR", help="folder to write")
    p.add_argument("--hours", type=positive, default=1.0, metavar="H", help="hours of speech")
    p.add_argument("--seed", type=seed, default=0, metavar="S", help="the corpus is a function of hours and seed")
    p.add_argument("--workers", type=count, metavar="N", help="processes; all cores when not given")
    p.set_defaults(run=_synth)
    return p


def _synth(a: argparse.Namespace) -> int:
    from dccrn_lib.corpus.synthesis.corpus import synthesise_corpus

    paths = synthesise_corpus(a.out, hours=a.hours, seed=a.seed, workers=a.workers, progress=not a.quiet)
    for manifest in (paths.speech, paths.noise, paths.rir):
        print(manifest)
    return 0


def scan(**options: Any) -> Parser:
    """The parser of ``corpus scan``."""
    p = Parser(**options)
    p.add_argument("folder", type=named, metavar="DIR", help="folder of recordings, searched with its subfolders")
    p.add_argument("--kind", required=True, choices=["speech", "noise", "rir"], help="what the recordings are")
    p.add_argument("--out", type=file, required=True, metavar="FILE", help="manifest to write (.jsonl)")
    p.add_argument("--split", choices=["train", "valid", "test"], help="put all files in one split")
    p.add_argument(
        "--valid-fraction", type=fraction, default=0.05, metavar="F", help="fraction of the speakers for valid"
    )
    p.add_argument(
        "--test-fraction", type=fraction, default=0.05, metavar="F", help="fraction of the speakers for test"
    )
    p.add_argument("--licence", default="unknown", metavar="TEXT", help="licence of the recordings")
    p.add_argument("--corpus", metavar="NAME", help="name of the collection; the folder's name when not given")
    p.add_argument(
        "--group-level",
        type=count,
        metavar="N",
        help="folder level below DIR that names the speaker or recording; guessed when not given",
    )
    p.add_argument("--speaker-per-file", action="store_true", help="every file of speech is another speaker")
    p.add_argument("--workers", type=count, metavar="N", help="parallel readers; four for each core when not given")
    p.set_defaults(run=_scan)
    return p


def _scan(a: argparse.Namespace) -> int:
    from dccrn_lib.corpus.manifest import scan_folder

    report = scan_folder(
        a.folder,
        a.kind,
        a.out,
        split=a.split,
        valid_fraction=a.valid_fraction,
        test_fraction=a.test_fraction,
        licence=a.licence,
        corpus=a.corpus,
        group_level=a.group_level,
        workers=a.workers,
        progress=not a.quiet,
        speaker_per_file=a.speaker_per_file,
    )
    print(report)
    return 0


#: As ``dccrn_lib.corpus.preparation`` has them, which imports more than help needs.
COLLECTIONS = ("librispeech", "voicebank", "demand", "musan", "esc50", "dns")
PAIRED = ("voicebank", "dns")


def public(**options: Any) -> Parser:
    """The parser of ``corpus public``."""
    p = Parser(**options)
    p.add_argument("name", choices=COLLECTIONS, metavar="NAME", help=f"{', '.join(COLLECTIONS)}")
    p.add_argument("folder", type=named, metavar="DIR", help="where the collection was unpacked to; nothing is fetched")
    p.add_argument(
        "--out", type=folder, required=True, metavar="DIR", help="folder for speech.jsonl, noise.jsonl or rir.jsonl"
    )
    p.add_argument("--no-music", action="store_true", help="of musan: its noise alone")
    p.set_defaults(run=_public)
    return p


def _public(a: argparse.Namespace) -> int:
    if a.no_music and a.name != "musan":
        raise ConfigError(f"--no-music is for musan; {a.name} has no music: leave it out")
    from dccrn_lib.corpus.preparation import prepare

    for report in prepare(a.name, a.folder, a.out, not a.no_music, not a.quiet):
        print(report)
    return 0


def pairs(**options: Any) -> Parser:
    """The parser of ``corpus pairs``."""
    p = Parser(**options)
    p.add_argument("name", choices=PAIRED, metavar="NAME", help=f"{' or '.join(PAIRED)}")
    p.add_argument(
        "folder",
        type=named,
        metavar="DIR",
        help="where VoiceBank-DEMAND was unpacked to, or a synthetic test set of the DNS Challenge",
    )
    p.add_argument("--out", type=folder, required=True, metavar="DIR", help="folder for noisy/ and clean/")
    p.set_defaults(run=_pairs)
    return p


def _pairs(a: argparse.Namespace) -> int:
    from dccrn_lib.corpus.preparation import copy_test_pairs

    out, count = copy_test_pairs(a.name, a.folder, a.out)
    print(f"{out}: {count} pairs in noisy and clean")
    return 0


def pack(**options: Any) -> Parser:
    """The parser of ``corpus pack``."""
    p = Parser(**options)
    p.add_argument(
        "manifests", nargs="+", metavar="FILE", help="manifests of speech, noise and room responses (.jsonl)"
    )
    p.add_argument("--out", type=folder, required=True, metavar="DIR", help="new folder for shards and manifests")
    p.add_argument(
        "--codec",
        choices=["opus", "vorbis", "flac"],
        default="opus",
        help="of speech and noise; room responses are FLAC",
    )
    p.add_argument("--bitrate", type=positive, default=32.0, metavar="KBIT", help="of Opus, in kbit/s, 6 to 256")
    p.add_argument("--shard-mb", type=positive, default=256.0, metavar="N", help="size of a shard in MiB")
    p.add_argument("--workers", type=count, metavar="N", help="processes that encode; all cores when not given")
    p.set_defaults(run=_pack)
    return p


def _pack(a: argparse.Namespace) -> int:
    from dccrn_lib.corpus.packing import pack_corpus

    report = pack_corpus(a.manifests, a.out, a.codec, a.bitrate, a.shard_mb, workers=a.workers, progress=not a.quiet)
    for manifest in report.manifests:
        print(manifest)
    print(report)
    return 0


def unpack(**options: Any) -> Parser:
    """The parser of ``corpus unpack``."""
    p = Parser(**options)
    p.add_argument("manifests", nargs="+", metavar="FILE", help="packed manifests (.jsonl)")
    p.add_argument("--out", type=folder, required=True, metavar="DIR", help="new folder for files and manifests")
    p.set_defaults(run=_unpack)
    return p


def _unpack(a: argparse.Namespace) -> int:
    from dccrn_lib.corpus.packing import unpack_corpus

    report = unpack_corpus(a.manifests, a.out, progress=not a.quiet)
    for manifest in report.manifests:
        print(manifest)
    print(report)
    return 0
