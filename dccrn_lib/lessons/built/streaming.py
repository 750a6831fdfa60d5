"""Built in lesson 07: the student one frame at a time, from the STFT at the entrance to the overlap-add at the exit.

A frame of a feature is (1, chan, freq, 1). ``None`` stands for a frame that does not exist, before the first and after
the last. ``enhance_live`` stops with its last hop; what is owed then is an exercise of the lesson.
"""

from collections import deque

import torch
import torch.nn.functional as F

from dccrn_lib.lessons.built.dccrn import MySTFT, my_concat, my_mask

L, h, fft_size = 400, 100, 512
window = MySTFT().window  # (L,)
weight = (window**2).reshape(-1, h).sum(0)  # (h,): the windows' sum, the same in every hop


def stream_stft(hops):
    """Hops of h samples in, one spectrum (freq,) out for each."""
    tail = torch.zeros(L - h)
    for hop in hops:
        frame = torch.cat([tail, hop])  # (L,)
        tail = frame[h:]  # (L - h,): what the next frame needs again
        yield torch.fft.rfft(frame * window, n=fft_size)  # (freq,)


def stream_overlap_add(spectra):
    """Spectra (freq,) in, h finished samples out for each."""
    tail = torch.zeros(L - h)
    for spectrum in spectra:
        piece = torch.fft.irfft(spectrum, n=fft_size)[:L] * window  # (L,)
        piece[: L - h] += tail
        tail = piece[h:].clone()  # (L - h,): not finished yet
        yield piece[:h] / weight


def encoder_step(layer, x, previous):
    """One frame through an encoder layer: (1, chan, freq, 1) and the frame before it -> (1, chan', freq / 2, 1)."""
    conv = layer.conv
    past, present = conv.block_weight().chunk(2, dim=3)  # W1, W0: each (out, in, 5, 1)
    # o[t] = W0 x[t] + W1 x[t-1] + b
    o = F.conv2d(x, present, conv.block_bias(), stride=(2, 1), padding=(2, 0))
    o = o + F.conv2d(previous, past, None, stride=(2, 1), padding=(2, 0))
    return layer.act(layer.norm(o))


def lstm_step(bottleneck, x, states):
    """One frame through the complex LSTM; ``states`` maps (layer, part) to (h, c) and is updated."""
    seq = x.permute(3, 0, 1, 2).flatten(2)  # (frame = 1, batch, chan * freq)
    real, imag = seq.chunk(2, dim=2)
    for i, layer in enumerate(bottleneck.lstm):
        both = torch.cat([real, imag], dim=1)  # (frame, 2 batch, size): x_r and x_i side by side
        r, states[i, "r"] = layer.lstm_real(both, states.get((i, "r")))
        j, states[i, "i"] = layer.lstm_imag(both, states.get((i, "i")))
        (rr, ri), (ir, ii) = r.chunk(2, dim=1), j.chunk(2, dim=1)
        real, imag = rr - ii, ri + ir
    seq = torch.cat([bottleneck.project_real(real), bottleneck.project_imag(imag)], dim=2)
    return seq.reshape(1, *x.shape[:3]).permute(1, 2, 3, 0)  # (batch, chan, freq, frame = 1)


def decoder_step(layer, x, previous):
    """Newest frame x[t] and the one before it -> o[t-1], (1, chan, freq, 1) -> (1, chan', 2 freq, 1)."""
    conv = layer.conv
    present, past = conv.block_weight().chunk(2, dim=3)  # W0, W1: each (in, out, 5, 1)
    shape = ((2, 1), (2, 0), (1, 0))  # stride, padding, output padding
    # o[t-1] = W0 x[t] + W1 x[t-1] + b
    o = F.conv_transpose2d(x, present, conv.block_bias(), *shape) + F.conv_transpose2d(previous, past, None, *shape)
    return layer.act(layer.norm(o))


class StreamByHand:
    """MyStudent, one frame at a time, written for reading. The library's StreamingCore does the same, faster."""

    def __init__(self, network):
        self.network, self.lstm = network, {}
        self.old = {}  # (side, layer) -> last input frame
        self.queues = [deque([None] * i) for i in range(6)]

    def encode(self, frame):
        """Newest frame (1, 2, freq, 1) -> the six layers' outputs and the bottleneck's."""
        x, skips = frame, []
        for i, layer in enumerate(self.network.encoder):
            old = self.old.get(("encoder", i), torch.zeros_like(x))
            self.old["encoder", i] = x
            x = encoder_step(layer, x, old)
            skips.append(x)
        return skips, lstm_step(self.network.bottleneck, x, self.lstm)

    def step(self, frame):
        """Newest frame or None -> mask of six frames ago (1, 2, freq, 1) or None."""
        skips, x = self.encode(frame) if frame is not None else ([None] * 6, None)
        for i, layer in enumerate(self.network.decoder):
            self.queues[i].append(skips[5 - i])
            skip, old = self.queues[i].popleft(), self.old.get(("decoder", i))
            joined = None if x is None else my_concat(x, skip)
            self.old["decoder", i] = joined
            x = None
            if old is not None:
                x = decoder_step(layer, torch.zeros_like(old) if joined is None else joined, old)
        return x


def enhance_live(student, hops):
    """Hops of h samples in, hops of h samples out. Nothing here knows how long the signal will be."""
    hand, waiting = StreamByHand(student), deque()

    def masked():
        for spectrum in stream_stft(hops):  # (freq,)
            waiting.append(spectrum)
            frame = torch.stack([spectrum.real, spectrum.imag])[None, :, 1:, None]  # (1, 2, freq, 1)
            mask = hand.step(frame)
            if mask is not None:
                mask = F.pad(torch.complex(mask[0, 0], mask[0, 1])[:, 0], (1, 0))  # (freq,): zero at DC
                yield my_mask(mask, waiting.popleft())  # of lesson 02

    return stream_overlap_add(masked())
