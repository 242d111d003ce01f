"""What a family of systems has to keep to: `check_family` is for families what scikit-learn's check_estimator is."""

from __future__ import annotations

import dataclasses
import hashlib
import json
import os
import subprocess
import sys
from collections.abc import Callable
from multiprocessing.reduction import ForkingPickler
from typing import TYPE_CHECKING, Any

import numpy as np

from algebraformer.errors import ConfigurationError, FamilyContractError
from algebraformer.linalg import EPS
from algebraformer.problems import OWN, PRIORS, Instrument, NoisyFamily, ProblemFamily, Systems, from_settings
from algebraformer.problems.instruments.base import GROUP, MIN_POINTS

if TYPE_CHECKING:
    from algebraformer.problems.custom import Sampler

SYSTEMS, ENTRIES = 20, 2**22
"""Systems that are looked at; where n is large, so many that A has about ENTRIES entries, and 4 at least."""
LAST = 2**64 - 1
"""The largest seed and index."""
BACKWARD_ERROR = 10.0
"""Largest normwise backward error of x in units of n eps: what LU with partial pivoting gives, with room."""
DTYPES = {False: "float64", True: "complex128"}
"""Of A, b and x, by `ProblemFamily.is_complex`."""
BAD_SIZES = (0, -1, 2.5, "8", None, True)
BAD_RANGES = ((0.5, 0.1), (0.1,), (0.0, float("nan")), (0.0, float("inf")), ("a", "b"), [0.0, 0.1], 0.3, None)
GROUPS = 8
"""Sets of abscissae of an instrument that are looked at."""
OTHER_PROCESS = """
import importlib, json, sys
sys.path[:], module, name, settings, seed = json.load(sys.stdin)
family = getattr(importlib.import_module(module), name)(
    **{key: tuple(value) if isinstance(value, list) else value for key, value in settings.items()}
)
from algebraformer.testing import fingerprint
print(fingerprint(family.sample(3, seed=seed)))
"""


class Subject:
    """A family under test, and how a broken rule is reported."""

    def __init__(self, family: ProblemFamily) -> None:
        self.family = family
        self.count = max(4, min(SYSTEMS, ENTRIES // family.n**2))
        self.rule = ""

    def require(self, kept: object, expected: str, received: object) -> None:
        """Raise `FamilyContractError` unless a rule is kept."""
        if not kept:
            raise FamilyContractError(
                type(self.family).__name__, self.rule, f"expected {expected}, received {received!r:.200}"
            )

    def require_refusal(self, **settings: Any) -> None:
        """Raise `FamilyContractError` unless the family refuses these settings with `ConfigurationError`."""
        received: object = "no error"
        try:
            dataclasses.replace(self.family, **settings)
        except ConfigurationError:
            return
        except Exception as error:  # noqa: BLE001 whatever else it is, it is reported
            received = error
        ((name, value),) = settings.items()
        self.require(False, f"ConfigurationError for {name} = {value!r}", received)


def fingerprint(systems: Systems) -> str:
    """Return a hash of every bit of a batch."""
    digest = hashlib.sha256()
    for array in (systems.A, systems.b, systems.x, *(systems.params[key] for key in sorted(systems.params))):
        digest.update(np.ascontiguousarray(array).tobytes())
    return digest.hexdigest()


# ---------------------------------------------------------------- the rules


def settings_are_json(subject: Subject) -> None:
    family = subject.family
    described = family.settings()
    subject.require(described.get("name") == family.name != "", f"the name {family.name!r} in settings()", described)
    try:
        text = json.dumps(described, allow_nan=False)
    except (TypeError, ValueError) as error:
        subject.require(False, "settings() that are JSON", error)
    for settings in (described, json.loads(text)):
        found = from_settings(settings)
        subject.require(found == family, f"{family!r} back from its settings", found)


def frozen_and_hashable(subject: Subject) -> None:
    family = subject.family
    try:
        family.n = family.n  # type: ignore[misc]
    except dataclasses.FrozenInstanceError:
        pass
    else:
        subject.require(False, "a frozen dataclass", "a field that was set")
    subject.require(hash(dataclasses.replace(family)) == hash(family), "equal families to have one hash", "two")


def bad_sizes_are_refused(subject: Subject) -> None:
    for n in BAD_SIZES:
        subject.require_refusal(n=n)


def bad_ranges_are_refused(subject: Subject) -> None:
    for field in dataclasses.fields(subject.family):
        default = field.default
        if isinstance(default, tuple) and len(default) == 2 and all(isinstance(v, (int, float)) for v in default):
            for bad in BAD_RANGES:
                subject.require_refusal(**{field.name: bad})


def shapes_and_dtypes(subject: Subject) -> None:
    family, count = subject.family, subject.count
    systems, m, n = family.sample(count, seed=3), family.n_equations, family.n
    expected, dtype = {"A": (count, m, n), "b": (count, m), "x": (count, n)}, DTYPES[family.is_complex]
    for name, shape in expected.items():
        array = getattr(systems, name)
        received = (array.shape, str(array.dtype))
        subject.require(received == (shape, dtype), f"{name} of shape {shape} and {dtype}", received)
    for name, value in systems.params.items():
        subject.require(np.shape(value)[:1] == (count,), f"parameter {name!r} of shape ({count}, ...)", np.shape(value))


def finite(subject: Subject) -> None:
    systems = subject.family.sample(subject.count, seed=3)
    for name, array in {"A": systems.A, "b": systems.b, "x": systems.x, **systems.params}.items():
        if np.issubdtype(array.dtype, np.number):
            subject.require(np.isfinite(array).all(), f"finite numbers in {name}", "NaN or infinity")


def x_solves_the_system(subject: Subject) -> None:
    family = subject.family
    if not family.is_linear_system or isinstance(family, NoisyFamily):
        return
    systems = family.sample(subject.count, seed=1)
    A, x, b = systems.A.astype(np.clongdouble if family.is_complex else np.longdouble), systems.x, systems.b
    r = np.abs(b - (A @ x[:, :, None])[:, :, 0]).max(axis=1)
    size = np.abs(systems.A).sum(axis=2).max(axis=1) * np.abs(x).max(axis=1) + np.abs(b).max(axis=1)
    worst, limit = float(np.max(r / np.where(size > 0, size, 1))), BACKWARD_ERROR * family.n * EPS
    subject.require(worst <= limit, f"x with a backward error of at most {limit:.1e}", worst)


def structure_holds(subject: Subject) -> None:
    """Matrices of a positive definite family are symmetric to the last bit, and have a Cholesky factorisation."""
    structure = subject.family.structure
    subject.require(structure in ("gen", "pos"), "the structure 'gen' or 'pos'", structure)
    if structure == "gen":
        return
    A = subject.family.sample(subject.count, seed=5).A
    m, n = A.shape[1:]
    subject.require(m == n and np.array_equal(A, A.conj().swapaxes(1, 2)), "Hermitian matrices", "one that is not")
    try:
        np.linalg.cholesky(A)
    except np.linalg.LinAlgError:
        subject.require(False, "positive definite matrices", "one that is not")


def same_seed_and_index_same_system(subject: Subject) -> None:
    """Bit for bit: again, alone, in a batch, in any order, by sample or at."""
    family, count = subject.family, subject.count
    whole = family.sample(count, seed=7)
    subject.require(fingerprint(family.sample(count, seed=7)) == fingerprint(whole), "the same systems again", "others")
    for indices in ([1, 3], [3, 1], [2], [count - 1, 0, 0, 2], np.array([1, 2])):
        same = fingerprint(family.at(indices, seed=7)) == fingerprint(whole[np.asarray(indices)])
        subject.require(same, f"at({list(indices)}) to be these rows of a sample", "others")
    same = fingerprint(family.sample(2, seed=7, start=count - 3)) == fingerprint(whole[count - 3 : count - 1])
    subject.require(same, f"sample(2, start={count - 3}) to be these rows of a sample", "others")


def any_seed_and_index(subject: Subject) -> None:
    family = subject.family
    systems = family.sample(3, seed=LAST, start=LAST - 2)
    same = fingerprint(family.at([LAST], seed=LAST)) == fingerprint(systems[2:])
    subject.require(same, f"at([{LAST}]) to be this row of a sample", "another")


def seeds_and_indices_differ(subject: Subject) -> None:
    family = subject.family
    systems = family.sample(subject.count, seed=0)
    different = len({(A.tobytes(), b.tobytes()) for A, b in zip(systems.A, systems.b, strict=True)})
    subject.require(different > 1, "systems that differ", f"{subject.count} times the same")
    prints = {fingerprint(family.sample(3, seed=seed)) for seed in (0, 1, 2**32, 2**63)}
    subject.require(len(prints) == 4, "other systems for another seed", f"{len(prints)} different samples of 4 seeds")


def processes_agree(subject: Subject) -> None:
    """Left out for classes that no other process can import, as in a notebook or inside a function."""
    family = subject.family
    cls = type(family)
    module = sys.modules.get(cls.__module__)
    if cls.__module__ == "__main__" or getattr(module, cls.__qualname__, None) is not cls:
        return
    try:
        ForkingPickler.dumps(family)  # as for background workers that are spawned
    except Exception as error:  # noqa: BLE001 pickle raises what it likes
        subject.require(False, "a family that can be pickled", error)
    settings = {key: value for key, value in family.settings().items() if key != "name"}
    run = subprocess.run(
        [sys.executable, "-c", OTHER_PROCESS],
        input=json.dumps([sys.path, cls.__module__, cls.__qualname__, settings, LAST]),
        env=os.environ | {"PYTHONHASHSEED": "1"},  # strings have other hashes there
        capture_output=True,
        text=True,
        check=False,
    )
    here = fingerprint(family.sample(3, seed=LAST))
    received = run.stdout.strip() or run.stderr.strip()[-200:]
    subject.require(received == here, "the same systems in another process", received)


def another_size(subject: Subject) -> None:
    """Or `ConfigurationError`, where n is fixed."""
    family = subject.family
    try:
        other = dataclasses.replace(family, n=family.n + 4)
        systems = other.sample(3, seed=0)
    except ConfigurationError:
        return
    shape = (3, other.n_equations, other.n)
    subject.require(systems.A.shape == shape, f"A of shape {shape} for n = {other.n}", systems.A.shape)


def noisy_measurements(subject: Subject) -> None:
    family, count = subject.family, subject.count
    if not isinstance(family, NoisyFamily):
        return
    systems, m, n = family.sample(count, seed=3), family.n_equations, family.n
    expected = {"noise": (count,), "prior": (count,), "clean": (count, m), "signal": (count, n), "z": (count, m)}
    received = {name: np.shape(systems.params[name]) for name in expected if name in systems.params}
    subject.require(received == expected, f"parameters of shapes {expected}", received)
    params = systems.params
    subject.require(np.array_equal(params["signal"], systems.x), "x to be the signal", "another")
    clean = (systems.A @ systems.x[:, :, None])[:, :, 0]
    size = 1e-12 * (np.abs(systems.A) @ np.abs(systems.x)[:, :, None])[:, :, 0]
    off = float(np.max(np.abs(params["clean"] - clean) - size))
    subject.require(off <= 0, "clean to be A x", f"a difference of {off:.1e}")
    negative = float(systems.x.min())
    subject.require(negative >= 0 or not family.nonnegative, "signals >= 0 of a nonnegative family", negative)
    rms = np.sqrt(np.mean(systems.x**2, axis=1))
    subject.require(np.allclose(rms, 1, rtol=1e-12), "signals of root mean square 1", rms.tolist())
    low, high = family.noise
    inside = (params["noise"] >= low * (1 - 4 * EPS)) & (params["noise"] <= high * (1 + 4 * EPS))
    subject.require(inside.all(), f"noise from {low:g} to {high:g}", params["noise"].tolist())
    known = {OWN} if family.has_own_signals else {PRIORS.index(prior) for prior in family.priors}
    subject.require(set(params["prior"].tolist()) <= known, f"priors {sorted(known)}", params["prior"].tolist())


def measurements_by_instruments(subject: Subject) -> None:
    """What `Instrument` says is of one size, x is a density of size one, and abscissae are as many as asked for."""
    family, require = subject.family, subject.require
    if not isinstance(family, Instrument):
        return
    names, sizes = family.nuisance_names, family.nuisance_sizes
    require(not sizes or len(sizes) == len(names), f"nuisance_sizes for {names}", sizes)
    for start in range(0, GROUPS * GROUP, GROUP):
        # 1. Where was measured.
        points = None if start else MIN_POINTS
        simulated = family.simulate(range(start, start + 4), seed=3, points=points)
        t, grid = simulated.abscissa, simulated.grid
        require(t.ndim == 1 and np.isfinite(t).all() and (np.diff(t) > 0).all(), "ascending abscissae", t)
        require(points in (None, len(t)), f"draw_abscissa to return {points} points", len(t))
        require(len(t) >= MIN_POINTS, f"draw_abscissa to return {MIN_POINTS} points at least", len(t))
        require(grid.shape == (family.n,) and (np.diff(grid) > 0).all(), f"an ascending grid ({family.n},)", grid)

        # 2. What is measured there.
        rows = family.values_per_point * len(t)
        K, N = family.kernel(t, grid), family.columns(t)
        require(K.shape == (rows, family.n), f"kernel to return shape {(rows, family.n)}", K.shape)
        if type(family).response is Instrument.response:
            require(N.shape == (rows, len(names)), f"columns for {names}, shape {(rows, len(names))}", N.shape)
        data = family.measurements(simulated)
        for way in data.ways:
            require(way.factor.shape == (rows,), f"factors of ways ({rows},)", way.factor.shape)
            require(way.N.shape == (rows, data.ways[0].N.shape[1]), "as many columns in all ways", way.N.shape)

        # 3. What is to be found.
        x, size = simulated.x, simulated.x.mean(axis=1)
        require((x >= 0).all(), "draw_signal to return x >= 0", x.min())
        require((size > 0).all(), "draw_signal to return x with a positive mean", size)
        if family.is_density:
            require(np.allclose(size, 1), "draw_signal to return x with mean 1, for is_density", size)
        require(0.02 < np.median(size) < 50, "draw_signal to return x with a mean of about one", np.median(size))


RULES: dict[str, Callable[[Subject], None]] = {
    "settings are JSON": settings_are_json,
    "frozen and hashable": frozen_and_hashable,
    "bad sizes are refused": bad_sizes_are_refused,
    "bad ranges are refused": bad_ranges_are_refused,
    "shapes and dtypes": shapes_and_dtypes,
    "finite": finite,
    "x solves the system": x_solves_the_system,
    "structure": structure_holds,
    "same seed and index, same system": same_seed_and_index_same_system,
    "any seed and index": any_seed_and_index,
    "seeds and indices differ": seeds_and_indices_differ,
    "processes agree": processes_agree,
    "another size": another_size,
    "noisy measurements": noisy_measurements,
    "measurements by instruments": measurements_by_instruments,
}
"""The rules in the order in which they are checked."""


def check_family(family: ProblemFamily | type[ProblemFamily] | Sampler) -> None:
    """Check that a family keeps to what training, checkpoints and tests rely on; takes seconds for small n.

    Parameters
    ----------
    family : ProblemFamily, class of one, or function that samples A
        As `as_family` takes it.

    Raises
    ------
    FamilyContractError
        An `AssertionError` that names the first rule that is broken, what was expected and what was received.
    ConfigurationError
        It is no family, or what it assembles has the wrong shape, is not finite, or is complex unasked.

    Examples
    --------
    >>> import algebraformer as af
    >>> af.testing.check_family(af.problems.get("diffusion", n=8))
    """
    from algebraformer.problems.custom import as_family  # loads torch, which another process does not need

    subject = Subject(as_family(family))
    for subject.rule, rule in RULES.items():
        rule(subject)
