"""From noisy files and signals to enhanced ones, whole or sample by sample."""

from __future__ import annotations

from dccrn_lib.runtime.doors import door

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
__getattr__, __dir__ = door(__name__, _PUBLIC)
