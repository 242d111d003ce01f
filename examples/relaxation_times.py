"""Relaxation times from a measured impedance spectrum, with bands and whether the fit leaves noise alone.

The spectrum is one of `examples/data/eis`, or a file of your own. If pyDRTtools is installed, the figure has
its answer.

    python examples/relaxation_times.py times                                      # all six spectra
    python examples/relaxation_times.py times --file mine.csv
"""

import argparse
import contextlib
import io
import warnings
from pathlib import Path
from unittest import mock

import numpy as np

import algebraformer as af
from algebraformer.instruments import Inversion
from algebraformer.instruments.files import read_spectrum
from algebraformer.plotting import save
from algebraformer.reporting import TableData, print_table, write_results

DATA = Path(__file__).parent / "data" / "eis"


def pydrttools(found: Inversion) -> np.ndarray | None:
    """Return gamma by pyDRTtools with cross-validation, at our times; None if pyDRTtools is not installed."""
    f, Z = found.abscissa[::-1], found.data[::-1]
    with warnings.catch_warnings(), contextlib.redirect_stdout(io.StringIO()), mock.patch("matplotlib.use"):
        warnings.simplefilter("ignore")
        try:
            from pyDRTtools import runs  # with its window, for which it asks matplotlib for Qt, and progress on stdout
        except ImportError:
            return None
        entry = runs.simple_run(runs.EIS_object(f, Z.real, Z.imag), cv_type="GCV")
    order = np.argsort(entry.out_tau_vec)
    tau, gamma = np.asarray(entry.out_tau_vec)[order], np.asarray(entry.gamma)[order]
    return np.interp(np.log(found.grid), np.log(tau), gamma, left=np.nan, right=np.nan)


def main(folder: Path, files: list[Path] | None = None, model: str = "drt") -> None:
    """Invert, compare, plot."""
    folder.mkdir(parents=True, exist_ok=True)
    rows = []
    for file in files or sorted(DATA.glob("*.csv")):
        found = af.instruments.drt(*read_spectrum(file), model=model)
        answers = {"GCV + NNLS": found.classical.x, "pyDRTtools": pydrttools(found)}
        save(
            found.plot({name: gamma for name, gamma in answers.items() if gamma is not None}),
            folder / f"{file.stem}.png",
        )

        # Of joint samples: their integrals have the error of the polarisation resistance.
        resistance = np.trapezoid(found.samples(1000), np.log(found.grid), axis=1)
        rows.append([
            file.stem, float(found.grid[np.argmax(found.x)]), float(resistance.mean()), float(resistance.std()),
            found.nuisance["R_inf"], found.nuisance_std["R_inf"], found.nuisance["inductance"],
            found.noise, found.consistent, found.in_distribution,
        ])  # fmt: skip
        print(f"{file.stem}: {found.explain()}")
        print_residuals(found)
    columns = (
        "spectrum", "peak / s", "polarisation / ohm", "±", "R_inf / ohm", "±", "L / H", "noise / ohm", "consistent",
        "in distribution",
    )  # fmt: skip
    table = TableData(columns, rows, "Relaxation times")
    print_table(table)
    write_results(folder / "relaxation_times.json", command="examples/relaxation_times.py", table=table)
    print(f"Files in {folder}/: relaxation_times.json, and a PNG for each spectrum")


def print_residuals(found: Inversion) -> None:
    """Print what the residuals look like, with the range of noise."""
    failed = found.unlike_noise()
    for name, value in found.checks.items():
        low, high = found.limits[name]
        print(f"  {name:<10} {value:6.2f}   noise: {low:.2f} to {high:.2f}{'   NOT NOISE' if name in failed else ''}")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path, nargs="?", default=Path("relaxation_times"))
    parser.add_argument("--file", type=Path)
    parser.add_argument("--model", default="drt")
    arguments = parser.parse_args()
    main(arguments.folder, [arguments.file] if arguments.file else None, arguments.model)
