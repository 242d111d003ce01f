"""Distances from a measured DEER trace: P(r) with bands, the classical answers, and whether the fit leaves noise alone.

The trace is one of `examples/data/deer`, or a file of your own. If DeerLab is installed, the figure has its answer.

    python examples/distances.py distances                                         # all five traces
    python examples/distances.py distances --file mine.DTA --zero-time 0.4
"""

import argparse
import warnings
from pathlib import Path

import numpy as np

import algebraformer as af
from algebraformer.instruments import Inversion
from algebraformer.instruments.files import read_trace
from algebraformer.plotting import save
from algebraformer.reporting import TableData, print_table, write_results

DATA = Path(__file__).parent / "data" / "deer"


def deerlab(found: Inversion) -> np.ndarray | None:
    """Return P(r) by DeerLab's defaults on the same data and distances; None if DeerLab is not installed."""
    try:
        import deerlab as dl
    except ImportError:
        return None
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        model = dl.dipolarmodel(found.abscissa, found.grid, Bmodel=dl.bg_hom3d)
        model.reftime.set(par0=0.0, lb=-0.05, ub=0.05)
        return np.asarray(dl.fit(model, found.data / np.abs(found.data).max()).P)


def main(folder: Path, files: list[Path] | None = None, zero_time: float | None = None, model: str = "deer") -> None:
    """Invert, compare, plot."""
    folder.mkdir(parents=True, exist_ok=True)
    rows = []
    for file in files or sorted(DATA.glob("*.csv")):
        found = af.instruments.deer(*read_trace(file), zero_time=zero_time, model=model)
        answers = {"GCV + NNLS": found.classical.x, "DeerLab": deerlab(found)}
        save(found.plot({name: P for name, P in answers.items() if P is not None}), folder / f"{file.stem}.png")

        # Of joint samples: their mean distances have the error of the mean distance.
        samples = found.samples(1000)
        mean = samples @ found.grid / samples.sum(axis=1)
        depth, error = found.nuisance["modulation_depth"], found.nuisance_std["modulation_depth"]
        rows.append([
            file.stem, float(found.grid[np.argmax(found.x)]), float(mean.mean()), float(mean.std()), depth, error,
            found.noise / found.nuisance["amplitude"], found.consistent, found.in_distribution,
        ])  # fmt: skip
        print(f"{file.stem}: {found.explain()}")
        print_residuals(found)
    columns = ("trace", "peak / nm", "mean / nm", "±", "depth", "±", "noise / V(0)", "consistent", "in distribution")
    table = TableData(columns, rows, "Distances")
    print_table(table)
    write_results(folder / "distances.json", command="examples/distances.py", table=table)
    print(f"Files in {folder}/: distances.json, and a PNG for each trace")


def print_residuals(found: Inversion) -> None:
    """Print what the residuals look like, with the range of noise."""
    failed = found.unlike_noise()
    for name, value in found.checks.items():
        low, high = found.limits[name]
        print(f"  {name:<10} {value:6.2f}   noise: {low:.2f} to {high:.2f}{'   NOT NOISE' if name in failed else ''}")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path, nargs="?", default=Path("distances"))
    parser.add_argument("--file", type=Path)
    parser.add_argument("--zero-time", type=float, help="in microseconds")
    parser.add_argument("--model", default="deer")
    arguments = parser.parse_args()
    main(arguments.folder, [arguments.file] if arguments.file else None, arguments.zero_time, arguments.model)
