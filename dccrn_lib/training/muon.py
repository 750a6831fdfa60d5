"""Muon: momentum whose matrices are made orthogonal before they are applied; Adam for everything that is no matrix.

A gradient of a weight matrix is often dominated by a few directions. Muon replaces the momentum M = U S V' by the nearest
orthogonal matrix U V', so that every direction moves by the same amount. U V' is found by Newton-Schulz iterations,
matrix products alone: X <- a X + b (X X') X + c (X X')^2 X brings all singular values of X near 1.

Convolution kernels (out, in, freq, frame) count as matrices (out, in * freq * frame). Biases, norms, slopes and matrices
with fewer than four rows or columns take Adam.

Every update has the same size, whatever the gradient: at a constant rate weights grow with the square root of the steps.
BatchNorm takes that growth back where it follows; in an LSTM nothing does. ``weight_decay`` bounds it, or ``to_adam``
leaves LSTMs to Adam.

Sources: Jordan et al. 2024, "Muon: an optimizer for hidden layers in neural networks", for the iteration and its numbers;
Liu et al. 2025, "Muon is scalable for LLM training", for the weight decay. ``torch.optim.Muon`` takes two-dimensional
parameters only.
"""

# torch's own optimisers call the _foreach functions; its stubs name them, but do not export them.
# pyright: reportPrivateImportUsage=false

from __future__ import annotations

from collections.abc import Iterable

import torch
from torch import Tensor, nn

#: a, b, c of the iteration: chosen by its authors so that small singular values grow quickly.
NEWTON_SCHULZ = (3.4445, -4.7750, 2.0315)
WIDE = 2  # columns per row from which on square matrices cost less arithmetic
LEAST_SIDE = 4  # matrices thinner than this take Adam


def orthogonalise(matrices: Tensor, steps: int = 5) -> Tensor:
    """U V' of each matrix U S V', approximately: singular values end between about 0.7 and 1.2.

    That holds for those that begin at a five-hundredth of the matrix's Frobenius norm or above. Smaller ones grow 485 times
    in five steps and end below, as the smallest of a square matrix of noise often does.

    Args:
        matrices: (count, rows, columns), float32.
        steps: iterations.

    Shapes: (count, rows, columns) -> same.

    >>> flat = orthogonalise(torch.diag(torch.tensor([9.0, 3.0, 1.0]))[None])[0]
    >>> bool(((torch.linalg.svdvals(flat) > 0.6) & (torch.linalg.svdvals(flat) < 1.3)).all())
    True
    """
    tall = matrices.shape[-2] > matrices.shape[-1]
    x = matrices.mT if tall else matrices
    x = x / (x.square().sum((-2, -1), keepdim=True).sqrt() + 1e-7)  # no singular value above 1
    x = newton_schulz_factor(x, steps) @ x if x.shape[-1] >= WIDE * x.shape[-2] else newton_schulz(x, steps)
    return x.mT if tall else x


def newton_schulz(x: Tensor, steps: int) -> Tensor:
    """The iteration as it stands: (count, rows, columns) -> same, of matrices with no singular value above 1."""
    a, b, c = NEWTON_SCHULZ
    for _ in range(steps):
        square = x @ x.mT
        x = a * x + (b * square + c * square @ square) @ x
    return x


def newton_schulz_factor(x: Tensor, steps: int) -> Tensor:
    """P with P X = what the iteration makes of a wide X (count, rows, columns), from square matrices alone.

    Every step multiplies X from the left by M = a I + b S + c S^2 with S = X X'; the next S is M S M. All of them are
    (count, rows, rows), so that the many columns enter in the first S only.
    """
    a, b, c = NEWTON_SCHULZ
    square = x @ x.mT
    product = torch.eye(x.shape[-2], dtype=x.dtype, device=x.device).expand_as(square)
    for step in range(steps):
        factor = b * square + c * square @ square
        factor.diagonal(dim1=-2, dim2=-1).add_(a)
        product = factor @ product if step else factor
        if step < steps - 1:
            square = factor @ square @ factor
    return product


def is_matrix(parameter: Tensor) -> bool:
    """Whether Muon takes this parameter, (out, ...): as a matrix (out, rest), at least four rows and columns."""
    return parameter.dim() >= 2 and min(parameter.shape[0], parameter[0].numel()) >= LEAST_SIDE


def lstm_parameters(model: nn.Module) -> list[nn.Parameter]:
    """All parameters of a network's LSTMs, matrices and biases, each once and in the order of its modules."""
    return [p for module in model.modules() if isinstance(module, nn.LSTM) for p in module.parameters()]


class Muon(torch.optim.Optimizer):
    """Muon for matrices and Adam for the rest, as one optimiser with two groups, "muon" and "adam".

    Args:
        parameters: to train.
        learning_rate: of the matrices.
        adam_learning_rate: of the rest.
        momentum: of the matrices, in Nesterov's form.
        betas, eps: of Adam.
        weight_decay: of the matrices: each step first shortens them by rate * weight_decay of themselves.
        to_adam: parameters, matrices or not, that take Adam in any case.

    ``found_inf``, if set, is a float tensor: at 1 the next step changes nothing, as in torch's fused optimisers.
    ``group["lr"]`` may be a number, or a tensor of one element on the device of the parameters: with tensors a step reads
    nothing on the host, so that it can be captured in a CUDA graph and its rate still be changed.

    >>> layer = nn.Linear(8, 8)
    >>> optimiser = Muon(layer.parameters())
    >>> [(g["kind"], len(g["params"])) for g in optimiser.param_groups]
    [('muon', 1), ('adam', 1)]
    """

    found_inf: Tensor | None = None

    def __init__(
        self,
        parameters: Iterable[nn.Parameter],
        learning_rate: float = 0.01,
        adam_learning_rate: float = 2e-3,
        momentum: float = 0.95,
        betas: tuple[float, float] = (0.9, 0.999),
        eps: float = 1e-8,
        weight_decay: float = 0.0,
        to_adam: Iterable[nn.Parameter] = (),
    ) -> None:
        given = {id(p) for p in to_adam}
        matrices, rest = [], []
        for p in parameters:
            (matrices if is_matrix(p) and id(p) not in given else rest).append(p)
        groups = [
            {"params": matrices, "lr": learning_rate, "kind": "muon"},
            {"params": rest, "lr": adam_learning_rate, "kind": "adam"},
        ]
        defaults = {"lr": learning_rate, "momentum": momentum, "betas": betas, "eps": eps, "weight_decay": weight_decay}
        super().__init__([g for g in groups if g["params"]], defaults)

    @torch.no_grad()
    def step(self, closure: None = None) -> None:
        """Move every parameter that has a gradient."""
        for group in self.param_groups:
            with_gradient = [p for p in group["params"] if p.grad is not None]
            if with_gradient:
                (self._muon if group["kind"] == "muon" else self._adam)(with_gradient, group)

    def _muon(self, parameters: list[Tensor], group: dict) -> None:
        for p in parameters:
            if not self.state[p]:
                self.state[p]["momentum"] = torch.zeros_like(p)
        gradients = self._gradients(parameters)
        momenta = [self.state[p]["momentum"] for p in parameters]
        # m <- mu m + g;   update = g + mu m
        torch._foreach_mul_(momenta, self._unless_skipped(group["momentum"], 1.0))
        torch._foreach_add_(momenta, gradients)
        updates = torch._foreach_mul(momenta, group["momentum"])
        torch._foreach_add_(updates, gradients)
        rate = self._unless_skipped(group["lr"], 0.0)
        if group.get("weight_decay"):  # states saved before there was any lack it
            torch._foreach_mul_(parameters, 1 - rate * group["weight_decay"])
        by_shape: dict[tuple[int, int], list[int]] = {}
        for i, p in enumerate(parameters):
            by_shape.setdefault((p.shape[0], p[0].numel()), []).append(i)
        for (rows, columns), members in by_shape.items():
            stack = torch.stack([updates[i].reshape(rows, columns) for i in members])  # (count, rows, columns)
            # a tall matrix moves its outputs less by itself: its columns share the same length
            stack = orthogonalise(stack) * (rate * max(1.0, rows / columns) ** 0.5)
            moved = [parameters[i] for i in members]
            torch._foreach_sub_(moved, [u.view_as(p) for u, p in zip(stack.unbind(), moved, strict=True)])

    def _adam(self, parameters: list[Tensor], group: dict) -> None:
        for p in parameters:
            if not self.state[p]:
                zeros = {"mean": torch.zeros_like(p), "square": torch.zeros_like(p)}
                self.state[p] |= {**zeros, "count": torch.zeros((), device=p.device)}
        gradients = self._gradients(parameters)
        means, squares, counts = ([self.state[p][k] for p in parameters] for k in ("mean", "square", "count"))
        first, second = group["betas"]
        if self.found_inf is None:
            torch._foreach_add_(counts, 1.0)
            torch._foreach_lerp_(means, gradients, 1 - first)
        else:
            torch._foreach_add_(counts, 1.0 - self.found_inf)
            torch._foreach_mul_(means, self._unless_skipped(first, 1.0))
            torch._foreach_add_(means, gradients, alpha=1 - first)
        torch._foreach_mul_(squares, self._unless_skipped(second, 1.0))
        torch._foreach_addcmul_(squares, gradients, gradients, 1 - second)
        # p <- p - lr m / (1 - b1^t) / (sqrt(v / (1 - b2^t)) + eps); t is the same for all
        # in float32, 1 - 0.999 is off by 6e-5 of itself; a first step that is skipped leaves the count at 0
        t = counts[0].double().clamp_min(1.0)
        sizes = torch._foreach_sqrt(squares)
        torch._foreach_div_(sizes, (1 - second**t).sqrt().float())
        torch._foreach_add_(sizes, group["eps"])
        updates = torch._foreach_div(means, sizes)
        torch._foreach_mul_(updates, (self._unless_skipped(group["lr"], 0.0) / (1 - first**t)).float())
        torch._foreach_sub_(parameters, updates)

    def _gradients(self, parameters: list[Tensor]) -> list[Tensor]:
        """Of all of them, see ``step``; 0 in a step that is skipped."""
        gradients = [p.grad for p in parameters if p.grad is not None]
        if self.found_inf is None:
            return gradients
        skipped = self.found_inf > 0
        return [torch.where(skipped, 0.0, g) for g in gradients]

    def _unless_skipped(self, value: float | Tensor, otherwise: float) -> float | Tensor:
        """A factor, or what it is in a step that is skipped."""
        return value if self.found_inf is None else torch.where(self.found_inf > 0, otherwise, value)
