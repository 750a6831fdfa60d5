"""Looking inside a Uformer: attention weights on a signal, and how far each stage moves the streams.

The fast attention of the library never forms its weights; here they are computed again from the same projections.

Representation: weights are real, (..., sequence, sequence): row = the position that asks, column = where it looks;
every row sums to 1.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from dccrn_lib.networks.uformer.attention import AttentionBlock, ComplexHead, RealHead
from dccrn_lib.networks.uformer.lesions import stage_names
from dccrn_lib.networks.uformer.model import Uformer
from dccrn_lib.runtime.errors import ConfigError


def attention_weights(head: RealHead | ComplexHead, x: Tensor) -> Tensor:
    """softmax(q k' / sqrt(d)) of a head on its input.

    Shapes: (batch, sequence, chan) -> (batch, sequence, sequence) for a RealHead;
    (batch, sequence, 2 * chan) -> (batch, 8, sequence, sequence) in the order of ``TRIPLES`` for a ComplexHead.

    >>> attention_weights(RealHead(4, 2), torch.randn(3, 5, 4)).sum(-1).allclose(torch.ones(3, 5))
    True
    """
    if isinstance(head, ComplexHead):
        query, key, _ = head.project(x)
    else:
        query, key = head.query(x), head.key(x)
    return torch.softmax(query @ key.transpose(-1, -2) / query.shape[-1] ** 0.5, dim=-1)


@torch.no_grad()
def attention_maps(model: Uformer, spectrum: Tensor) -> dict[str, dict[str, Tensor]]:
    """Attention weights of both stages and both streams on one signal.

    Args:
        model: with attention, in eval mode.
        spectrum: complex, (1, freq, frame).

    Returns:
        {"frame": {"magnitude": (bin, frame, frame), "complex": (bin, 8, frame, frame)},
        "freq": {"magnitude": (frame, bin, bin), "complex": (frame, 8, bin, bin)}} with the 4 bins of the bottleneck.

    Raises:
        ConfigError: the model has no attention.
    """
    if not model.config.attention:
        raise ConfigError("this Uformer was built with attention=False: there is nothing to look at")
    maps: dict[str, dict[str, Tensor]] = {"frame": {}, "freq": {}}
    handles = []
    stages = {"magnitude": model.conformer.magnitude_stages, "complex": model.conformer.complex_stages}
    for stream, blocks in stages.items():
        for block in blocks:
            if isinstance(block, AttentionBlock):

                def keep(head, inputs, _output, axis=block.axis, stream=stream):
                    maps[axis][stream] = attention_weights(head, inputs[0])

                handles.append(block.head.register_forward_hook(keep))
    try:
        model.enhance_spectrum(spectrum)
    finally:
        for handle in handles:
            handle.remove()
    return maps


@torch.no_grad()
def stage_updates(model: Uformer, spectrum: Tensor) -> dict[str, dict[str, float]]:
    """How far each conformer stage moves its stream: |stage(x) - x| / |x|, Euclidean norms over the whole signal.

    Args:
        model: in eval mode.
        spectrum: complex, (batch, freq, frame).

    Returns:
        {"complex": {stage: ratio}, "magnitude": {stage: ratio}}; the fusions between the stages are not in it.
    """
    names, updates = stage_names(model), {}
    handles = []
    streams: dict[str, nn.ModuleList] = {
        "complex": model.conformer.complex_stages,
        "magnitude": model.conformer.magnitude_stages,
    }
    for stream, stages in streams.items():
        updates[stream] = dict.fromkeys(names, 0.0)
        for name, stage in zip(names, stages, strict=True):

            def keep(_stage, inputs, output, stream=stream, name=name):
                updates[stream][name] = ((output - inputs[0]).norm() / inputs[0].norm()).item()

            handles.append(stage.register_forward_hook(keep))
    try:
        model.enhance_spectrum(spectrum)
    finally:
        for handle in handles:
            handle.remove()
    return updates
