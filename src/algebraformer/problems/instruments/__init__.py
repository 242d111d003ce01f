"""Instruments as families: linear maps from an unknown density to data, with what else is in the data.

- `dipolar`, `relaxation`: kernels of DEER traces and impedance spectra.
- `distributions`: densities of distances and relaxation times from the literature.
- `base`: what an instrument is; `deer`, `drt`: two of them.
"""

from algebraformer.problems.instruments.base import Instrument, Simulated
from algebraformer.problems.instruments.deer import Deer
from algebraformer.problems.instruments.drt import Drt

__all__ = ["Deer", "Drt", "Instrument", "Simulated"]
