"""Make the demo clips again: python data/demo/make.py

Test voices and test noises of the one-hour generated corpus, 4 s each at a stated SNR, as Ogg/Vorbis.
"""

import json
from pathlib import Path

import soundfile

from dccrn_lib.corpus.manifest import read_manifest
from dccrn_lib.corpus.mixing import SAMPLE_RATE, MixConfig, MixtureDataset
from dccrn_lib.corpus.synthesis.corpus import generated_corpus
from dccrn_lib.runtime.files import atomic_path

HERE = Path(__file__).parent
CLIPS = (
    ("fan", 5.0, "en"),
    ("babble", 5.0, "en"),
    ("engine", 0.0, "fr"),
    ("clatter", 0.0, "de"),
)  # label, dB, language


def main() -> None:
    """Write noisy/<name>.ogg, clean/<name>.ogg and clips.json beside this file."""
    corpus = generated_corpus(1.0)
    table = []
    for seed, (label, snr_db, language) in enumerate(CLIPS):
        speech = [e for e in read_manifest(corpus.speech, "test") if e.language == language]
        noise = [e for e in read_manifest(corpus.noise, "test") if e.label == label]
        config = MixConfig(
            snr_db=(snr_db, snr_db), level_dbfs=(-23, -23), rir_probability=0, second_noise_probability=0
        )
        item = MixtureDataset(speech, noise, config=config, seed=seed + 1)[0]
        name = f"{label}_{snr_db:.0f}db_{language}"
        for side in ("noisy", "clean"):
            with atomic_path(HERE / side / f"{name}.ogg") as temporary:
                soundfile.write(temporary, item[side].numpy(), SAMPLE_RATE, format="OGG", subtype="VORBIS")
        table.append({"name": name, "noise": label, "snr_db": snr_db, "language": language, "speaker": item["speaker"]})
    (HERE / "clips.json").write_text(json.dumps(table, indent=2) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
