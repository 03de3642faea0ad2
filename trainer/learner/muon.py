"""Muon: momentum whose singular values are all made about one (Jordan et al., 2024).

What `torch.optim.Muon` does, in float32 on a CPU: that one iterates in bfloat16, which a CPU
without such units computes three times as slowly.
"""

import math
from collections.abc import Iterable, Iterator, Sequence
from typing import Any, Final

import torch

ROUNDS: Final = 5
"""Of the iteration: singular values lie between 0.5 and 1.5 then."""

COEFFICIENTS: Final = (3.4445, -4.775, 2.0315)
"""Of the quintic ``a x + b x³ + c x⁵``, whose slope at zero is the steepest."""

LEAST_NORM: Final = 1e-7
"""What a gradient is divided by at least: one of zeros stays as it is."""


class Muon(torch.optim.Optimizer):
    """Moves matrices along their orthogonalised momentum, with Nesterov's look ahead.

    A matrix with more rows than columns moves further, by the root of how many times more.

    Args:
        params: Matrices.
        lr: The spectral norm of a step, about.
        momentum: What is kept of it.
        weight_decay: Share of ``lr`` times the weights that is taken off at each step.
    """

    def __init__(
        self,
        params: Iterable[torch.nn.Parameter],
        lr: float,
        *,
        momentum: float = 0.95,
        weight_decay: float = 0.0,
    ) -> None:
        super().__init__(params, {"lr": lr, "momentum": momentum, "weight_decay": weight_decay})

    def step(self, closure: None = None) -> None:  # type: ignore[override]
        """Move the matrices that have a gradient."""
        with torch.no_grad():
            for group in self.param_groups:
                moved = [matrix for matrix in group["params"] if matrix.grad is not None]
                for alike in together(moved):
                    self._move(alike, group)

    def _move(self, alike: Sequence[torch.Tensor], group: dict[str, Any]) -> None:
        """Move matrices of one shape."""
        rate, momentum = group["lr"], group["momentum"]
        ahead = []
        for matrix in alike:
            state: dict[str, Any] = self.state[matrix]
            if not state:
                state["momentum_buffer"] = torch.zeros_like(matrix)
            kept, gradient = state["momentum_buffer"], matrix.grad
            assert gradient is not None
            kept.lerp_(gradient, 1 - momentum)
            ahead.append(torch.lerp(gradient, kept, momentum))
        made = [orthogonal(ahead[0])] if len(ahead) == 1 else orthogonal(torch.stack(ahead))
        rows, columns = alike[0].shape
        further = math.sqrt(max(1, rows / columns))
        for matrix, step in zip(alike, made, strict=True):
            matrix.mul_(1 - rate * group["weight_decay"])
            matrix.add_(step, alpha=-rate * further)


def together(matrices: Sequence[torch.Tensor]) -> Iterator[list[torch.Tensor]]:
    """Matrices that are moved in one go: on a GPU those of one shape, on a CPU each alone.

    What a GPU takes for small ones is the calls, whatever a call does.
    """
    alike: dict[object, list[torch.Tensor]] = {}
    for place, matrix in enumerate(matrices):
        alike.setdefault(matrix.shape if matrix.is_cuda else place, []).append(matrix)
    yield from alike.values()


def orthogonal(matrix: torch.Tensor) -> torch.Tensor:
    """A matrix with its singular vectors, and singular values of about one: Newton and Schulz.

    In bfloat16 on a GPU, where that is fast and exact enough, and else in float32.

    Args:
        matrix: ``[rows, columns]``, or several of one shape, ``[n, rows, columns]``.
    """
    a, b, c = COEFFICIENTS
    tall = matrix.shape[-2] > matrix.shape[-1]
    found = matrix.bfloat16() if matrix.is_cuda else matrix.float()
    found = found.mT if tall else found
    found = found / torch.linalg.matrix_norm(found, keepdim=True).clamp(min=LEAST_NORM)
    added = torch.addmm if matrix.dim() == 2 else torch.baddbmm
    for _ in range(ROUNDS):
        gram = found @ found.mT
        found = added(found, added(gram, gram, gram, beta=b, alpha=c), found, beta=a)
    return found.mT if tall else found
