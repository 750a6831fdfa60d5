"""Sound in, sound out, and its spectrum."""

from __future__ import annotations

from dccrn_lib.runtime.doors import door

# name -> module that defines it
_PUBLIC = {
    "AudioInfo": "files",
    "AudioWriter": "files",
    "audio_info": "files",
    "list_audio_files": "files",
    "read_audio": "files",
    "read_blocks": "files",
    "write_audio": "files",
    "StreamingResampler": "resampling",
    "resample": "resampling",
    "ComplexSTFT": "stft",
    "STFTConfig": "stft",
}

__all__ = sorted(_PUBLIC)
__getattr__, __dir__ = door(__name__, _PUBLIC)
