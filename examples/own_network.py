"""A body and an encoding of your own, each in a few lines: convolutions over the tokens, and rows joined with columns.

Both have names in recipes, and their networks are trained, saved, loaded and certified like any other. This module has
to be imported before such a checkpoint is loaded; the error says so.

    python examples/own_network.py runs/own            # a few minutes on two cores
    python examples/own_network.py runs/own --quick    # not trained to the end
"""

import dataclasses
import sys
from pathlib import Path

import numpy as np
import torch
from torch import nn

import algebraformer as af
from algebraformer.models import (
    Body,
    Encoding,
    ModelConfig,
    OperatorConfig,
    TokenConfig,
    register_body,
    register_encoding,
)
from algebraformer.training import Recipe


@register_body("convolution")
class Convolution(Body):
    """Residual blocks: every token sees its neighbours, the further the deeper."""

    def __init__(self, config):
        super().__init__(config)
        self.blocks = nn.ModuleList(Block(config.n_embd, 2**i) for i in range(config.n_layer))
        self.norm = nn.LayerNorm(config.n_embd)

    def forward(self, h, *context):
        for block in self.blocks:
            h = block(h)
        return self.norm(h)


class Block(nn.Module):
    """A convolution over the tokens with a stride between its entries, and a perceptron on each of them."""

    def __init__(self, width, stride):
        super().__init__()
        self.norm = nn.LayerNorm(width)
        self.across = nn.Conv1d(width, width, kernel_size=3, padding=stride, dilation=stride)
        self.within = nn.Sequential(nn.GELU(), nn.Linear(width, width))

    def forward(self, h):
        return h + self.within(self.across(self.norm(h).mT).mT)


@register_encoding("cross")
class Cross(Encoding):
    """Token i is [row i of A, column i of A, b_i]."""

    def token_width(self, n):
        return 2 * n + 1

    def tokens(self, A, b, xp):
        return xp.concatenate((A, A.mT, b[:, :, None]), axis=2)


OPERATOR = OperatorConfig(rank=32, n_column=8, n_row=8)
BODY = Recipe(
    model=ModelConfig(n=16, architecture="convolution", head=OPERATOR, n_layer=3, n_embd=64),
    samples=8_192,
    steps=3_000,
    lr=3e-3,
)
ENCODING = Recipe(model=ModelConfig(n=16, head=TokenConfig(encoding="cross"), n_layer=3, n_head=4, n_embd=64))


def main(folder: Path, quick: bool = False) -> None:
    """Train both, load them, and solve held-out systems with a certificate."""
    for name, recipe in (("body", BODY), ("encoding", ENCODING)):
        recipe = dataclasses.replace(recipe, steps=100) if quick else recipe
        af.train(recipe, folder / name)
        solver = af.LearnedSolver.from_pretrained(folder / name)
        systems = recipe.problem_family().sample(100, seed=1)
        errors = solver.predict(systems.A, systems.b) - systems.x
        relative = np.linalg.norm(errors, axis=1) / np.linalg.norm(systems.x, axis=1)
        answer = solver.solve(systems.A, systems.b)
        shares = [f"{np.mean(answer.method == method):.0%} {method}" for method in sorted(set(answer.method))]
        print(f"own {name}: relative error {np.median(relative):.1e}, then {', '.join(shares)}")


if __name__ == "__main__":
    torch.set_num_threads(1)  # so small a network is slower on several
    words = [word for word in sys.argv[1:] if word != "--quick"]
    main(Path(words[0] if words else "runs/own"), quick="--quick" in sys.argv)
