"""A family of your own in twenty lines: an elastic beam, tapered, compressed, on a patch of elastic ground.

    (EI w'')'' + N w'' + k(x) w = q,   w = EI w'' = 0 at both ends of [0, 1],

by central differences, with EI(x) = 1 + taper x and k(x) = stiffness exp(-((x - centre) / 0.15)^2). Four numbers
determine the matrix: the taper, the load N, the stiffness of the ground and its centre.

    python examples/own_family.py runs/beam            # a few minutes on two cores
    python examples/own_family.py runs/beam --quick    # a small one, not trained to the end
    algebraformer train examples/own_family.py:Beam --output runs/beam    # the same from the command line
"""

import dataclasses
import sys
from pathlib import Path

import numpy as np

import algebraformer as af
from algebraformer.assessment import assess
from algebraformer.plotting import save_report
from algebraformer.reporting import print_table
from algebraformer.training.automatic import recipe_for


@af.problems.register("beam")
@dataclasses.dataclass(frozen=True, kw_only=True)
class Beam(af.problems.ProblemFamily):
    """Deflection of a tapered, compressed beam on a patch of elastic ground."""

    def draw(self, rng):
        low, high = [0.0, 0.0, 0.0, 0.2], [2.0, 8.0, 1e4, 0.8]
        return {"beam": rng.uniform(low, high), "q": rng.standard_normal(self.n)}

    def assemble(self, params):
        taper, load, stiffness, centre = params["beam"].T[:, :, None]  # (B, 1) each
        x = np.arange(1, self.n + 1) / (self.n + 1)
        D = (np.eye(self.n, k=1) + np.eye(self.n, k=-1) - 2 * np.eye(self.n)) * (self.n + 1) ** 2
        k = stiffness * np.exp(-(((x - centre) / 0.15) ** 2))  # (B, n)
        A = (D * (1 + taper * x)[:, None, :]) @ D + load[:, :, None] * D + k[:, :, None] * np.eye(self.n)
        return A, params["q"]


def main(folder: Path, quick: bool = False) -> None:
    """Train, assess, write the report, and solve held-out systems."""
    family = Beam(n=16 if quick else 64)
    recipe = recipe_for(family)  # af.train(family, folder) does this automatically
    if quick:
        recipe = dataclasses.replace(recipe, samples=4_000, steps=150)
    result = af.train(recipe, folder)
    report = assess(folder)
    for table in report.tables:
        print_table(table)
    print("\n".join(report.conclusions))
    save_report(report, folder)

    systems = family.sample(3, seed=1)
    answer = af.LearnedSolver.from_pretrained(result.folder).solve(systems.A, systems.b)
    for method, refinements, residual in zip(answer.method, answer.refinements, answer.relative_residual, strict=True):
        print(f"{method} in {refinements} refinements: relative residual {residual:.1e}")
    print(f"Files in {folder}/: model/, report.json, report.md, report.png")


if __name__ == "__main__":
    words = [word for word in sys.argv[1:] if word != "--quick"]
    main(Path(words[0] if words else "runs/beam"), quick="--quick" in sys.argv)
