"""A body and an encoding of your own, each in a few lines: convolutions along the grid, which read rows and columns of A.

Both have names in a recipe, in Python or on the command line, and their networks are saved, loaded and certified like any
other. This module has to be imported before such a checkpoint is loaded; the error says so.

    python examples/own_network.py runs/convolution            # some minutes on two cores
    python examples/own_network.py runs/convolution --quick    # not trained to the end
"""

import dataclasses
import sys
from pathlib import Path

import torch
from torch import nn

import algebraformer as af
from algebraformer.models import Body, Encoding, ModelConfig, TokenConfig, register_body, register_encoding
from algebraformer.training import Recipe


@register_body("convolution")
class Convolution(Body):
    """Residual blocks: every token sees its neighbours on the grid, the further the deeper."""

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


MODEL = ModelConfig(n=16, architecture="convolution", head=TokenConfig(encoding="cross"), n_layer=4, n_embd=64)
RECIPE = Recipe(family="reaction-diffusion", model=MODEL, steps=8_000)


def main(folder: Path, quick: bool = False) -> None:
    """Train, load, and solve held-out systems with a certificate."""
    recipe = dataclasses.replace(RECIPE, steps=200) if quick else RECIPE
    result = af.train(recipe, folder)
    print(f"median relative error of the bare network: {result.scores['relative_error_median']:.1e}")

    solver = af.LearnedSolver.from_pretrained(folder)
    systems = recipe.problem_family().sample(100, seed=1)
    answer = solver.solve(systems.A, systems.b)
    print(f"certified: {answer.certified.mean():.0%}, by {' and '.join(sorted(set(answer.method)))}")


if __name__ == "__main__":
    torch.set_num_threads(1)  # so small a network is slower on several
    words = [word for word in sys.argv[1:] if word != "--quick"]
    main(Path(words[0] if words else "runs/convolution"), quick="--quick" in sys.argv)
