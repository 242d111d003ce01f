"""Solve with a network and certify every answer."""

from __future__ import annotations

import dataclasses
import functools
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from algebraformer import checkpoint, estimation
from algebraformer.arrays import Kind, kind_of, needs_gradient
from algebraformer.checkpoint import CheckpointInfo
from algebraformer.errors import ConfigurationError
from algebraformer.estimation import Estimate
from algebraformer.extras import require_torch
from algebraformer.models.config import OperatorConfig
from algebraformer.models.inference.answers import AnyNetwork
from algebraformer.models.inference.network import NumpyNetwork
from algebraformer.prepared import Prepared, check_supported
from algebraformer.problems import NoisyFamily
from algebraformer.problems.base import SCALER_SEED
from algebraformer.problems.custom import as_family
from algebraformer.progress import ProgressCallback, silent
from algebraformer.result import SolveResult
from algebraformer.validation import check_matrices, check_structure, check_system

if TYPE_CHECKING:
    from torch import nn

    from algebraformer.autograd.solve import PreparedTensor
    from algebraformer.models.device import DeviceNetwork
    from algebraformer.models.module_network import Scale
    from algebraformer.models.network import Algebraformer
    from algebraformer.problems import ProblemFamily
    from algebraformer.problems.custom import Sampler

Array = NDArray[Any]


class LearnedSolver:
    """A network that solves one family of systems, and the certificate around it.

    Parameters
    ----------
    network : NumpyNetwork or Algebraformer
        What answers: without torch, or a module of torch in evaluation mode.
    info : CheckpointInfo
        Name, family and scores of the model.

    Examples
    --------
    >>> import algebraformer as af
    >>> solver = af.LearnedSolver.from_pretrained("diffusion-64")
    >>> systems = af.problems.get("diffusion", n=64).sample(3, seed=1)
    >>> result = solver.solve(systems.A, systems.b)
    >>> result.x.shape, bool(result.certified.all())
    ((3, 64), True)
    """

    def __init__(self, network: AnyNetwork, info: CheckpointInfo) -> None:
        self.network, self.info = network, info
        self._networks: dict[Any, DeviceNetwork] = {}  # by device of torch

    @functools.cached_property
    def model(self) -> Algebraformer:
        """The network as a module of torch, for training and everything that needs gradients.

        Where `network` is one, it is this. Else it is a copy, made at the first use: `LearnedSolver(model, info)`
        answers through it after a change. `MissingExtraError` without torch.
        """
        return checkpoint.as_module(self.network)

    @classmethod
    def from_pretrained(cls, name_or_folder: str | Path, device: str = "cpu") -> LearnedSolver:
        """Load a shipped model by name (`pretrained_names()`), a checkpoint folder, or a training run's folder.

        On the CPU the network runs in NumPy, unless it has a head of one's own; any other device is torch's. It answers
        once before it is returned: the first call in a process takes several times as long as the later ones, since
        BLAS, and torch where it is used, prepare what they need when they are first asked.

        Raises
        ------
        UnknownNameError
            Neither a shipped name nor a folder.
        CheckpointError
            The checkpoint is damaged, altered or not one of ours.
        ConfigurationError
            It reads measurements by an instrument, not systems: `instruments.load` loads it.
        """
        folder = checkpoint.resolve(name_or_folder)
        if device == "cpu":
            solver = cls(*checkpoint.load_network(folder))
        else:
            model, info = checkpoint.load(folder)
            solver = cls(model.to(device), info)
        head = solver.network.config.head
        if not head.reads_systems:
            raise ConfigurationError(f"{solver.info.name} {head.unsupported_reason}")
        m = solver.network.config.n_equations
        with np.errstate(all="ignore"):  # the answer does not matter
            solver.predict(np.eye(m, solver.n, dtype=np.complex128 if solver.kind == "c" else np.float64), np.ones(m))
        return solver

    @classmethod
    def from_module(
        cls, module: nn.Module, family: ProblemFamily | type[ProblemFamily] | Sampler, scale: Scale = "family"
    ) -> LearnedSolver:
        """Put the certificate around any module of torch that maps (A, b) to x.

        Its answers are refined by asking it again about the residual, as those of a token head are, and certified;
        LAPACK answers what it cannot solve and what does not look like the family. A looks like it if two measures are
        at most 1.1 times the largest in a sample of 4,096 systems: the root mean square of the z-scores of its entries,
        and the share of A, scaled, that lies outside of the 32 principal axes of the sample.

        Parameters
        ----------
        module : torch.nn.Module
            module(A, b) -> x for A (B, n, n) and b (B, n), in the dtype of its parameters and on their device (float64
            on the CPU without any), x (B, n), float32 or float64. It is put into evaluation mode.
        family : ProblemFamily, class of one, or function
            What `train` takes: real systems A x = b with as many equations as unknowns.
        scale : {"family", "unit"}
            What the module is given. "family": A as it is, and b times the factor that gives its entries the root mean
            square of those of the family's right-hand sides, so that residuals are of the size that it knows. "unit": A
            and b each divided by the root mean square of their entries. The factors are taken out of x again.

        Returns
        -------
        LearnedSolver
            It cannot be saved as a checkpoint, which holds no code.

        Raises
        ------
        ConfigurationError
            The family does not suit, or the module, which is tried on one and on two systems, does not return x. What
            the module itself raises is passed on, now and later.
        MissingExtraError
            There is no torch here.

        Examples
        --------
        >>> import torch
        >>> import algebraformer as af
        >>> class Jacobi(torch.nn.Module):
        ...     def forward(self, A, b):
        ...         return b / A.diagonal(dim1=1, dim2=2)
        >>> def nearly_diagonal(rng):
        ...     return np.diag(rng.uniform(1, 2, 8)) + 1e-3 * rng.standard_normal((8, 8))
        >>> solver = af.LearnedSolver.from_module(Jacobi(), nearly_diagonal)
        >>> A = np.eye(8) + 1e-3 * np.random.default_rng(0).uniform(-1, 1, (8, 8))
        >>> result = solver.solve(A, np.ones(8))
        >>> result.method, result.certified
        ('learned+refined', True)
        """
        require_torch("a solver around a module")
        from algebraformer.models.module_network import ModuleNetwork

        family = as_family(family)
        if isinstance(family, NoisyFamily):
            raise ConfigurationError(f"from_module takes a family of systems that x solves, received noisy {family}")
        network = ModuleNetwork(module, family, SCALER_SEED, scale)
        return cls(network, CheckpointInfo(name="module", family=family.settings()))

    def at_size(self, n: int, report: ProgressCallback = silent) -> LearnedSolver:
        """Return this network for systems of its family with n unknowns, fitted in seconds to minutes.

        Nothing is trained: what the network reads, and the operators that its coefficients belong to, are found by
        least squares on pairs of systems of both sizes, see `resampled`. `checkpoint.save` keeps the
        result.

        Parameters
        ----------
        n : int
            At least the number of rows and columns that the network reads, 16 for the shipped models.
        report : callable
            Called with the number of systems that are done and the number in all.

        Returns
        -------
        LearnedSolver
            This one for its own n.

        Raises
        ------
        ConfigurationError
            The head is no operator head with real, dense operators; the solver was made by `at_size` itself; or the
            family has no such size, or no matrices that correspond to those of the size that was trained.
        UnknownNameError
            The family is not registered in this process.

        Examples
        --------
        >>> import algebraformer as af
        >>> solver = af.LearnedSolver.from_pretrained("diffusion-64").at_size(20)
        >>> systems = af.problems.get("diffusion", n=20).sample(100, seed=1)
        >>> result = solver.solve(systems.A, systems.b)
        >>> bool(result.certified.all()), bool((result.method != "lapack").mean() > 0.95)
        (True, True)
        """
        if n == self.n:
            return self
        from algebraformer.resampled import resampled

        OperatorConfig.of(self.network.config)
        family = self.info.problem_family()
        other = dataclasses.replace(family, n=n)
        network = self.network
        if not isinstance(network, NumpyNetwork):
            network = NumpyNetwork(network.config, checkpoint.arrays_of(network))
        name = f"{self.info.name[:48]}-at-{n}"
        info = dataclasses.replace(self.info, name=name, family=other.settings(), scores={}, seconds=None)
        return LearnedSolver(resampled(network, family, other, report), info)

    @property
    def n(self) -> int:
        """Number of unknowns of the systems the model supports."""
        return self.network.config.n

    @property
    def kind(self) -> str:
        """Kind of numbers of these systems, in NumPy's letters: "f" for real ones, "c" for complex ones."""
        return self.network.config.head.kind

    def __repr__(self) -> str:
        return f"LearnedSolver({self.info.name!r}, n={self.n}, parameters={self.network.parameter_count()})"

    def predict(self, A: ArrayLike, b: ArrayLike) -> Array:
        """Return the bare network's answer, neither refined nor certified; of an estimate head the mean.

        Parameters
        ----------
        A : array_like, shape (n, n) or (B, n, n)
        b : array_like, shape (n,), (n, k), (B, n) or (B, n, k)
            (B, n) with a batch A is one right-hand side per system. For an estimate head A may have m rows; b then
            has as many.

        Returns
        -------
        ndarray, float64 or complex128, in the shape of b

        Raises
        ------
        ValueError
            Shapes do not match, entries are not finite, or the model does not support this n or kind of numbers.
        """
        kind = kind_of(A=A, b=b)
        A, b = kind.numpy(A), kind.numpy(b)
        if self.network.config.head.estimates:
            return kind.array(estimation.mean(self.network, A, b))
        system = check_system(A, b)
        check_supported(system.A, self.network.config)
        x = self.network.predict(system.A, system.b)
        if x.shape != system.b.shape:
            raise ConfigurationError("the model's output does not have the shape of b")
        return kind.array(system.reshape_like_b(x))

    def estimate(self, A: ArrayLike, b: ArrayLike) -> Estimate:
        """Estimate x from noisy b = A x + e, with a standard deviation for every entry.

        Parameters
        ----------
        A : array_like, shape (m, n) or (B, m, n)
            Real, of the size the model was trained for; never modified.
        b : array_like, shape (m,), (m, k), (B, m) or (B, m, k)
            Every right-hand side is a system of its own.

        Returns
        -------
        Estimate
            For a torch tensor b that requires gradients, x and std carry them, in single precision.

        Raises
        ------
        ValueError
            Shapes do not match or are not the model's, entries are NaN, infinite, complex or not numbers.
        ConfigurationError
            The model has no estimate head, or A is a tensor that requires gradients: x and std carry them to b alone.

        Warns
        -----
        InconsistentWarning
            An estimate is inconsistent with the predicted noise level; Tikhonov's answer is in the field `tikhonov`.

        Examples
        --------
        >>> import algebraformer as af
        >>> systems = af.problems.get("deblur", n=64).sample(3, seed=7)
        >>> found = af.LearnedSolver.from_pretrained("deblur-64").estimate(systems.A, systems.b)
        >>> found.x.shape, found.std.shape, found.noise.shape
        ((3, 64), (3, 64), (3,))
        """
        kind = kind_of(A=A, b=b)

        def found(A: Any, b: Any) -> Estimate:
            return estimation.estimate(self.network, kind.numpy(A), kind.numpy(b)).as_kind(kind)

        if not needs_gradient(A, b):
            return found(A, b)
        from algebraformer.autograd.estimate import estimate  # which needs torch

        with_gradients: Estimate = estimate(found, lambda: self.model, A, b)
        return with_gradients

    def check_can_solve(self) -> None:
        """Raise `ConfigurationError` if the model does not solve systems."""
        if reason := self.info.unsupported_reason(self.network.config.head):
            raise ConfigurationError(f"the model {self.info.name} {reason}")

    def prepare(self, A: ArrayLike, assume_a: str | None = None) -> Prepared | PreparedTensor:
        """Read A once, to solve for any number of right-hand sides, one call after the other.

        `prepared.solve(b)` returns what `solve(A, b)` does, at the cost of refinement alone: the network's pass over A,
        its approximate inverse and, where LAPACK had to help, the factors of A are kept. A token head, which is not
        linear in b, still answers every b anew.

        Parameters
        ----------
        A : array_like, shape (n, n) or (B, n, n)
            Real or complex; copied, so that later changes have no effect.
        assume_a : str, optional
            As in `solve`.

        Returns
        -------
        Prepared
            With the methods and attributes `solve(b)`, `logdet()`, `operator` and `in_distribution`. For a torch
            tensor that requires gradients it has the same ones, and gradients flow through `solve`.

        Raises
        ------
        ValueError
            A is not square, sparse, or entries are NaN, infinite or not numbers; an unknown `assume_a`.
        ConfigurationError
            The model estimates from noisy systems, or its family has no systems.

        Examples
        --------
        >>> import algebraformer as af
        >>> system = af.problems.get("diffusion", n=64).sample(1, seed=1)
        >>> prepared = af.LearnedSolver.from_pretrained("diffusion-64").prepare(system.A[0])
        >>> first = prepared.solve(system.b[0])
        >>> second = prepared.solve(first.x)
        >>> first.certified, second.certified
        (True, True)
        """
        return self._prepare_tensor(A, assume_a) if needs_gradient(A) else self._prepare(A, True, assume_a)

    def _prepare_tensor(self, A: Any, assume_a: str | None, copy: bool = True) -> PreparedTensor:
        """Return a tensor prepared for right-hand sides that gradients flow through."""
        from algebraformer.autograd.solve import PreparedTensor  # which needs torch

        return PreparedTensor(lambda values: self._prepare(values, True, assume_a), A, copy)

    def _prepare(self, A: ArrayLike, keep: bool, assume_a: str | None = None) -> Prepared:
        """Return A prepared for many right-hand sides, or for one call if nothing is to be kept."""
        self.check_can_solve()
        structure = self.info.structure if assume_a is None else check_structure(assume_a)
        kind = kind_of(A=A)
        network: AnyNetwork | DeviceNetwork = self.network
        network, A = (network, kind.numpy(A)) if kind.on_host else self._on_device(kind, A)
        matrices, batched = check_matrices(A, finite=False)
        return Prepared(network, matrices, batched, kind, keep, structure)

    def _on_device(self, kind: Kind, A: Any) -> tuple[AnyNetwork | DeviceNetwork, Any]:
        """Return a network on the device of A, and A as a tensor there; on the host, where the head answers there."""
        from algebraformer.models.device import DeviceNetwork, as_tensor

        if not (self.network.config.head.is_linear and DeviceNetwork.covers(self.model)):
            return self.network, kind.numpy(A)
        tensor = as_tensor(A)
        if tensor.device not in self._networks:
            self._networks[tensor.device] = DeviceNetwork(self.model, tensor.device)
        return self._networks[tensor.device], tensor

    def operator(self, A: ArrayLike) -> Any:
        """Return a linear head's approximation M of inv(A), for instance as `M=` of scipy.sparse.linalg.gmres.

        Parameters
        ----------
        A : array_like, shape (n, n) or (B, n, n)
            Real, or complex if the model's family is.

        Returns
        -------
        scipy.sparse.linalg.LinearOperator, or list of B of them for a batch
            Shape (n, n), float64 or complex128: linear, and the same map every time, with its adjoint (`rmatvec`, `.T`,
            `.H`), for real and complex vectors (n,) and blocks (n, k). One forward pass when it is made, O(n^2) per
            product. For arrays of another library than NumPy it is a `numerics.preconditioner.ArrayOperator`, with
            `@`, `matvec` and `rmatvec` for vectors of that library.

        Raises
        ------
        ValueError
            A is not a square matrix of the model's size and kind of numbers or a batch of them, sparse, or not finite.
        ConfigurationError
            The model has a head that is not linear in b.

        Notes
        -----
        The products carry float32's rounding, relative to their largest entry. Methods that keep the true residual
        b - A x, such as SciPy's gmres, bicgstab and gcrotmk or pyamg's fgmres, are not limited by it. A method that
        forms its residual in the preconditioned norm, M (b - A x), as pyamg.krylov.gmres does, stalls near 1e-5: start
        it again from its own answer, or use a flexible method.

        Examples
        --------
        >>> import algebraformer as af
        >>> from scipy.sparse.linalg import gmres
        >>> system = af.problems.get("diffusion", n=64).sample(1, seed=1)
        >>> solver = af.LearnedSolver.from_pretrained("diffusion-64")
        >>> x, info = gmres(system.A[0], system.b[0], M=solver.operator(system.A[0]), rtol=1e-8)
        >>> info
        0
        """
        return self._prepare(A, keep=False).operator

    def solve(
        self,
        A: ArrayLike,
        b: ArrayLike,
        rtol: float | None = None,
        max_refinements: int = 10,
        fallback: bool = True,
        assume_a: str | None = None,
        transpose: bool = False,
    ) -> SolveResult:
        """Solve A x = b, or A^T x = b: the network's answer, refined until certified, or LAPACK's.

        The network answers systems that look like its family. With a token head, refinement is
        x <- x + network(A, b - A x) with the residual in float64; it stops when the certificate holds, when the
        backward error no longer falls, or after `max_refinements`. With an operator head, which is linear in b, the
        same products give the iterates of generalised conjugate residuals (`numerics.gcr`), and it stops likewise.

        Parameters
        ----------
        A : array_like, shape (n, n) or (B, n, n)
            Real or complex; never modified. What the model does not support goes to LAPACK: other sizes, complex
            matrices, or real ones if its family is complex.
        b : array_like, shape (n,), (n, k), (B, n) or (B, n, k)
            (B, n) with a batch A is one right-hand side per system. Complex b with real A are solved by real
            arithmetic.
        rtol : float, optional
            A caller who needs less than the certificate of `linalg.is_certified` gives a tolerance on
            ||b - A x|| / ||b||: then a residual of that size is enough.
        max_refinements : int
            Largest number of refinements of the learned answer.
        fallback : bool
            Give systems that do not look like the family, or that the network cannot solve, to LAPACK. If False,
            nothing is factorised and the network's best answer is returned; it is not certified then.
        assume_a : str, optional
            "pos" or "positive definite": where LAPACK is needed it factorises by Cholesky, and by LU those matrices
            that turn out not to be Hermitian and positive definite. "gen" or "general": by LU. None: what the model's
            family says of itself (`ProblemFamily.structure`).
        transpose : bool
            Solve A^T x = b, with M^T for the learned inverse M of A and with the factors of A; the certificate is that
            of A^T. Also for complex A it is the transpose, not the adjoint. With a head that is not linear in b LAPACK
            solves it.

        Returns
        -------
        SolveResult
            Where A or b is a torch tensor that requires gradients, x carries them: they cost one more solve, of the
            transposed system, with these options.

        Raises
        ------
        ValueError
            Shapes do not match, entries are NaN, infinite or not numbers; the message names A or b. Also for a
            size that the model does not support when fallback is False, and for an unknown `assume_a`.
        SingularSystemError
            A `LinAlgError`: one or more systems are exactly singular; it names their indices and carries the result
            of the others. LAPACK's elimination decides; a row or column of zeros always counts.
        ConfigurationError
            The model estimates from noisy systems, or its family has no systems: use `estimate`, or `predict`. Also
            for `transpose` without fallback where the head is not linear in b.

        Warns
        -----
        LinAlgWarning
            LAPACK factorised A and it is ill-conditioned to working precision, as in scipy.linalg.solve.
        FallbackWarning
            LAPACK answered a tenth or more of a batch that the model should cover: slower than LAPACK alone.
        """
        prepared: Prepared | PreparedTensor
        if needs_gradient(A):
            prepared = self._prepare_tensor(A, assume_a, copy=False)
        else:
            prepared = self._prepare(A, keep=needs_gradient(b), assume_a=assume_a)
        return prepared.solve(b, rtol, max_refinements, fallback, transpose)


_loaded = functools.lru_cache(maxsize=8)(LearnedSolver.from_pretrained)


def as_solver(model: str | Path | LearnedSolver) -> LearnedSolver:
    """Return a solver as it is, or the one of that name or folder, loaded once per process."""
    return _loaded(model) if isinstance(model, (str, Path)) else model
