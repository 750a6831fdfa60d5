"""From noisy files and signals to enhanced ones, whole or sample by sample."""

from __future__ import annotations

from typing import TYPE_CHECKING

from dccrn_lib.runtime.lazy_names import lazy_names

# name -> module that defines it
_PUBLIC = {
    "EnhancedFile": "files",
    "enhance_file": "files",
    "EnhanceReport": "batch",
    "enhance_files": "batch",
    "enhance_waveform": "waveform",
    "StreamingEnhancer": "stream",
    "latency_samples": "stream",
}

__all__ = sorted(_PUBLIC)
if TYPE_CHECKING:  # for type checkers and lint-imports, which do not follow a table
    from dccrn_lib.enhancement.batch import EnhanceReport as EnhanceReport
    from dccrn_lib.enhancement.batch import enhance_files as enhance_files
    from dccrn_lib.enhancement.files import EnhancedFile as EnhancedFile
    from dccrn_lib.enhancement.files import enhance_file as enhance_file
    from dccrn_lib.enhancement.stream import StreamingEnhancer as StreamingEnhancer
    from dccrn_lib.enhancement.stream import latency_samples as latency_samples
    from dccrn_lib.enhancement.waveform import enhance_waveform as enhance_waveform
else:
    __getattr__, __dir__ = lazy_names(__name__, _PUBLIC)
