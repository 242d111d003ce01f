"""A photograph, blurred along its lines as by a camera that moved, with noise: recovered line by line in three ways.

The picture comes with scikit-learn. Every line of a patch of it is one system b = A x + e: A blurs by a Gaussian as in
the family "deblur", e is noise of one per cent. No signal of this kind was in any training set.

- Tikhonov regularisation with first differences, its parameter by cross-validation: uses A and b alone.
- Total variation by the discrepancy principle: needs the norm of the noise.
- The model: uses A and b alone, and returns standard deviations and a check of whether the estimate fits the data.

Run it at the root of the repository, for the classical methods in `studies`:

    python -m examples.photograph photograph                    # with the shipped deblur-64
    python -m examples.photograph photograph --model FOLDER     # with a model of your own, of any size
"""

import argparse
import time
import warnings
from pathlib import Path

import numpy as np
from matplotlib.figure import Figure
from sklearn.datasets import load_sample_image

import algebraformer as af
from algebraformer.errors import InconsistentWarning
from algebraformer.numerics import regularization
from algebraformer.plotting import save
from algebraformer.reporting import TableData, print_table, write_results
from studies.baselines import sparse

WIDTH = 0.025
NOISE = 0.01
SHRINK = 4
"""Pixels of the photograph, in each direction, that are averaged into one of ours."""
CORNER = (24, 60)
"""First line and first column of the patch."""


def patch(lines: int, n: int) -> np.ndarray:
    """Return a patch of the photograph as brightness from 0 to 1, shape (lines, n)."""
    grey = load_sample_image("china.jpg").mean(axis=2) / 255
    rows, columns = (size // SHRINK for size in grey.shape)
    small = grey[: rows * SHRINK, : columns * SHRINK].reshape(rows, SHRINK, columns, SHRINK).mean(axis=(1, 3))
    return small[CORNER[0] : CORNER[0] + lines, CORNER[1] : CORNER[1] + n]


def measure(x: np.ndarray, m: int) -> tuple[np.ndarray, np.ndarray, float]:
    """Return the camera's matrix (m, n), blurred and noisy lines (lines, m), and the norm of the noise in a line."""
    camera = af.problems.get("deblur", n=x.shape[1], m=m, width=(WIDTH, WIDTH), varying=0.0)
    A = camera.sample(1).A[0]
    clean = x @ A.T
    deviation = NOISE * np.sqrt(np.mean(clean**2))
    return A, clean + deviation * np.random.default_rng(0).standard_normal(clean.shape), float(deviation * np.sqrt(m))


def main(folder: Path, model: str | None = "deblur-64", lines: int = 64) -> None:
    """Blur, recover, compare, plot."""
    solver = None
    if model is not None and (model in af.pretrained_names() or Path(model).exists()):
        solver = af.LearnedSolver.from_pretrained(model)
    n, m = (64, 64) if solver is None else (solver.n, solver.network.config.n_equations)
    x = patch(lines, n)
    A, b, noise_norm = measure(x, m)
    grey = b.mean(axis=1, keepdims=True) / A.sum(axis=1).mean()  # about the mean brightness of each line
    rest = b - grey * A.sum(axis=1)

    def tikhonov() -> np.ndarray:
        path = regularization.tikhonov(regularization.decompose(np.tile(A, (lines, 1, 1)), order=1), rest)
        return path.chosen(regularization.cross_validation(path))

    def total_variation() -> np.ndarray:
        return np.array([sparse.total_variation(A, line).by_discrepancy(A, line, noise_norm) for line in rest])

    def learned() -> np.ndarray:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", InconsistentWarning)  # counted below
            estimate = solver.estimate(np.tile(A, (lines, 1, 1)), rest)
        half = estimate.interval[1] - estimate.x
        about["consistent"] = float(estimate.consistent.mean())
        about["in_distribution"] = float(estimate.in_distribution.mean())
        about["coverage"] = float(np.mean(np.abs(estimate.x + grey - x) <= half))
        band.append(half)
        return estimate.x

    about: dict[str, float] = {}
    band: list[np.ndarray] = []
    methods = {"Tikhonov, cross-validation": tikhonov, "total variation, discrepancy": total_variation}
    if solver is None:
        print(f"no model {model}: only classical methods (algebraformer train deblur-64 makes one)")
    else:
        methods["learned"] = learned
    pictures, rows = {"photograph": x, "blurred, with noise": b}, []
    for name, method in methods.items():
        start = time.perf_counter()
        pictures[name] = method() + grey
        seconds = time.perf_counter() - start
        errors = np.linalg.norm(pictures[name] - x, axis=1) / np.linalg.norm(x - grey, axis=1)
        rows.append([name, float(np.median(errors)), float(np.quantile(errors, 0.9)), 1e3 * seconds / lines])
    columns = ("method", "relative error, median", "90 % below", "ms per line")
    title = f"{lines} lines of a photograph, noise {NOISE:g}; errors relative to the variation within a line"
    table = TableData(columns, rows, title)
    print_table(table)
    for name, value in about.items():
        print(f"{name}: {100 * value:.3g} %")
    folder.mkdir(parents=True, exist_ok=True)
    write_results(folder / "photograph.json", command="examples/photograph.py", table=table, **about)
    save(figure(pictures, band), folder / "photograph.png")
    print(f"Files in {folder}/: photograph.json, photograph.png")


def figure(pictures: dict[str, np.ndarray], band: list[np.ndarray]) -> Figure:
    """Draw the patches side by side, and the middle line below them."""
    drawn = Figure(figsize=(3 * len(pictures), 6.2), layout="constrained")
    above, below = drawn.subfigures(2, 1, height_ratios=(1, 1))
    for axes, (name, picture) in zip(above.subplots(1, len(pictures)), pictures.items(), strict=True):
        axes.imshow(picture, cmap="gray", vmin=0, vmax=1, aspect="auto")
        axes.set(title=name, xticks=[], yticks=[])
    axes = below.subplots()
    for (name, picture), style in zip(pictures.items(), ("k-", "C7:", "C1-", "C2-", "C0-"), strict=False):
        line = picture[len(picture) // 2]
        places = (np.arange(len(line)) + 0.5) / len(line)
        axes.plot(places, line, style, linewidth=2.5 if name == "photograph" else 1.2, label=name)
        if name == "learned":
            half = band[0][len(picture) // 2]
            axes.fill_between(places, line - half, line + half, color="C0", alpha=0.2, label="its 90 % intervals")
    axes.set(title="the line in the middle", xlabel="position", ylabel="brightness")
    axes.grid(alpha=0.3)
    axes.legend(fontsize="small", ncols=3)
    return drawn


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path, nargs="?", default=Path("photograph"))
    parser.add_argument("--model", default="deblur-64")
    words = parser.parse_args()
    main(words.folder, words.model)
