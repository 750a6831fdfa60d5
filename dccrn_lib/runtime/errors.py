"""Errors that a user can cause and can mend.

Every message is one line: what was wrong, with the file or value, and what to do about it.
The command line prints the message without a traceback (``--debug`` shows it).
"""

import difflib


class DccrnError(Exception):
    """Base of all errors of this package that a user can cause."""


class AudioError(DccrnError, ValueError):
    """An audio file or array cannot be used: missing, empty, corrupt, NaN, wrong shape or rate."""


class ManifestError(DccrnError, ValueError):
    """A corpus manifest is missing, malformed, or holds nothing for the split asked for."""


class ConfigError(DccrnError, ValueError):
    """An unknown name or a value out of range in a configuration."""


class WeightsError(DccrnError, ValueError):
    """A weights file is missing, corrupt, or does not fit the model."""


class MetricError(DccrnError, ValueError):
    """Signals that no metric can compare: wrong lengths, rates or shapes."""


class DamagedFileError(DccrnError, ValueError):
    """A file that this project wrote (a checkpoint, a record) is empty, cut off or holds something else now."""


class WorkerError(DccrnError, RuntimeError):
    """A process that worked for this one ended without an answer: killed, out of memory, or started by a script
    without a ``__main__`` guard.
    """


def lacks_memory(error: BaseException) -> bool:
    """Whether an error says that the memory of this machine, or of a GPU, was not enough.

    PyTorch and ONNX Runtime raise errors of their own for it, which are told by name and words: neither is imported.
    """
    if isinstance(error, MemoryError) or type(error).__name__ == "OutOfMemoryError":
        return True
    words = ("allocate memory", "not enough memory", "bad_alloc", "bad allocation", "STATUS_ALLOC_FAILED")
    return isinstance(error, Exception) and any(part in str(error) for part in words)


def nearest_name(name: str, known: list[str]) -> str:
    """Sentence that lists the known names and points at the closest one.

    >>> nearest_name("distil_dcrn", ["dccrn_e", "distil_dccrn"])
    'did you mean distil_dccrn? known: dccrn_e, distil_dccrn'
    """
    close = difflib.get_close_matches(str(name), known, n=1)
    hint = f"did you mean {close[0]}? " if close else ""
    return f"{hint}known: {', '.join(known)}"
