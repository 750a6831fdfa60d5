"""What the layers of a network put out, recorded by hooks while it runs."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from dccrn_lib.runtime.errors import ConfigError, nearest_name

STREAMS = ("complex", "magnitude", "both")


class FeatureTap:
    """Record the outputs of all encoder and decoder layers without touching the model.

    Args:
        model: anything with ModuleLists ``encoder`` and ``decoder``.
        stream: for layers that return (complex stream, magnitude stream), as Uformer's do: which one to keep;
            "both" joins them along chan.

    ``features`` maps "encoder.0" .. "decoder.5" to (batch, chan, freq, frame) of the latest forward pass, with its
    gradient history. Use it as a context manager or call :meth:`close`.

    Raises:
        ConfigError: unknown stream, or a model without ``encoder`` and ``decoder``.

    >>> from dccrn_lib import build_model
    >>> model = build_model("distil_dccrn_mini")
    >>> with FeatureTap(model) as tap:
    ...     y = model(torch.randn(1, 1600))
    >>> len(tap.features), tap.features["encoder.5"].shape[1:3]
    (12, torch.Size([16, 4]))
    """

    def __init__(self, model: nn.Module, stream: str = "complex") -> None:
        if stream not in STREAMS:
            raise ConfigError(f"unknown stream {stream!r}; {nearest_name(stream, list(STREAMS))}")
        if missing := [part for part in ("encoder", "decoder") if not hasattr(model, part)]:
            raise ConfigError(
                f"{type(model).__name__} has no {missing[0]}: the layers to tap are its encoder and decoder"
            )
        self.stream = stream
        self.features: dict[str, Tensor] = {}
        self._handles = []
        for part in ("encoder", "decoder"):
            for i, layer in enumerate(getattr(model, part)):
                self._handles.append(layer.register_forward_hook(self._hook(f"{part}.{i}")))

    def _hook(self, name: str):
        def keep(_module, _inputs, output) -> None:
            if isinstance(output, tuple):
                chosen = {"complex": output[:1], "magnitude": output[1:2], "both": output[:2]}[self.stream]
                output = torch.cat(chosen, dim=1)
            self.features[name] = output

        return keep

    def close(self) -> None:
        """Remove the hooks; ``features`` stays."""
        for handle in self._handles:
            handle.remove()
        self._handles = []

    def __enter__(self) -> FeatureTap:
        return self

    def __exit__(self, *_exc) -> None:
        self.close()
