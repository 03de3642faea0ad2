"""How weights move: optimisers, their rates over time, the norm of a gradient, an average."""

import math
from collections.abc import Mapping
from typing import Any

import torch
from torch.nn.utils import clip_grad_norm_

from trainer.learner.muon import Muon
from trainer.learner.options import Steps

BASE_RATE = "initial_lr"
"""The key of a group's rate before the schedule, as torch's own schedulers call it."""


def factor(steps: Steps, update: int) -> float:
    """What rates are multiplied by at an update, counted from 0."""
    if update < steps.warmup:
        return (update + 1) / (steps.warmup + 1)
    if steps.schedule == "constant":
        return 1.0
    done = min(1.0, (update - steps.warmup) / (steps.total - steps.warmup))
    left = 1 - done if steps.schedule == "linear" else (1 + math.cos(math.pi * done)) / 2
    return steps.floor + (1 - steps.floor) * left


class Stepper:
    """The optimisers of a model.

    Args:
        model: Its parameters that want a gradient are moved.
        steps: How.
    """

    def __init__(self, model: torch.nn.Module, steps: Steps) -> None:
        self._steps = steps
        self.parameters: dict[str, torch.nn.Parameter] = {
            name: each for name, each in model.named_parameters() if each.requires_grad
        }
        inner = _matrices(model)
        matrices = [each for each in self.parameters.values() if id(each) in inner]
        others = [each for each in self.parameters.values() if id(each) not in inner]
        decay, betas = steps.weight_decay, steps.betas
        groups: list[dict[str, Any]] = [{"params": others, "weight_decay": 0.0}]
        self.optimizers: dict[str, torch.optim.Optimizer] = {}
        if steps.kind == "muon" and matrices:
            self.optimizers["muon"] = Muon(
                matrices, steps.matrix_rate, momentum=steps.momentum, weight_decay=decay
            )
        else:
            groups.append({"params": matrices, "weight_decay": decay})
        if any(group["params"] for group in groups):
            # One kernel for all of them, where a step of a small model is many small calls.
            self.optimizers["adamw"] = torch.optim.AdamW(
                [group for group in groups if group["params"]],
                lr=steps.rate,
                betas=betas,
                eps=steps.eps,
                fused=True,
            )
        for optimizer in self.optimizers.values():
            for group in optimizer.param_groups:
                group[BASE_RATE] = group["lr"]
        self.average: dict[str, torch.Tensor] = {}
        if steps.ema:
            self.average = {name: each.detach().clone() for name, each in self.parameters.items()}

    def rates(self, update: int) -> dict[str, float]:
        """The rate of each optimiser at an update."""
        now = factor(self._steps, update)
        return {
            name: optimizer.param_groups[0][BASE_RATE] * now
            for name, optimizer in self.optimizers.items()
        }

    def clipped(self) -> float:
        """Cut the gradient to its greatest norm; the norm that it had."""
        limit = self._steps.clip or math.inf
        return float(clip_grad_norm_(list(self.parameters.values()), limit))

    def step(self, update: int) -> None:
        """Move the weights, and forget the gradient."""
        for name, rate in self.rates(update).items():
            optimizer = self.optimizers[name]
            for group in optimizer.param_groups:
                group["lr"] = rate
            optimizer.step()
        self.forget()
        if self.average:
            with torch.no_grad():
                torch._foreach_lerp_(
                    list(self.average.values()),
                    [each.detach() for each in self.parameters.values()],
                    1 - self._steps.ema,
                )

    def forget(self) -> None:
        """Drop the gradient."""
        for each in self.parameters.values():
            each.grad = None

    def state(self) -> dict[str, Any]:
        """All that the next update depends on, besides the weights."""
        return {name: optimizer.state_dict() for name, optimizer in self.optimizers.items()}

    def restore(self, state: Mapping[str, Any], average: Mapping[str, torch.Tensor]) -> None:
        """Go on from a state, with the moments that it has and the options given here.

        An average that it doesn't have begins with the weights as they are.

        Raises:
            ValueError: It is of other parameters.
        """
        if state.keys() != self.optimizers.keys():
            raise ValueError(f"it has {', '.join(state)}, not {', '.join(self.optimizers)}")
        for name, optimizer in self.optimizers.items():
            mine = [_options(group) for group in optimizer.param_groups]
            optimizer.load_state_dict(dict(state[name]))
            for group, options in zip(optimizer.param_groups, mine, strict=True):
                group.update(options)
        for name, each in self.average.items():
            each.copy_(average.get(name, self.parameters[name].detach()))


def _options(group: Mapping[str, Any]) -> dict[str, Any]:
    """What a group of parameters is moved by."""
    return {name: value for name, value in group.items() if name != "params"}


def _matrices(model: torch.nn.Module) -> set[int]:
    """Ids of the matrices within the layers: those of neither an embedding nor a head."""
    outer = {id(each.weight) for each in model.modules() if isinstance(each, torch.nn.Embedding)}
    head = getattr(model, "get_output_embeddings", lambda: None)()
    if head is not None:
        outer |= {id(each) for each in head.parameters()}
    return {id(each) for each in model.parameters() if each.ndim == 2 and id(each) not in outer}
