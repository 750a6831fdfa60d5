"""Sound in, sound out, and its spectrum."""

from __future__ import annotations

from typing import TYPE_CHECKING

from dccrn_lib.runtime.lazy_names import lazy_names

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
    "STFTConfig": "stft_config",
}

__all__ = sorted(_PUBLIC)
if TYPE_CHECKING:  # for type checkers and lint-imports, which do not follow a table
    from dccrn_lib.audio.files import AudioInfo as AudioInfo
    from dccrn_lib.audio.files import AudioWriter as AudioWriter
    from dccrn_lib.audio.files import audio_info as audio_info
    from dccrn_lib.audio.files import list_audio_files as list_audio_files
    from dccrn_lib.audio.files import read_audio as read_audio
    from dccrn_lib.audio.files import read_blocks as read_blocks
    from dccrn_lib.audio.files import write_audio as write_audio
    from dccrn_lib.audio.resampling import StreamingResampler as StreamingResampler
    from dccrn_lib.audio.resampling import resample as resample
    from dccrn_lib.audio.stft import ComplexSTFT as ComplexSTFT
    from dccrn_lib.audio.stft_config import STFTConfig as STFTConfig
else:
    __getattr__, __dir__ = lazy_names(__name__, _PUBLIC)
