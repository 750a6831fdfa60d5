"""Uformer, the teacher: two streams, an encoder, a dilated dual-path conformer and a decoder.

Source: Fu et al., ICASSP 2022 (arXiv 2111.06015), in the form of the authors' 16 kHz code of June 2022.
"""

from dccrn_lib.networks.uformer.model import Uformer, UformerConfig

__all__ = ["Uformer", "UformerConfig"]
