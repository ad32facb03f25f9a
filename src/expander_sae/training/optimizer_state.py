"""What Adam and the parameters it moves are at a step, as the tensors of a checkpoint."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor, nn

MOMENTS = ("exp_avg", "exp_avg_sq", "step")
"""What Adam remembers of every parameter."""


def learned_state(module: nn.Module, optimizer: torch.optim.Optimizer) -> dict[str, Tensor]:
    """Every parameter and what Adam remembers of it, themselves and not copies; there must have been a step."""
    state = {}
    for name, parameter in module.named_parameters():
        state[f"parameters/{name}"] = parameter.detach()
        for moment in MOMENTS:
            state[f"{moment}/{name}"] = optimizer.state[parameter][moment]
    return state


def make_moments(module: nn.Module, optimizer: torch.optim.Optimizer, state: Mapping[str, Tensor]) -> None:
    """Give Adam the memory that it had in `state`, to be filled by copying over `learned_state`."""
    for name, parameter in module.named_parameters():
        optimizer.state[parameter] = {
            moment: torch.empty_like(state[f"{moment}/{name}"], device=parameter.device) for moment in MOMENTS
        }
