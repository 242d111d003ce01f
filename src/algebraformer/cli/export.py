"""The command that writes a network for another runtime."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Annotated, Literal

import tyro

from algebraformer.cli.output import DONE, emit, show
from algebraformer.writing import check_file


@dataclasses.dataclass(frozen=True)
class Export:
    """Write the network's part of a model for another runtime: from tokens to what the network returns of them.

    Reading, scaling, refinement and certificate stay in NumPy.
    """

    model: Annotated[str, tyro.conf.Positional, tyro.conf.arg(metavar="MODEL")]
    """Name of a shipped model, or folder of a checkpoint or of a training run."""
    output: Annotated[Path, tyro.conf.arg(metavar="FILE")]
    """File to write."""
    format: Literal["onnx", "torch"] = "onnx"
    """onnx: for ONNX runtimes. torch: for torch.export.load."""
    json: bool = False
    """Print one JSON object instead of a table."""

    def run(self) -> int:
        from algebraformer import export
        from algebraformer.solver import LearnedSolver

        check_file(self.output)
        solver = LearnedSolver.from_pretrained(self.model)
        found = export.save(solver.network, self.output, self.format)
        if self.json:
            about = {"model": solver.info.name, "format": self.format, "file": str(self.output)}
            emit(about | dataclasses.asdict(found))
            return DONE
        sides = (("input", found.inputs), ("output", found.outputs))
        rows = [[side, name, " x ".join(map(str, shape))] for side, part in sides for name, shape in part.items()]
        show(f"{solver.info.name} in {self.output}, float32", ("", "name", "shape"), rows)
        return DONE
