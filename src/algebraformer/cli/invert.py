"""The command `invert`: a density from a measurement by a known instrument."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Annotated, Literal

import numpy as np
import tyro

from algebraformer.cli.output import DONE, FALLBACK, check_figure, emit, paths, show_paths
from algebraformer.errors import ConfigurationError
from algebraformer.writing import check_file, write_bytes


@dataclasses.dataclass(frozen=True)
class Invert:
    """Read a DEER trace or an impedance spectrum and find the distribution of distances or relaxation times.

    Traces: Bruker's BES3T (.DTA, .DSC) or text with the columns time, real and imaginary part. Spectra: text with the
    columns frequency, real and imaginary part, in any order if they have names. Exit codes: 0 consistent and in
    distribution, 3 not (then the classical answer is reported as well), 2 bad input.
    """

    instrument: Annotated[Literal["deer", "drt"], tyro.conf.Positional]
    """deer: distances from a trace. drt: relaxation times from an impedance spectrum."""
    file: Annotated[Path, tyro.conf.Positional]
    """File with the measurement."""
    model: str | None = None
    """A shipped network or a folder with one's own; by default the shipped one for the instrument."""
    time_unit: Literal["s", "ms", "us", "ns"] | None = None
    """Unit of the times, where the file does not say it; traces only."""
    part: Literal["both", "real", "imag"] = "both"
    """Part of the impedance to invert; spectra only."""
    zero_time: float | None = None
    """Time of the zero in microseconds; found from the trace if not given; traces only."""
    output: Annotated[Path | None, tyro.conf.arg(metavar="FILE")] = None
    """CSV file for the grid, x, and the ends of the 50, 90 and 95 % bands."""
    figure: Annotated[Path | None, tyro.conf.arg(metavar="FILE")] = None
    """File for a PNG of data, fit, residuals and density."""
    json: bool = False
    """Print one JSON object instead of text."""

    def run(self) -> int:
        check_table(self.output)
        check_figure(self.figure)
        from algebraformer import instruments
        from algebraformer.instruments.files import read_spectrum, read_trace

        if self.instrument == "deer":
            if self.part != "both":
                raise ValueError(f"--part is for impedance spectra, received a trace and {self.part!r}")
            trace = read_trace(self.file, time_unit=self.time_unit)
            found = instruments.deer(trace.time_us, trace.echo, zero_time=self.zero_time, model=self.model or "deer")
        else:
            if self.time_unit is not None or self.zero_time is not None:
                raise ValueError("--time-unit and --zero-time are for traces, received an impedance spectrum")
            spectrum = read_spectrum(self.file, part=self.part)
            found = instruments.drt(*spectrum, part=self.part, model=self.model or "drt")
        trusted = bool(found.consistent and found.in_distribution)

        # What was found, with the classical answer where the network's is not to be trusted.
        if self.output is not None:
            table = [found.grid, found.x, *(end for level in (0.5, 0.9, 0.95) for end in found.band(level))]
            names = [found.grid_name, "x", "low_50", "high_50", "low_90", "high_90", "low_95", "high_95"]
            write_csv(self.output, names, np.stack(table, axis=1))
        if self.figure is not None:
            from algebraformer.plotting import save

            save(found.plot(), self.figure)
        if self.json:
            record = found.record() | paths(self, "output", "figure")
            if not trusted:
                record["classical"] = {"x": found.classical.x.tolist(), "nuisance": finite(found.classical.nuisance)}
            emit(record)
        else:
            print(found.explain())
            if not trusted:
                said = ", ".join(f"{name} {value:.3g}" for name, value in found.classical.nuisance.items())
                print(f"classical: {said}")
            show_paths(self)
        return DONE if trusted else FALLBACK


def check_table(path: Path | None) -> None:
    """Raise an error, before the work begins, if a table cannot be written to this file."""
    if path is not None:
        if path.suffix.lower() != ".csv":
            raise ConfigurationError(f"--output writes CSV: expected a name that ends in .csv, received {str(path)!r}")
        check_file(path)


def finite(values: dict[str, float]) -> dict[str, float | None]:
    """Return numbers with None for those that are not finite."""
    return {name: value if np.isfinite(value) else None for name, value in values.items()}


def write_csv(path: Path, names: list[str], table: np.ndarray) -> None:
    """Write columns with names, whole or not at all."""
    lines = [",".join(names), *(",".join(f"{value:.6g}" for value in row) for row in table)]
    write_bytes(path, ("\n".join(lines) + "\n").encode())
