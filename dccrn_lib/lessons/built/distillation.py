"""Built in lesson 05: the training loss, the frozen teacher, one distillation step, and the loop around it.

Waveforms are (batch, sample); a batch is the pair (noisy, clean). Student and teacher are anything with the ModuleLists
``encoder`` and ``decoder``, the lesson's own networks or the library's.
"""

import copy
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from dccrn_lib.distillation import FeatureTap


def my_si_snr(estimate: Tensor, target: Tensor) -> Tensor:
    """SI-SNR of each waveform in dB: (batch, sample) twice -> (batch,)."""
    e, s = (x - x.mean(dim=-1, keepdim=True) for x in (estimate, target))
    energy = s.square().sum(dim=-1, keepdim=True) + 1e-8
    projection = (e * s).sum(dim=-1, keepdim=True) * s / energy  # the part of e that is the target
    ratio = (projection.square().sum(dim=-1) + 1e-8) / ((e - projection).square().sum(dim=-1) + 1e-8)
    return 10 * torch.log10(ratio)


def my_level(estimate: Tensor, target: Tensor) -> Tensor:
    """(g - 1)^2, mean over the batch."""
    gain = (estimate * target).sum(dim=-1) / (target.square().sum(dim=-1) + 1e-8)
    return (gain - 1).square().mean()


def compressed_spectrum(wave: Tensor, power: float = 0.3) -> tuple[Tensor, Tensor]:
    """|Z|^p and |Z|^p e^{j arg Z} of the spectrum Z: (batch, freq, frame) each."""
    window = torch.hann_window(512, device=wave.device)
    z = torch.stft(wave, 512, hop_length=128, window=window, return_complex=True, pad_mode="constant")
    size = (z.real**2 + z.imag**2 + 1e-8).sqrt()  # never 0: its gradient stays finite
    return size**power, z * size ** (power - 1)


def my_spectral(estimate: Tensor, target: Tensor) -> Tensor:
    """Distance of the compressed spectra, seven parts magnitude and three parts complex."""
    scale = 10 * target.square().mean(dim=-1, keepdim=True).sqrt().clamp_min(1e-3)
    (e_size, e), (s_size, s) = compressed_spectrum(estimate / scale), compressed_spectrum(target / scale)
    magnitude_part = (e_size - s_size).square().mean()
    complex_part = ((e - s).real ** 2 + (e - s).imag ** 2).mean()
    return 0.7 * magnitude_part + 0.3 * complex_part


def my_loss(estimate: Tensor, target: Tensor, spectral_weight: float) -> Tensor:
    """L(estimate, target): the whole waveform loss of the profiles."""
    spectral = spectral_weight * my_spectral(estimate, target) if spectral_weight else 0.0
    return -my_si_snr(estimate, target).mean() + my_level(estimate, target) + spectral


def my_freeze(teacher: nn.Module) -> nn.Module:
    """Evaluation mode, and no gradients for the weights."""
    return teacher.eval().requires_grad_(False)


@dataclass
class Recipe:
    """What a step has to know besides the networks and the batch."""

    at_kl: Callable  # (features of the student, of the teacher) -> (mean over layers, layer -> nats)
    a: float = 0.5  # weight of the teacher's waveform against the clean one
    b: float = 0.0  # weight of the AT-KL term, in dB per nat
    spectral_weight: float = 0.0  # of the compressed spectral distance
    clip: float = 5.0  # largest gradient norm
    decay: float = 0.0  # d of the averaged weights; 0 copies the student's


def distil_terms(student: nn.Module, teacher: nn.Module | None, batch: tuple, recipe: Recipe) -> dict[str, Tensor]:
    """The terms of the loss on one batch; without a teacher only the clean one."""
    noisy, clean = batch
    if teacher is None:
        clean_term = my_loss(student(noisy), clean, recipe.spectral_weight)
        return {"clean": clean_term, "waveform": clean_term}
    with torch.no_grad(), FeatureTap(teacher) as teacher_tap:
        target = teacher(noisy)
    with FeatureTap(student) as student_tap:
        estimate = student(noisy)
    terms = {"clean": my_loss(estimate, clean, recipe.spectral_weight)}
    terms["teacher"] = my_loss(estimate, target, recipe.spectral_weight)
    terms["waveform"] = (1 - recipe.a) * terms["clean"] + recipe.a * terms["teacher"]
    terms["features"], layers = recipe.at_kl(student_tap.features, teacher_tap.features)
    return {**terms, **{f"layer {name}": value for name, value in layers.items()}}


def gradient_norm(term: Tensor, weights: list[nn.Parameter]) -> Tensor:
    """Length of the gradient of one term with respect to all weights together."""
    found = torch.autograd.grad(term, weights, retain_graph=True, allow_unused=True)
    return torch.stack([g.square().sum() for g in found if g is not None]).sum().sqrt()


def my_balance(student: nn.Module, teacher: nn.Module, batch: tuple, recipe: Recipe, share: float = 0.1) -> float:
    """b for which the AT-KL gradient is ``share`` of the waveform gradient; the student stays as it is."""
    probe = copy.deepcopy(student)
    terms, weights = distil_terms(probe, teacher, batch, recipe), list(probe.parameters())
    return float(share * gradient_norm(terms["waveform"], weights) / gradient_norm(terms["features"], weights))


@torch.no_grad()
def my_average(average: nn.Module, student: nn.Module, decay: float, step: int) -> None:
    """Move the averaged weights a little towards the student's; BatchNorm statistics are copied."""
    d = min(decay, (1 + step) / (10 + step)) if decay else 0.0
    for kept, new in zip(average.parameters(), student.parameters(), strict=True):
        kept.lerp_(new, 1 - d)
    for kept, new in zip(average.buffers(), student.buffers(), strict=True):
        kept.copy_(new)


def distil_step(
    student: nn.Module,
    teacher: nn.Module | None,
    batch: tuple,
    recipe: Recipe,
    optimiser: torch.optim.Optimizer,
    average: nn.Module,
    step: int,
) -> dict[str, Tensor]:
    """One step of training: the student learns from the batch and from the teacher, ``average`` follows it."""
    terms = distil_terms(student, teacher, batch, recipe)
    total = terms["waveform"] + (recipe.b * terms["features"] if teacher is not None else 0)
    optimiser.zero_grad()
    total.backward()
    nn.utils.clip_grad_norm_(student.parameters(), recipe.clip)
    optimiser.step()
    my_average(average, student, recipe.decay, step)
    return terms


def my_rate(step: int, steps: int, peak: float, warmup: int, decay: float) -> float:
    """Learning rate of step 0, 1, ...: a rise over ``warmup`` steps, a plateau, a fall over the last share ``decay``."""
    rise = min(1.0, (step + 1) / max(warmup, 1))
    fall = min(1.0, max(0.02, (steps - step) / (decay * steps)))
    return peak * rise * fall
