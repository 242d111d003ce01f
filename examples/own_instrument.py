"""Two instruments of your own, each in about twenty lines: NMR relaxation times, and Abel inversion.

An instrument says where it measures, what its kernel is, what the unknown looks like, and what else is in the data. The
rest is automatic: a network learns from simulated measurements with any number of points and any level of noise.

    python examples/own_instrument.py runs/own            # some eight minutes of processor time for T2
    python examples/own_instrument.py runs/own --quick    # not trained to the end
    algebraformer train examples/own_instrument.py:Abel --output runs/abel    # one of them from the command line
"""

import dataclasses
import sys
from pathlib import Path

import numpy as np

import algebraformer as af
from algebraformer.instruments.figure import comparison_figure
from algebraformer.plotting import save_report
from algebraformer.reporting import print_table


@af.problems.register("t2-relaxation")
class T2(af.instruments.Instrument):
    """Decay of the magnetisation, b(t) = integral of exp(-t / T2) x(T2) d ln T2 + offset; t and T2 in ms."""

    nuisance_names, nuisance_sizes = ("offset",), (0.02,)  # N(0, 0.02^2), where x has mean 1
    abscissa_label, grid_label, x_label = "time / ms", "T2 / ms", "distribution"

    def draw_abscissa(self, rng, points):
        m, spacing = points or rng.integers(50, 500), np.exp(rng.uniform(np.log(0.1), np.log(2.0)))
        return spacing * np.arange(1, m + 1)

    def grid(self, t):
        return np.geomspace(t[0] / 3, 3 * t[-1], self.n)

    def kernel(self, t, T):
        return np.exp(-t[:, None] / T) / self.n

    def columns(self, t):
        return np.full((len(t), 1), 0.02)

    def draw_signal(self, rng, T):
        return af.instruments.peaks(rng, self.n, count=(1, 3), places=(0.1, 0.9), widths=(0.015, 0.1))


@af.problems.register("abel")
class Abel(af.instruments.Instrument):
    """Emission of a round flame seen from the side, b(y) = 2 integral of x(r) r / sqrt(r^2 - y^2) dr + offset.

    Lateral positions y and radii r are in units of the outer radius.
    """

    nuisance_names, nuisance_sizes = ("offset",), (0.2,)
    abscissa_label, grid_label, x_label = "y / R", "r / R", "emission"

    def draw_abscissa(self, rng, points):
        return np.linspace(rng.uniform(0, 0.02), 1, points or rng.integers(40, 300))

    def kernel(self, y, r):
        edges = np.arange(self.n + 1) / self.n  # chords through rings in which x is constant
        half = np.sqrt(np.maximum(edges**2 - y[:, None] ** 2, 0))
        return 2 * np.diff(half, axis=1)

    def columns(self, y):
        return np.full((len(y), 1), 0.2)


def main(folder: Path, quick: bool = False) -> None:
    """Train a network for each, and compare it with classical methods on held-out measurements."""
    for instrument in (T2(n=20), Abel(n=20)) if quick else (T2(), Abel()):
        recipe = af.recipe_for(instrument)  # af.train(instrument, folder) does this automatically
        if quick:
            few = dict.fromkeys(("scaler_samples", "calibration_samples", "validation_systems", "test_systems"), 160)
            recipe = dataclasses.replace(recipe, samples=640, steps=15, **few)
        af.train(recipe, folder / instrument.name)
        model = af.instruments.load(folder / instrument.name)
        report = af.instruments.compare(model, 48 if quick else 1024)
        for table in report.tables:
            print_table(table)
        print("\n".join(report.conclusions))
        save_report(report, folder / instrument.name, draw=comparison_figure)

        measured = instrument.simulate([0], seed=1)  # in place of your own abscissae and data
        found = model(measured.abscissa, measured.data[0])
        print(f"One measurement: {found.explain()}")
    print(f"Files in {folder}/*/: model/, report.json, report.md, report.png")


if __name__ == "__main__":
    words = [word for word in sys.argv[1:] if word != "--quick"]
    main(Path(words[0] if words else "runs/own"), quick="--quick" in sys.argv)
