"""What int8 weights cost: ``python benchmarks/int8.py NOISY.wav [--model NAME_OR_PATH]``, a 16 kHz recording."""

from __future__ import annotations

import argparse

from dccrn_lib.audio.files import read_audio
from dccrn_lib.enhancement.onnx_export import precision_loss
from dccrn_lib.networks.weights import load_model


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("noisy", help="audio file")
    parser.add_argument("--model", default="distil_dccrn", metavar="NAME_OR_PATH")
    a = parser.parse_args()
    samples, _ = read_audio(a.noisy, sample_rate=16000)
    loss = precision_loss(load_model(a.model), samples[0])
    print(
        f"int8 against float32: SNR {loss['snr_db']:.1f} dB, size x{loss['size_ratio']:.2f}, "
        f"time x{loss['time_ratio']:.2f}"
    )


if __name__ == "__main__":
    main()
