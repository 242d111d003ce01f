"""Distributions of distances and of relaxation times from the literature, by formula.

Distances: densities in 1/nm with integral 1 over all distances; on a grid that ends before they do, less. Relaxation
times: densities over ln tau in ohm, whose integral is the resistance.

References
----------
.. [1] D. Domingo Koehler et al., "A short note on the analysis of distance measurements by electron paramagnetic
   resonance", Journal of Magnetic Resonance 208 (2011).
.. [2] N. C. Fitzkee and G. D. Rose, "Reassessing random-coil statistics in unfolded proteins", PNAS 101 (2004).
.. [3] J. Wilhelm and E. Frey, "Radial distribution function of semiflexible polymers", Physical Review Letters 77
   (1996).
.. [4] B. A. Boukamp, "Distribution (function) of relaxation times, successor to complex nonlinear least squares
   analysis of electrochemical impedance spectroscopy?", Journal of Physics: Energy 2 (2020).
.. [5] S. Havriliak and S. Negami, "A complex plane representation of dielectric and mechanical relaxation processes in
   some polymers", Polymer 8 (1967).
"""

from __future__ import annotations

import numpy as np

from algebraformer.linalg import FloatArray

TERMS = 60
"""Terms of either series of the worm-like chain: where one of them converges slowly the other is used."""
CROSSOVER = 0.2
"""kappa (1 - r / L) above which the first series of the worm-like chain is used [3]_; both are right there."""

# ------------------------------------------------------------------------------------------------ distances


def gaussian(r: FloatArray, mean: float, std: float) -> FloatArray:
    """Return a normal density, mean and standard deviation in nm."""
    density: FloatArray = np.exp(-(((r - mean) / std) ** 2) / 2) / (std * np.sqrt(2 * np.pi))
    return density


def rice(r: FloatArray, centre: float, std: float) -> FloatArray:
    """Return the density of the distance between two points `centre` apart, with normal noise in three dimensions [1]_.

    Parameters
    ----------
    r : ndarray, shape (n,)
        In nm, positive.
    centre, std : float
        In nm, positive.
    """
    return r / centre * (gaussian(r, centre, std) - gaussian(r, -centre, std))


def random_coil(r: FloatArray, root_mean_square: float) -> FloatArray:
    """Return the density of the end-to-end distance of a Gaussian chain, by its root mean square in nm [2]_."""
    mean_square = root_mean_square**2
    density: FloatArray = (
        4 * np.pi * r**2 * (3 / (2 * np.pi * mean_square)) ** 1.5 * np.exp(-3 * r**2 / (2 * mean_square))
    )
    return density


def wormlike_chain(r: FloatArray, contour: float, persistence: float) -> FloatArray:
    """Return the density of the end-to-end distance of a semiflexible chain [3]_, normalised on the grid of r.

    Parameters
    ----------
    r : ndarray, shape (n,)
        In nm, equally spaced and positive.
    contour, persistence : float
        Length of the chain and its persistence length in nm. The formula is right for stiff chains, up to one and
        a half persistence lengths.
    """
    kappa = persistence / contour
    a = kappa * (1 - r / contour)
    inside = a > 0
    series = chain_series(np.where(inside, a, 1.0))
    density = np.where(inside, r**2 * series, 0.0)
    total: FloatArray = density / (density.sum() * (r[1] - r[0]))
    return total


def chain_series(a: FloatArray, crossover: float = CROSSOVER) -> FloatArray:
    """Return the sum over k >= 1 of 2 (-1)^(k+1) (pi k)^2 exp(-(pi k)^2 a), in the form that converges at each a > 0.

    The other form follows by Poisson's summation: the sum over k >= 1 of (4 x_k^2 - 2) exp(-x_k^2) / (2 sqrt(pi) a^1.5)
    with x_k = (k - 1/2) / sqrt(a).

    Parameters
    ----------
    a : ndarray, shape (n,)
    crossover : float
        From where on the first form is used.
    """
    k = np.arange(1, TERMS + 1)
    wide, narrow = np.maximum(a, crossover), np.minimum(a, crossover)
    squares = (np.pi * k) ** 2
    first = 2 * np.sum((-1.0) ** (k + 1) * squares * np.exp(-squares * wide[:, None]), axis=1)
    x = (k - 0.5) / np.sqrt(narrow)[:, None]
    second = np.sum((4 * x**2 - 2) * np.exp(-(x**2)), axis=1) / (2 * np.sqrt(np.pi) * narrow**1.5)
    return np.where(a > crossover, first, second)


# ------------------------------------------------------------------------------------------------ relaxation times


def lognormal(tau: FloatArray, resistance: float, time: float, width: float) -> FloatArray:
    """Return an arc that is normal in ln tau: resistance in ohm, time in s, standard deviation of ln tau."""
    return resistance * gaussian(np.log(tau), float(np.log(time)), width)


def havriliak_negami(
    tau: FloatArray, resistance: float, time: float, exponent: float, asymmetry: float = 1.0
) -> FloatArray:
    """Return the distribution of Z = resistance / (1 + (i omega time)^exponent)^asymmetry [5]_; by default a ZARC [4]_.

    Parameters
    ----------
    tau : ndarray, shape (n,)
        In s.
    resistance, time : float
        In ohm and s.
    exponent : float
        From 0 to below 1; at 1 the distribution of an ideal arc is no density.
    asymmetry : float
        Positive, at most 1 / exponent; 1/2 with an exponent near 1 is close to a Gerischer element.
    """
    ratio = (tau / time) ** exponent
    angle = np.arctan2(np.sin(np.pi * exponent), ratio + np.cos(np.pi * exponent))
    size = (1 + 2 * ratio * np.cos(np.pi * exponent) + ratio**2) ** (asymmetry / 2)
    density: FloatArray = resistance / np.pi * ratio**asymmetry * np.sin(asymmetry * angle) / size
    return density


def gerischer(tau: FloatArray, resistance: float, time: float) -> FloatArray:
    """Return the distribution of Z = resistance / sqrt(1 + i omega time) [4]_, its mean over each cell of the grid.

    The density sqrt(tau / (time - tau)) / pi ends in a pole at tau = time; its integral up to tau is
    2 arcsin(sqrt(tau / time)) / pi. Cells end halfway between the points, in ln tau.

    Parameters
    ----------
    tau : ndarray, shape (n,)
        In s, equally spaced in ln tau.
    resistance, time : float
        In ohm and s.
    """
    u = np.log(tau)
    ends = np.concatenate((u[:1] - (u[1] - u[0]) / 2, (u[1:] + u[:-1]) / 2, u[-1:] + (u[-1] - u[-2]) / 2))
    share = 2 / np.pi * np.arcsin(np.sqrt(np.minimum(np.exp(ends - np.log(time)), 1.0)))
    density: FloatArray = resistance * np.diff(share) / np.diff(ends)
    return density
