"""AdamW with a cosine schedule (the paper's), and Muon for the matrices inside the network.

References
----------
.. [1] I. Loshchilov and F. Hutter, "Decoupled weight decay regularization", ICLR 2019.
.. [2] K. Jordan et al., "Muon: an optimizer for hidden layers in neural networks" (2024).
.. [3] N. J. Higham, "Functions of Matrices", SIAM (2008), chapter 8: Newton-Schulz iterations for the polar factor.
"""

from __future__ import annotations

import math
import re
from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping
from typing import Any

import torch
from torch import Tensor, nn

from algebraformer.models import Algebraformer
from algebraformer.training.recipes import FinetuneRecipe, Recipe

QUINTIC = (3.4445, -4.7750, 2.0315)
"""Coefficients of Muon's iteration [2]_: steep at zero, singular values end between 0.7 and 1.2."""
LAYER_PATTERN = re.compile(r"body\.(?:blocks\.|carriers\.|layers\.\w+_l)(\d+)")
"""Names of the parameters of blocks and recurrent layers; the group is the number of the layer, from 0."""


def orthogonalize(G: Tensor, iterations: int = 5) -> Tensor:
    """Return about U V^T for G = U S V^T, by five quintic Newton-Schulz iterations in the dtype of G.

    torch.optim.Muon iterates in bfloat16, which CPUs without such units emulate thirty times slower than float32.

    Parameters
    ----------
    G : Tensor, shape (k, m, n)
        k matrices.

    Returns
    -------
    Tensor, shape (k, m, n)
        Singular values between 0.7 and 1.2 where those of G are not tiny.
    """
    a, b, c = QUINTIC
    X = G.mT if G.shape[1] > G.shape[2] else G
    X = X / (X.norm(dim=(1, 2), keepdim=True) + 1e-7)
    for _ in range(iterations):
        S = X @ X.mT
        X = torch.baddbmm(X, torch.baddbmm(S, S, S, beta=b, alpha=c), X, beta=a)
    return X.mT if G.shape[1] > G.shape[2] else X


class Muon(torch.optim.Optimizer):
    """Momentum whose direction is orthogonalised, matrix by matrix [2]_; equal shapes are batched.

    Parameters
    ----------
    matrices : iterable of (Parameter, int)
        Weight matrices and how many matrices of equal shape each of them stacks (three for fused query, key, value).
    lr : float
    momentum : float
        Nesterov momentum.
    weight_decay : float
    """

    def __init__(
        self,
        matrices: Iterable[tuple[nn.Parameter, int]],
        lr: float,
        momentum: float = 0.95,
        weight_decay: float = 0.0,
    ) -> None:
        pairs = list(matrices)
        self.stacked = {id(parameter): count for parameter, count in pairs}
        defaults = {"lr": lr, "momentum": momentum, "weight_decay": weight_decay}
        super().__init__([parameter for parameter, _ in pairs], defaults)

    @torch.no_grad()
    def step(self, closure: Callable[[], float] | None = None) -> None:  # type: ignore[override]
        if closure is not None:
            raise NotImplementedError("Muon takes no closure")
        for group in self.param_groups:
            shapes: defaultdict[tuple[int, int], list[tuple[nn.Parameter, Tensor]]] = defaultdict(list)
            for parameter in group["params"]:
                if parameter.grad is None:
                    continue
                state = self.state[parameter]
                if not state:
                    state["momentum"] = torch.zeros_like(parameter)
                state["momentum"].lerp_(parameter.grad, 1 - group["momentum"])
                direction = parameter.grad.lerp(state["momentum"], group["momentum"])
                count = self.stacked[id(parameter)]
                rows, columns = direction.shape[0] // count, direction.shape[1]
                shapes[rows, columns].append((parameter, direction.view(count, rows, columns)))
            for (rows, columns), members in shapes.items():
                updates = orthogonalize(torch.cat([direction for _, direction in members]))
                rate = group["lr"] * max(1.0, rows / columns) ** 0.5
                for (parameter, _), update in zip(members, updates.split([len(d) for _, d in members]), strict=True):
                    parameter.mul_(1 - group["lr"] * group["weight_decay"])
                    parameter.add_(update.reshape(parameter.shape), alpha=-rate)


def depth(name: str, n_layer: int) -> int:
    """Return the layer that a parameter of that name belongs to: 0 the embedding, then the blocks, last the read-out.

    Examples
    --------
    >>> depth("tokens.embedding.weight", 4), depth("body.blocks.0.norm.bias", 4), depth("head.linear.weight", 4)
    (0, 1, 5)
    """
    if name.startswith("tokens."):
        return 0
    block = LAYER_PATTERN.match(name)
    return int(block[1]) + 1 if block else n_layer + 1


def rates(model: Algebraformer, recipe: Recipe) -> dict[nn.Parameter, float]:
    """Return the share of the learning rate that each parameter has; 0 for what is frozen."""
    n_layer = model.config.n_layer
    if not isinstance(recipe, FinetuneRecipe):
        return dict.fromkeys(model.parameters(), 1.0)
    found = {}
    for name, parameter in model.named_parameters():
        layer = depth(name, n_layer)
        frozen = recipe.frozen > 0 and layer <= recipe.frozen
        found[parameter] = 0.0 if frozen else recipe.layer_decay ** (n_layer + 1 - layer)
    return found


def make_optimizers(model: Algebraformer, recipe: Recipe) -> list[torch.optim.Optimizer]:
    """Return the optimisers of a recipe: AdamW alone, or Muon for the hidden matrices and AdamW for the rest.

    Parameters that the recipe freezes need no gradient from here on and are in none of them.
    """
    share = rates(model, recipe)
    for parameter, value in share.items():
        parameter.requires_grad_(value > 0)
    shares = sorted({value for value in share.values() if value > 0}, reverse=True)
    hidden = dict(model.hidden_matrices()) if recipe.optimizer == "muon" else {}
    optimizers: list[torch.optim.Optimizer] = []
    groups: list[dict[str, Any]] = []
    for value in shares:
        if matrices := [(p, count) for p, count in hidden.items() if share[p] == value]:
            optimizers.append(Muon(matrices, lr=value * recipe.muon_lr, weight_decay=recipe.weight_decay))
        rest, rate = [p for p in share if share[p] == value and p not in hidden], value * recipe.lr
        groups.append({"params": [p for p in rest if p.ndim >= 2], "lr": rate, "weight_decay": recipe.weight_decay})
        groups.append({"params": [p for p in rest if p.ndim < 2], "lr": rate, "weight_decay": 0.0})
    betas = (recipe.beta1, recipe.beta2)
    optimizers.append(torch.optim.AdamW([g for g in groups if g["params"]], lr=recipe.lr, betas=betas))
    for optimizer in optimizers:
        for group in optimizer.param_groups:
            group["peak_lr"] = group["lr"]
    return optimizers


def schedule(step: int, recipe: Recipe) -> float:
    """Return the share of the peak learning rate at a step: a linear rise, then a cosine to zero."""
    rise = max(1, round(recipe.warmup * recipe.steps))
    if step < rise:
        return (step + 1) / rise
    return 0.5 * (1 + math.cos(math.pi * (step - rise) / max(1, recipe.steps - rise)))


def set_learning_rates(optimizers: Iterable[torch.optim.Optimizer], share: float) -> None:
    """Set every learning rate to this share of its peak."""
    for optimizer in optimizers:
        for group in optimizer.param_groups:
            group["lr"] = share * group["peak_lr"]


def flatten_state(optimizer: torch.optim.Optimizer, prefix: str) -> dict[str, Tensor]:
    """Return the tensors of an optimiser's state under names prefix.parameter.key."""
    state = optimizer.state_dict()["state"]
    return {
        f"{prefix}.{index}.{key}": value.detach().cpu().contiguous()
        for index, entries in state.items()
        for key, value in entries.items()
    }


def unflatten_state(optimizer: torch.optim.Optimizer, tensors: Mapping[str, Tensor], prefix: str) -> None:
    """Load what `flatten_state` returned; learning rates stay those of the recipe."""
    state: dict[int, dict[str, Tensor]] = {}
    for name, tensor in tensors.items():
        owner, index, key = name.split(".")
        if owner == prefix:
            state.setdefault(int(index), {})[key] = tensor
    optimizer.load_state_dict({"state": state, "param_groups": optimizer.state_dict()["param_groups"]})
