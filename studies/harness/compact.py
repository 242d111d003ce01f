"""Store the linear layers of a checkpoint as 16-bit integers, which halves its size and keeps its scores.

    python -m studies.harness.compact FOLDER [--also TENSOR ...]

A weight W (rows, columns) becomes integers Q and one scale per row, W = scale Q. Rounding to the nearest integer would
make the most accurate networks up to twice as inaccurate: hidden features of a family are strongly correlated, and so
are then the effects of the rounding errors. `rounded` rounds column after column instead, and after each one corrects
the columns that are left, so that the outputs of the layer on the family change as little as possible [1]_.

References
----------
.. [1] E. Frantar, S. Ashkboos, T. Hoefler, D. Alistarh, "GPTQ: Accurate post-training quantization for generative
   pre-trained transformers", ICLR 2023.
"""

from __future__ import annotations

import dataclasses
from pathlib import Path

import safetensors.torch
import torch
import tyro
from torch import Tensor, nn

from algebraformer.checkpoint import CONFIG, MODEL, SCALE, load, read_folder, write_folder
from algebraformer.models import Algebraformer
from algebraformer.problems.base import SCALER_SEED
from algebraformer.progress import batches
from algebraformer.solver import LearnedSolver

LARGEST = 2**15 - 1
MIN_ENTRIES = 1024
"""Smaller weights stay as they are: they do not matter for the size."""
SYSTEMS, BATCH = 3000, 250
"""Systems of the family on which the outputs are kept, and how many of them are predicted at once."""
DAMPING = 1e-6
"""Added to the second moments of a layer's inputs, as a share of their mean."""


def second_moments(solver: LearnedSolver, systems: int = SYSTEMS) -> dict[str, Tensor]:
    """Return by name of a linear layer the sum of h h^T (columns, columns) over its inputs h on the family."""
    found: dict[str, Tensor] = {}

    def watch(name: str, layer: nn.Linear) -> torch.utils.hooks.RemovableHandle:
        def add(_: nn.Module, inputs: tuple[Tensor, ...], __: Tensor) -> None:
            h = inputs[0].detach().flatten(0, -2).double()
            found[name] = found.get(name, 0) + h.T @ h

        return layer.register_forward_hook(add)

    handles = [watch(name, layer) for name, layer in layers(solver.model).items()]
    answering, family = LearnedSolver(solver.model, solver.info), solver.info.problem_family()
    for indices in batches(systems, BATCH):
        drawn = family.at(indices, SCALER_SEED)
        answering.predict(drawn.A, drawn.b)
    for handle in handles:
        handle.remove()
    return found


def layers(model: Algebraformer) -> dict[str, nn.Linear]:
    """Return the linear layers that are worth it, by name."""
    every = {name: layer for name, layer in model.named_modules() if isinstance(layer, nn.Linear)}
    return {name: layer for name, layer in every.items() if layer.weight.numel() >= MIN_ENTRIES}


def rounded(W: Tensor, moments: Tensor) -> tuple[Tensor, Tensor]:
    """Return integers Q (rows, columns), int16, and scales (rows,), float32, with scale Q close to W on its inputs.

    Parameters
    ----------
    W : Tensor, shape (rows, columns)
    moments : Tensor, shape (columns, columns), float64
        Sum of h h^T over the inputs h of the layer.
    """
    # The columns with the largest inputs come first: most others are left to correct their errors.
    order = moments.diagonal().argsort(descending=True)
    W, H = W.detach().double()[:, order], moments[order][:, order]
    H = H + DAMPING * H.diagonal().mean() * torch.eye(len(H), dtype=H.dtype)
    scale = scales(W, LARGEST - 32)  # corrected entries may be a little larger

    # H^-1 = U^T U with U upper triangular, from a square root of H^-1: its inverse itself would not be definite.
    values, vectors = torch.linalg.eigh(H)
    U = torch.linalg.qr((vectors / values.sqrt()).T).R

    Q = torch.zeros_like(W)
    for j in range(W.shape[1]):
        Q[:, j] = (W[:, j] / scale).round().clamp(-LARGEST, LARGEST)
        error = (W[:, j] - scale * Q[:, j]) / U[j, j]
        W[:, j + 1 :] -= error[:, None] * U[j, j + 1 :]
    return Q[:, order.argsort()].to(torch.int16), scale


def nearest(T: Tensor) -> tuple[Tensor, Tensor]:
    """Return integers Q (rows, ...), int16, and scales (rows,), float32, with scale Q close to T."""
    scale = scales(T, LARGEST)
    return (T / scale.view(-1, *[1] * (T.ndim - 1))).round().clamp(-LARGEST, LARGEST).to(torch.int16), scale


def scales(T: Tensor, largest: int) -> Tensor:
    """Return the scale (rows,), float32, with which the largest entry of each row becomes `largest`."""
    scale = (T.abs().flatten(1).amax(dim=1) / largest).float()
    return torch.where(scale > 0, scale, 1.0)


@dataclasses.dataclass(frozen=True)
class Compact:
    """Store the linear layers of a checkpoint as 16-bit integers, in place."""

    folder: tyro.conf.Positional[Path]
    """Folder of the checkpoint."""
    also: tuple[str, ...] = ()
    """Other tensors that are stored so, rounded to nearest."""

    def run(self) -> None:
        """Rewrite the folder; config.json stays the same bytes."""
        files, solver = read_folder(self.folder), LearnedSolver(*load(self.folder))
        tensors = safetensors.torch.load(files[MODEL])
        for name, moments in second_moments(solver).items():
            weight = f"{name}.weight"
            tensors[weight], tensors[weight + SCALE] = rounded(tensors[weight], moments)
        for name in self.also:
            tensors[name], tensors[name + SCALE] = nearest(tensors[name])
        write_folder(self.folder, {MODEL: safetensors.torch.save(tensors), CONFIG: files[CONFIG]})


if __name__ == "__main__":
    tyro.cli(Compact).run()
