"""Measurements by instruments: densities with bands from noisy data, by networks that know the instrument.

- `deer`, `drt`: distances from DEER traces, relaxation times from impedance spectra, by the shipped networks.
- `Instrument`, `load`, `compare`: an own instrument, trained by `training.train`. `peaks`, `smooth_density`: signals
  for it. `adapt`: training further on measurements whose truth nobody knows.
- `files`: file formats. `classical`: the classical answers. `traces`: phase and zero time.
"""

from __future__ import annotations

import functools
from pathlib import Path

from numpy.typing import ArrayLike

from algebraformer.checkpoint import resolve
from algebraformer.errors import ConfigurationError
from algebraformer.instruments.adaptation import adapt
from algebraformer.instruments.comparison import compare
from algebraformer.instruments.deer import DeerInversion, DeerModel
from algebraformer.instruments.drt import DrtInversion, DrtModel
from algebraformer.instruments.inversion import Inversion, Model, load_model
from algebraformer.problems.custom import as_family, family_from_file
from algebraformer.problems.instruments import Deer, Drt, Instrument
from algebraformer.problems.instruments.priors import peaks, smooth_density

__all__ = [
    "DeerInversion",
    "DrtInversion",
    "Instrument",
    "Inversion",
    "Model",
    "adapt",
    "compare",
    "deer",
    "drt",
    "load",
    "peaks",
    "smooth_density",
]
KINDS: dict[type[Instrument], type[Model]] = {Deer: DeerModel, Drt: DrtModel}
"""Instruments that take their data in a way of their own."""


def deer(
    time_us: ArrayLike, trace: ArrayLike, *, zero_time: float | None = None, model: str | Path = "deer"
) -> Inversion:
    """Return the distribution of distances that a trace of four-pulse DEER holds.

    Modulation depth, background, amplitude and noise are not known to the network but found by it. A complex trace has
    its phase corrected. Distances reach from 1.5 nm to 5 nm (length / 1 us)^(1/3), at most 10 nm.

    Parameters
    ----------
    time_us : array_like, shape (m,)
        Times in us, ascending, equally spaced or not.
    trace : array_like, shape (m,) or (B, m)
        Real or complex, in any unit; an array of NumPy, torch, JAX or CuPy, and the same kind comes out.
    zero_time : float, optional
        Time of the zero in us; found from the trace, which is symmetric about it, if not given. A trace that begins
        after its zero needs it.
    model : str or path
        A shipped network or a folder with one's own.

    Returns
    -------
    DeerInversion

    Raises
    ------
    ValueError
        Times do not ascend, are in other units, or there are not as many data; something is not finite, zero
        throughout or upside down; the zero lies outside or cannot be found.

    Examples
    --------
    >>> import numpy as np, algebraformer as af
    >>> from algebraformer.problems.instruments.dipolar import dipolar_kernel
    >>> t, rng = np.linspace(-0.1, 3.0, 200), np.random.default_rng(0)
    >>> V = (0.7 + 0.3 * dipolar_kernel(t, np.array([3.5]))[:, 0]) * np.exp(-0.1 * np.abs(t))
    >>> found = af.instruments.deer(t, V + 0.01 * rng.standard_normal(200))
    >>> float(found.r[np.argmax(found.x)].round(1)), found.consistent
    (3.5, True)
    """
    network = load(model)
    if not isinstance(network, DeerModel):
        raise ValueError(f"{network.info.name} inverts {network.instrument.name}, not DEER traces")
    return network(time_us, trace, zero_time)


def drt(frequency_hz: ArrayLike, impedance: ArrayLike, *, part: str = "both", model: str | Path = "drt") -> Inversion:
    """Return the distribution of relaxation times that an impedance spectrum holds.

    Resistance, inductance and capacitance in series and the noise, equal everywhere or proportional to |Z|, are not
    known to the network but found by it. Times reach half a decade beyond 1 / (2 pi f) at either end.

    Parameters
    ----------
    frequency_hz : array_like, shape (m,)
        In Hz, not rad/s; ascending or descending.
    impedance : array_like of complex, shape (m,) or (B, m)
        In ohm; Im Z < 0 for whatever relaxes. An array of NumPy, torch, JAX or CuPy, and the same kind comes out.
    part : {"both", "real", "imag"}
        What is known of the impedance; with one part, the impedance may be an array of real numbers.
    model : str or path
        A shipped network or a folder with one's own.

    Returns
    -------
    DrtInversion

    Raises
    ------
    ValueError
        Frequencies are not positive, not in order or repeat, or there are not as many data; something is not finite or
        zero throughout; a part has the wrong sign.

    Examples
    --------
    >>> import numpy as np, algebraformer as af
    >>> f, rng = np.logspace(5, -1, 61), np.random.default_rng(0)
    >>> Z = 10 + 50 / (1 + (2j * np.pi * f * 1e-2) ** 0.8)
    >>> Z *= 1 + 1e-3 * (rng.standard_normal(61) + 1j * rng.standard_normal(61))
    >>> found = af.instruments.drt(f, Z)
    >>> bool(abs(np.log10(found.tau[np.argmax(found.x)]) + 2) < 0.2), round(found.nuisance["R_inf"])
    (True, 10)
    """
    network = load(model)
    if not isinstance(network, DrtModel):
        raise ValueError(f"{network.info.name} inverts {network.instrument.name}, not impedance spectra")
    return network(frequency_hz, impedance, part)


def load(name_or_folder: str | Path, instrument: Instrument | type[Instrument] | str | None = None) -> Model:
    """Return a trained network for an instrument, to be called with abscissae and data.

    Parameters
    ----------
    name_or_folder : str or path
        A shipped network, or the folder of a training.
    instrument : Instrument, class of one, or "FILE.py:NAME", optional
        An own instrument, in a process that has not used it yet: a folder holds its name and settings, not its code.
        The settings are those of the training.

    Returns
    -------
    Model
        `model(abscissa, data)` returns an `Inversion`, with arrays of the kind of the data.

    Raises
    ------
    CheckpointError
        Something about the folder is wrong.
    ConfigurationError
        The network there inverts no measurements, or those of another instrument.
    UnknownNameError
        The instrument is an own one that this process does not know.
    """
    name = None
    if instrument is not None:
        name = (family_from_file(instrument) if isinstance(instrument, str) else as_family(instrument)).name
    folder = resolve(name_or_folder)
    model = _loaded(str(folder), folder.stat().st_mtime_ns)
    if name not in (None, model.instrument.name):
        raise ConfigurationError(f"{model.info.name} inverts {model.instrument.name}, received {name}")
    return model


@functools.lru_cache(maxsize=4)
def _loaded(folder: str, _: int) -> Model:
    """Return `load`'s answer; the same model is read once, until its folder is written again."""
    model = load_model(folder)
    kind = KINDS.get(type(model.instrument), Model)
    return model if kind is Model else kind(model.network, model.info)
