"""The command line: ``python -m dccrn_lib COMMAND``, or ``dccrn COMMAND`` where the package is installed.

:data:`COMMANDS` names every command. ``main.py`` imports the module of the one that was asked for and no other, runs it
and turns errors into one line and an exit code; ``docs/commands.md`` is written from the same table.
"""

from __future__ import annotations

#: Name -> (module:function that makes its parser, what it does in one line). The module is imported when it is called.
COMMANDS: dict[str, tuple[str, str]] = {
    "enhance": ("dccrn_lib.cli.enhance:enhance", "enhance audio files or folders"),
    "evaluate": (
        "dccrn_lib.cli.evaluate:evaluate",
        "score noisy, enhanced or model output against clean files paired by name",
    ),
    "export": ("dccrn_lib.cli.enhance:export", "write a model as ONNX"),
    "run-onnx": ("dccrn_lib.cli.enhance:run_onnx", "enhance a file with an exported model; needs no torch"),
    "run-notebooks": ("dccrn_lib.cli.notebooks:run_notebooks", "execute the notebooks with parameters, write a report"),
    "corpus synth": ("dccrn_lib.cli.corpus:synth", "generate speech, noise and rooms; needs no network"),
    "corpus scan": ("dccrn_lib.cli.corpus:scan", "list a folder of recordings in a manifest"),
    "corpus public": (
        "dccrn_lib.cli.corpus:public",
        "list LibriSpeech, VoiceBank, DEMAND, MUSAN, ESC-50 or DNS as its authors split it, in manifests",
    ),
    "corpus pairs": (
        "dccrn_lib.cli.corpus:pairs",
        "copy the test pairs of VoiceBank-DEMAND or DNS to noisy/ and clean/, for evaluate",
    ),
    "corpus pack": (
        "dccrn_lib.cli.corpus:pack",
        "write the audio of manifests into compact tar shards that training reads",
    ),
    "corpus unpack": ("dccrn_lib.cli.corpus:unpack", "write the members of packed manifests as files again"),
    "train": ("dccrn_lib.cli.train:train", "train or distil a model; also under torchrun"),
    "campaign": (
        "dccrn_lib.cli.campaign:campaign",
        "train teacher, DCCRN-E and all students side by side, within stated minutes",
    ),
    "experiment methods run": (
        "dccrn_lib.cli.experiment:methods_run",
        "train and score distillation methods x seeds; resumes where it stopped",
    ),
    "experiment methods publish": (
        "dccrn_lib.cli.experiment:methods_publish",
        "compare the finished methods seed by seed and write results/NAME.json",
    ),
    "experiment teaching run": (
        "dccrn_lib.cli.experiment:teaching_run",
        "train and score a miniature student alone and taught by the shipped teacher x seeds; resumes",
    ),
    "experiment teaching publish": (
        "dccrn_lib.cli.experiment:teaching_publish",
        "compare both students seed by seed and write results/NAME.json",
    ),
    "experiment teacher-strength run": (
        "dccrn_lib.cli.experiment:teacher_strength_run",
        "train a miniature student alone and under teachers of several strengths x seeds; resumes",
    ),
    "experiment teacher-strength publish": (
        "dccrn_lib.cli.experiment:teacher_strength_publish",
        "gain of the students over the lead of their teachers, in results/NAME.json",
    ),
    "experiment teaching-signal": (
        "dccrn_lib.cli.experiment:signal",
        "lead of a teacher and direction of its gradients for students of several ages, in results/NAME.json",
    ),
    "experiment training-data run": (
        "dccrn_lib.cli.experiment:training_data_run",
        "train and score mixtures of data x seeds; resumes where it stopped",
    ),
    "experiment training-data publish": (
        "dccrn_lib.cli.experiment:training_data_publish",
        "compare the finished mixtures of data and write results/data_mixtures.json",
    ),
    "experiment uformer-parts": (
        "dccrn_lib.cli.experiment:uformer_parts",
        "train Uformer without each of its parts and write results/uformer_ablation.json",
    ),
    "experiment shipped-weights": (
        "dccrn_lib.cli.experiment:shipped_weights",
        "score weights on a real test split and write the tables results/real_*.json",
    ),
    "experiment over-seeds": (
        "dccrn_lib.cli.experiment:over_seeds_publish",
        "compare two systems over the seeds they were trained with, in results/NAME.json",
    ),
    "experiment shared-sources": (
        "dccrn_lib.cli.experiment:shared_sources",
        "intervals for mixtures that share speakers, noises and seeds, in results/shared_sources.json",
    ),
    "experiment claim": (
        "dccrn_lib.cli.experiment:claim",
        "who is ahead of whom after how many hours, from results/shared_sources.json in results/claim.json",
    ),
    "experiment equal-hours": (
        "dccrn_lib.cli.experiment:equal_hours",
        "the course of finished campaigns side by side in results/NAME.json, and their best weights with cards",
    ),
    "experiment weight-growth": (
        "dccrn_lib.cli.experiment:weight_growth",
        "how large the matrices of weights have grown, and how much of it is chance, in results/weight_growth.json",
    ),
    "bench speed": ("dccrn_lib.cli.bench:speed", "measure speed and memory of the networks; also plain `bench`"),
    "bench stream": ("dccrn_lib.cli.bench:stream", "measure one hop of a live stream, and its floor on this machine"),
    "bench data": ("dccrn_lib.cli.bench_training:data", "do mixtures come as fast as a training step needs them?"),
    "bench train": (
        "dccrn_lib.cli.bench_training:train",
        "what a training step costs: audio per second, memory, floor, by system, batch and precision",
    ),
    "bench alternatives": (
        "dccrn_lib.cli.bench_training:alternatives",
        "what was tried to make training cheaper, each against what it replaces",
    ),
    "bench operations": (
        "dccrn_lib.cli.bench_training:operations",
        "where the time of a training step goes, by kind of operation and precision",
    ),
    "bench precision": ("dccrn_lib.cli.bench:precision", "what bf16, float16 and int8 change in every metric"),
    "bench int8": ("dccrn_lib.cli.bench:int8", "what float16 and int8 weights cost in quality, size and time"),
    "results": ("dccrn_lib.cli.documents:results", "write the tables of Markdown files anew from results/*.json"),
    "commands": ("dccrn_lib.cli.documents:commands", "print every command with its options as Markdown"),
}

#: Other names of a command.
ALIASES = {"bench": "bench speed"}
