"""The base class of families of linear systems, and the registry of families.

A family draws parameters, one system at a time, and assembles many systems at once. Sampling is addressed by
(seed, index): a system does not depend on the batch size, the order or the number of workers.
"""

from __future__ import annotations

import abc
import dataclasses
import operator
import warnings
from collections.abc import Callable, Sequence
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from algebraformer.errors import ConfigurationError, SingularSystemError, UnknownNameError
from algebraformer.problems.sampling import FloatArray, generator
from algebraformer.validation import is_whole

Parameters = dict[str, NDArray[Any]]

VALIDATION_SEED = 2**63 + 1
TEST_SEED = 2**63 + 2
SCALER_SEED = 2**63 + 3
SPECTRUM_SEED = 2**63 + 4
CALIBRATION_SEED = 2**63 + 5
"""Seeds of the frozen sets, for validation, tests, scaler or basis, rank, and calibration. Recipes have seeds below
2**62, so no training system is in one of these sets."""
RENAMED = {"rows": "n_equations", "instrument": "draw_operator", "has_systems": "is_linear_system"}
"""Attributes of families by their former names, which subclasses may still define."""


@dataclasses.dataclass(frozen=True)
class Systems:
    """A batch of B linear systems A x = b with their solutions.

    Attributes
    ----------
    A : ndarray, shape (B, m, n), float64
        m = n in most families. A, b and x of complex families are complex128.
    b : ndarray, shape (B, m), float64
    x : ndarray, shape (B, n), float64
        Solves the system to LAPACK's accuracy, or is exact if the family has a closed form. In a noisy family x is the
        true signal, and A x differs from b by the noise.
    params : dict of ndarray, each of shape (B, ...)
        The parameters the systems were assembled from.
    """

    A: FloatArray
    b: FloatArray
    x: FloatArray
    params: Parameters

    def __len__(self) -> int:
        return self.A.shape[0]

    def __getitem__(self, item: slice | NDArray[Any]) -> Systems:
        """Return the chosen systems of the batch (a slice or an index array keeps the batch axis)."""
        return Systems(self.A[item], self.b[item], self.x[item], {k: v[item] for k, v in self.params.items()})


def real(array: object, what: str) -> FloatArray:
    """Return an array as float64.

    Raises
    ------
    ConfigurationError
        It does not contain real numbers; `what` is its name in the message. Complex arrays are rejected, even with zero
        imaginary part.
    """
    values = np.asarray(array)
    if np.iscomplexobj(values):
        raise ConfigurationError(
            f"{what} must be real, received {values.dtype}: a complex family has the class attribute is_complex = True"
        )
    if values.dtype.kind not in "biuf":
        raise ConfigurationError(f"{what} must hold real numbers, received {values.dtype}")
    return values.astype(np.float64, copy=False)


def check_whole(family: ProblemFamily, *names: str) -> None:
    """Raise `ConfigurationError` unless these settings are whole numbers of at least 1."""
    for name in names:
        value = getattr(family, name)
        if not is_whole(value) or value < 1:
            raise ConfigurationError(f"{name} must be a whole number of at least 1, received {value!r}")


def check_number(family: ProblemFamily, name: str, low: float = 0.0, high: float = np.inf) -> None:
    """Raise `ConfigurationError` unless a setting is a finite number from low to high, and not a bool."""
    value = getattr(family, name)
    number = isinstance(value, (int, float)) and not isinstance(value, bool)
    if not (number and low <= value <= high and value < np.inf):
        expected = f"number from {low:g} to {high:g}" if high < np.inf else f"finite number of at least {low:g}"
        raise ConfigurationError(f"{name} must be a {expected}, received {value!r}")


def check_limits(family: ProblemFamily, positive: Sequence[str] = ()) -> None:
    """Raise `ConfigurationError` unless every setting whose default is a pair is one of finite ascending numbers.

    Parameters
    ----------
    family : ProblemFamily
    positive : sequence of str
        Settings whose numbers must be positive as well.
    """
    for field in dataclasses.fields(family):
        value = getattr(family, field.name)
        if not (isinstance(field.default, tuple) and all(isinstance(v, (int, float)) for v in field.default)):
            continue
        if not _is_limits(value):
            raise ConfigurationError(f"{field.name} must be (low, high) with low <= high, received {value!r}")
        if field.name in positive and value[0] <= 0:
            raise ConfigurationError(f"{field.name} must be positive, received {value!r}")


def _is_limits(value: object) -> bool:
    """Return whether a value is a pair of finite numbers in ascending order."""
    if not (isinstance(value, tuple) and len(value) == 2 and all(isinstance(v, (int, float)) for v in value)):
        return False
    return bool(-np.inf < value[0] <= value[1] < np.inf)


@dataclasses.dataclass(frozen=True, kw_only=True)
class ProblemFamily(abc.ABC):
    """A family of linear systems: draw parameters, assemble A and b.

    A new family is a frozen dataclass with two methods, `draw` and `assemble`; its fields are its settings, and they
    are stored in checkpoints. Decorate it with `register` to give it a name.

    Attributes
    ----------
    n : int
        Number of unknowns.

    Examples
    --------
    >>> from algebraformer.problems import ProblemFamily
    >>> import dataclasses, numpy as np
    >>> @dataclasses.dataclass(frozen=True, kw_only=True)
    ... class Shifted(ProblemFamily):
    ...     n: int = 4
    ...     def draw(self, rng):
    ...         return {"shift": rng.uniform(1, 2), "b": rng.standard_normal(self.n)}
    ...     def assemble(self, params):
    ...         return np.eye(self.n) * params["shift"][:, None, None], params["b"]
    >>> systems = Shifted().sample(10, seed=0)
    >>> systems.A.shape, systems.x.shape
    ((10, 4, 4), (10, 4))
    """

    n: int = 64
    """Number of unknowns."""

    name: ClassVar[str] = ""
    """Set by `register`."""
    structure: ClassVar[str] = "gen"
    """What all matrices of the family are, in SciPy's words: "pos", symmetric and positive definite, or "gen"."""
    is_complex: ClassVar[bool] = False
    """Whether A, b and x are complex128. Operator heads alone learn such families."""

    def __post_init__(self) -> None:
        check_whole(self, "n")

    def __init_subclass__(cls, **options: Any) -> None:
        """Let a family that defines an attribute under its former name work as before, with a warning."""
        super().__init_subclass__(**options)
        for old, new in RENAMED.items():
            if old in vars(cls) and new not in vars(cls):
                message = f"{cls.__name__}.{old} is now called {new}; the old name goes in a later version"
                warnings.warn(message, DeprecationWarning, stacklevel=3)  # 2 is ABCMeta
                setattr(cls, new, property(operator.attrgetter(old)))

    @property
    def n_equations(self) -> int:
        """Number of equations m: n by default."""
        return self.n

    @property
    def rows(self) -> int:
        """Former name of `n_equations`."""
        warnings.warn("rows is now called n_equations", DeprecationWarning, stacklevel=2)
        return self.n_equations

    @property
    def has_systems(self) -> bool:
        """Former name of `is_linear_system`."""
        warnings.warn("has_systems is now called is_linear_system", DeprecationWarning, stacklevel=2)
        return self.is_linear_system

    @abc.abstractmethod
    def draw(self, rng: np.random.Generator) -> dict[str, Any]:
        """Draw the parameters of one system; every value must have the same shape for every system."""

    @abc.abstractmethod
    def assemble(self, params: Parameters) -> tuple[NDArray[Any], NDArray[Any]]:
        """Assemble A (B, m, n) and b (B, m), float64 or complex128, from stacked parameters (B, ...)."""

    def parameters(self, indices: Sequence[int] | NDArray[np.int64], seed: int = 0) -> Parameters:
        """Draw the parameters of the systems at these indices, stacked: every array has shape (len(indices), ...)."""
        draws = [self.draw(generator(seed, i)) for i in indices]
        return {key: np.array([draw[key] for draw in draws]) for key in (draws[0] if draws else {})}

    def solution(self, A: FloatArray, b: FloatArray, params: Parameters) -> FloatArray:
        """Solve the systems by LAPACK's LU. A family with x in closed form overrides this."""
        try:
            return np.linalg.solve(A, b[..., None])[..., 0].astype(A.dtype, copy=False)
        except np.linalg.LinAlgError:
            rank = np.array([np.linalg.matrix_rank(a) for a in A])
            raise SingularSystemError(np.flatnonzero(rank < self.n).tolist(), batched=True) from None

    def at(self, indices: Sequence[int] | NDArray[np.int64], seed: int = 0) -> Systems:
        """Return the systems at these indices of the sequence of `seed`.

        Parameters
        ----------
        indices : sequence of int, each from 0 to 2**64 - 1
        seed : int

        Returns
        -------
        Systems, with B = len(indices)
        """
        A, b, params = self.assembled(indices, seed)
        x = self._numbers("x", self.solution(A, b, params))
        if x.shape != (expected := (len(indices), self.n)):
            raise ConfigurationError(f"{type(self).__name__}.solution must return shape {expected}, received {x.shape}")
        return Systems(A, b, x, params)

    def assembled(
        self, indices: Sequence[int] | NDArray[np.int64], seed: int = 0
    ) -> tuple[FloatArray, FloatArray, Parameters]:
        """Return A, b and the parameters of the systems at these indices, checked and without their solutions.

        Raises
        ------
        ConfigurationError
            No index; or A or b has a wrong shape, is not finite, or is complex although the family is not.
        """
        if len(indices) == 0:
            raise ConfigurationError("a batch needs at least one index, received none")
        params = self.parameters(indices, seed)
        A, b = (self._numbers(what, array) for what, array in zip("Ab", self.assemble(params), strict=True))
        m = self.n_equations
        expected = (len(indices), m, self.n), (len(indices), m)
        if (A.shape, b.shape) != expected:
            raise ConfigurationError(
                f"{type(self).__name__}.assemble must return shapes {expected}, received {(A.shape, b.shape)}"
            )
        for what, array in (("A", A), ("b", b)):
            if not (finite := np.isfinite(array).reshape(len(array), -1).all(axis=1)).all():
                raise ConfigurationError(
                    f"{what} of the family {self.name or type(self).__name__} must be finite, received NaN or infinity "
                    f"at index {int(indices[int(np.argmin(finite))])} of seed {seed}"
                )
        return A, b, params

    def _numbers(self, what: str, array: Any) -> NDArray[Any]:
        """Return an array of the family as float64, or complex128; `ConfigurationError` if it holds other things."""
        if self.is_complex and np.iscomplexobj(array):
            return np.asarray(array).astype(np.complex128, copy=False)
        values = real(array, f"{what} of the family {self.name or type(self).__name__}")
        return values.astype(np.complex128) if self.is_complex else values

    def sample(self, count: int, seed: int = 0, start: int = 0) -> Systems:
        """Return `count` systems, at the indices start, start + 1, ... of the sequence of `seed`.

        Parameters
        ----------
        count : int, at least 1
        seed : int, from 0 to 2**64 - 1
        start : int

        Returns
        -------
        Systems, with B = count
        """
        return self.at(range(start, start + count), seed)

    @property
    def is_linear_system(self) -> bool:
        """Whether x solves A x = b. If not, A and b are inputs of a network, and there is nothing to certify."""
        return True

    def settings(self) -> dict[str, Any]:
        """Return name and fields as plain JSON values; `problems.from_settings` reads them back."""
        return {"name": self.name, **dataclasses.asdict(self)}

    def own_settings(self) -> dict[str, Any]:
        """Return the settings without name and n, which recipes store elsewhere."""
        return {key: value for key, value in self.settings().items() if key not in ("name", "n")}


_REGISTRY: dict[str, type[ProblemFamily]] = {}


def register(name: str) -> Callable[[type[ProblemFamily]], type[ProblemFamily]]:
    """Class decorator: register a family under a name, for `get`, recipes and the command line."""

    def add(cls: type[ProblemFamily]) -> type[ProblemFamily]:
        owner = _REGISTRY.get(name, cls)  # a class that is defined again, as in a notebook, replaces the old one
        ships = owner.__module__.startswith(f"{__package__}.") and owner.__module__ != cls.__module__
        if owner.__qualname__ != cls.__qualname__ or ships:
            raise ConfigurationError(f"a family named {name!r} is registered already")
        cls.name = name
        _REGISTRY[name] = cls
        return cls

    return add


def names() -> list[str]:
    """Return the names of all registered families, sorted."""
    return sorted(_REGISTRY)


def family_class(name: str) -> type[ProblemFamily]:
    """Return the class of a registered family; `UnknownNameError` if there is none of that name."""
    if name not in _REGISTRY:
        raise UnknownNameError("family", name, names())
    return _REGISTRY[name]


def get(name: str, **settings: Any) -> ProblemFamily:
    """Return the family of that name with these settings.

    Parameters
    ----------
    name : str
        One of `names()`.
    **settings
        Fields of the family, for instance n=64.

    Raises
    ------
    UnknownNameError
        No family has that name.
    ConfigurationError
        A setting that the family does not have, or a value out of range.

    Examples
    --------
    >>> import algebraformer as af
    >>> family = af.problems.get("diffusion", n=16)
    >>> family.sample(3, seed=0).A.shape
    (3, 16, 16)
    """
    cls = family_class(name)
    known = {field.name for field in dataclasses.fields(cls)}
    if unknown := sorted(set(settings) - known):
        raise ConfigurationError(f"family {name!r} has no setting {unknown[0]!r}; it has: {', '.join(sorted(known))}")
    return cls(**settings)


def from_settings(settings: dict[str, Any]) -> ProblemFamily:
    """Return the family that `ProblemFamily.settings` described; lists become tuples again."""
    fields = {k: tuple(v) if isinstance(v, list) else v for k, v in settings.items() if k != "name"}
    return get(str(settings.get("name", "")), **fields)
