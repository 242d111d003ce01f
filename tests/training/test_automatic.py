"""A family from whatever a user has, its recipe, and families in a user's own file."""

from __future__ import annotations

import dataclasses
import sys

import numpy as np
import pytest

from algebraformer import problems, train
from algebraformer.errors import ConfigurationError
from algebraformer.problems import ProblemFamily
from algebraformer.problems.custom import as_family, family_from_file, names_a_file
from algebraformer.solver import LearnedSolver
from algebraformer.training import RECIPES, RunOptions
from algebraformer.training.automatic import recipe_for, spectrum
from algebraformer.training.forms import Candidate

N = 6
SHIFTS = np.linalg.qr(np.random.default_rng(0).standard_normal((N, N)))[0]


def shifted_identity(rng):
    """One parameter."""
    return np.eye(N) + 0.3 * rng.uniform(-1, 1) * SHIFTS


@dataclasses.dataclass(frozen=True, kw_only=True)
class DiagonalABC(ProblemFamily):
    """Inverses that span as many dimensions as there are unknowns."""

    n: int = N
    low: float = 1.0

    def draw(self, rng):
        return {"d": rng.uniform(self.low, 3, self.n), "b": rng.standard_normal(self.n)}

    def assemble(self, params):
        return params["d"][:, :, None] * np.eye(self.n), params["b"]


@pytest.fixture(autouse=True)
def registry(monkeypatch):
    """What a test registers is forgotten after it."""
    monkeypatch.setattr(problems.base, "_REGISTRY", dict(problems.base._REGISTRY))
    monkeypatch.setattr(DiagonalABC, "name", "")


# ---------------------------------------------------------------- as_family


def test_a_function_becomes_a_family():
    family = as_family(shifted_identity)
    assert (family.name, family.n, type(family).__doc__) == ("shifted-identity", N, "One parameter.")
    systems = family.sample(20, seed=1)
    np.testing.assert_allclose(systems.A @ systems.x[:, :, None], systems.b[:, :, None], atol=1e-12)
    parameters = (systems.A - np.eye(N)) @ SHIFTS.T
    assert np.ptp(np.diagonal(parameters, axis1=1, axis2=2), axis=1) == pytest.approx(0, abs=1e-12)
    assert np.abs(np.std(systems.b) - 1) < 0.3
    assert problems.from_settings(family.settings()) == family
    assert type(as_family(shifted_identity)) is type(family)


def test_a_class_or_an_instance_keeps_its_settings():
    assert as_family(DiagonalABC) == DiagonalABC()
    family = as_family(DiagonalABC(n=4, low=2.0))
    assert family.settings() == {"name": "diagonal-abc", "n": 4, "low": 2.0}
    assert problems.from_settings(family.settings()) == family
    known = problems.get("diffusion", n=8)
    assert as_family(known) is known


def test_a_class_does_not_go_by_the_name_of_its_base():
    @dataclasses.dataclass(frozen=True, kw_only=True)
    class NarrowDiffusion(problems.family_class("diffusion")):
        n: int = 6

    family = as_family(NarrowDiffusion)
    assert family.name == "narrow-diffusion"
    assert type(problems.from_settings(family.settings())) is NarrowDiffusion
    assert problems.get("diffusion").name == "diffusion"


@pytest.mark.parametrize(
    ("identifier", "name"),
    [
        ("Beam", "beam"),
        ("ElasticBeam", "elastic-beam"),
        ("elastic_beam", "elastic-beam"),
        ("PDEModel", "pde-model"),
    ],
)
def test_names(identifier, name):
    def sample(rng):
        return np.eye(2)

    sample.__name__ = identifier
    assert as_family(sample).name == name


def test_a_name_that_is_taken_is_refused():
    def diffusion(rng):
        return np.eye(2)

    for name in ("diffusion", "Diffusion"):  # the second one is the name of the class that ships, too
        diffusion.__name__ = name
        with pytest.raises(ConfigurationError, match="a family named 'diffusion' is registered already"):
            as_family(diffusion)
    assert problems.get("diffusion", n=5).sample(1).A.shape == (1, 5, 5)


def test_a_function_that_is_defined_again_replaces_its_old_self():
    old = as_family(shifted_identity)

    def again(rng):
        return 2 * np.eye(3)

    again.__name__ = "shifted_identity"
    new = as_family(again)
    assert problems.get("shifted-identity", n=3).sample(1).A[0, 0, 0] == 2
    assert (old.n, new.n) == (N, 3)


class Abstract(ProblemFamily):
    """Without draw and assemble."""


@pytest.mark.parametrize(
    ("source", "message"),
    [
        (lambda rng: np.ones(3), r"<lambda> must return a matrix of shape \(n, n\), received \(3,\)"),
        (lambda rng: np.ones((2, 3)), r"received \(2, 3\)"),
        (lambda rng: np.ones((0, 0)), r"received \(0, 0\)"),
        (lambda rng: None, r"received \(\)"),
        (Abstract, "Abstract cannot be made with default settings"),
        (np, "expected a family, a class of families or a function that samples A, received <module"),
        (int, "expected a family"),
        (np.eye(3), "expected a family"),
    ],
    ids=["vector", "oblong", "empty", "nothing", "abstract", "module", "class", "matrix"],
)
def test_what_is_no_family_is_refused(source, message):
    with pytest.raises(ConfigurationError, match=message):
        as_family(source)


# ---------------------------------------------------------------- numbers that are not real


@dataclasses.dataclass(frozen=True, kw_only=True)
class Typed(DiagonalABC):
    """A, b and x of given types."""

    types: tuple[str, ...] = ("float64", "float64", "float64")

    def assemble(self, params):
        A, b = super().assemble(params)
        return (10 * A).astype(self.types[0]), (10 * b).astype(self.types[1])

    def solution(self, A, b, params):
        return super().solution(A, b, params).astype(self.types[2])


@pytest.mark.parametrize("types", [("complex128", "f8", "f8"), ("f8", "c8", "f8"), ("f8", "f8", "c16")])
def test_families_that_are_complex_without_saying_so_are_refused(tmp_path, types):
    """Also where every imaginary part is zero: no one can know whether that is always so."""
    what = "Abx"[[np.dtype(each).kind for each in types].index("c")]
    family = Typed(types=types)
    calls = [lambda: family.sample(2), lambda: family.at([1])]
    if what != "x":  # which an operator head does not look at before it is validated
        calls.append(lambda: train(family, tmp_path / "run"))
    for call in calls:
        with pytest.raises(ConfigurationError, match=f"^{what} of the family .* must be real, received complex"):
            call()
    assert not (tmp_path / "run").exists()


def test_a_complex_function_makes_a_complex_family(tmp_path, monkeypatch):
    """And one that is complex now and then is refused where it turns out."""
    monkeypatch.setattr("sys.path", list(sys.path))
    text = "def whirl(rng):\n    return np.eye(4) + 1j * rng.random((4, 4))\n"
    text += "def rarely(rng):\n    return np.eye(4) * (1 + 1j * (rng.random() < 0.2) if rng.random() > 0.5 else 1)\n"
    (tmp_path / "own.py").write_text("import numpy as np\n" + text)
    whirl = family_from_file(f"{tmp_path / 'own.py'}:whirl").sample(3)
    assert [array.dtype for array in (whirl.A, whirl.b, whirl.x)] == [complex] * 3
    assert whirl.b.imag.all()
    with pytest.raises(ConfigurationError, match="A of the family rarely must be real, received complex128"):
        family_from_file(f"{tmp_path / 'own.py'}:rarely").sample(100)


def test_a_complex_noisy_family_is_refused():
    @dataclasses.dataclass(frozen=True, kw_only=True)
    class Whirl(problems.NoisyFamily):
        def matrix(self, params):
            return np.broadcast_to(np.eye(self.n) * 1j, (len(params["noise"]), self.n, self.n))

        def classical_signal(self):
            return np.ones(self.n)

    with pytest.raises(ConfigurationError, match="A of the family whirl must be real"):
        as_family(Whirl(n=8)).sample(3)


@pytest.mark.parametrize("types", [("float32", "float32", "float32"), ("int64", "int8", "longdouble")])
def test_other_real_numbers_become_float64(types):
    systems = Typed(types=types, low=2.0).sample(3)
    assert {systems.A.dtype, systems.b.dtype, systems.x.dtype} == {np.dtype(np.float64)}
    expected = DiagonalABC(low=2.0).sample(3)
    np.testing.assert_array_equal(systems.A, (10 * expected.A).astype(types[0]))


@pytest.mark.parametrize("kind", [object, str])
def test_what_is_no_number_is_refused(kind):
    class Odd(DiagonalABC):
        def assemble(self, params):
            A, b = super().assemble(params)
            return A.astype(kind), b

    with pytest.raises(ConfigurationError, match="A of the family Odd must hold real numbers, received"):
        Odd().sample(2)


def test_a_solution_of_another_shape_is_refused():
    class Odd(DiagonalABC):
        def solution(self, A, b, params):
            return super().solution(A, b, params)[:, :, None]

    with pytest.raises(ConfigurationError, match=r"Odd.solution must return shape \(2, 6\), received \(2, 6, 1\)"):
        Odd().sample(2)


# ---------------------------------------------------------------- recipe_for


def test_spectrum_against_numpy():
    """Singular values of the centred, weighed T = A^-1 Abar, of as many samples, by numpy's SVD."""
    family = as_family(DiagonalABC)
    values = spectrum(family)
    A = family.assembled(range(len(values)), 2**63 + 4)[0]
    weight = np.diag(1 / np.sqrt(np.mean(np.diagonal(A, axis1=1, axis2=2) ** 2, axis=0)))
    A = A / np.sqrt(np.sum((A * weight) ** 2, axis=(1, 2)) / N**2)[:, None, None]
    T = np.linalg.solve(A, np.broadcast_to(A.mean(axis=0), A.shape)).reshape(len(A), -1)
    w = 1 / np.linalg.norm(T, axis=1)
    singular = np.linalg.svd((T - w @ T / w.sum()) * w[:, None], compute_uv=False) / np.sqrt(len(A))
    np.testing.assert_allclose(values[:N], singular[:N], rtol=1e-3)
    assert np.all(values[N:] < 1e-3 * values[0])


@pytest.mark.parametrize(("needed", "rank"), [(1, 16), (16, 16), (17, 32), (200, 208), (300, 256), (0, 16)])
def test_the_rank_is_read_off_the_spectrum(monkeypatch, needed, rank):
    """Values above 1e-4 of the first, rounded up to a multiple of 16, 256 at most."""
    values = np.where(np.arange(400) < needed, 2.0, 1.9e-4)
    monkeypatch.setattr("algebraformer.training.automatic.spectrum", lambda family, report: values)
    if needed == 0:
        monkeypatch.setattr("algebraformer.training.automatic.spectrum", lambda family, report: np.zeros(10))
    monkeypatch.setattr("algebraformer.training.automatic.readings", lambda family, report: {16: 0.1, 32: 0.1})
    recipe = recipe_for(problems.get("diffusion", n=32))
    assert recipe.model.head.rank == rank
    assert (recipe.model.head.name, recipe.model.n, recipe.model.head.n_column, recipe.model.head.n_row) == (
        "operator",
        32,
        16,
        16,
    )


def test_the_training_set_shrinks_with_n(monkeypatch):
    monkeypatch.setattr("algebraformer.training.automatic.spectrum", lambda family, report: np.ones(1))
    monkeypatch.setattr("algebraformer.training.automatic.readings", lambda family, report: {16: 0.0})
    dense = Candidate(form="dense", rank=16)
    monkeypatch.setattr("algebraformer.training.automatic.candidates", lambda *args: [dense])
    samples = [recipe_for(problems.get("diffusion", n=n)).samples for n in (16, 128, 256, 512, 2048)]
    assert samples == [50_000, 50_000, 12_500, 3_125, 2_048]


def test_settings_travel_in_the_recipe():
    family = as_family(DiagonalABC(low=2.0))
    recipe = recipe_for(family)
    assert recipe.problem_family() == family
    assert recipe.model.head.rank == 16  # six inverses, rounded up


def test_settings_that_are_not_json_are_refused():
    @dataclasses.dataclass(frozen=True, kw_only=True)
    class Odd(DiagonalABC):
        low: complex = 1j

    with pytest.raises(ConfigurationError, match="settings of a family travel in checkpoints as JSON"):
        recipe_for(as_family(Odd))


@pytest.mark.parametrize("m", [None, 8, 11])
def test_a_noisy_family_gets_an_estimate_head(m):
    family = problems.get("gravity", n=8, m=m)
    recipe = recipe_for(family)
    assert recipe.problem_family() == family
    assert (recipe.model.head.name, recipe.model.n, recipe.model.n_equations) == ("estimate", 8, m or 8)
    shipped = RECIPES["gravity-64"]
    assert (recipe.steps, recipe.batch_size, recipe.lr) == (shipped.steps, shipped.batch_size, shipped.lr)


def test_a_family_without_a_mean_is_refused():
    def random_sign(rng):
        return rng.standard_normal((N, N)) * np.array([1.0] + [0.0] * (N - 1))[:, None] + 1e-30 * np.eye(N)

    with pytest.raises(ConfigurationError, match="an operator head does not fit it"):
        recipe_for(as_family(random_sign))


# ---------------------------------------------------------------- train


@pytest.mark.parametrize(
    "source", [shifted_identity, DiagonalABC, DiagonalABC(n=5)], ids=["function", "class", "family"]
)
def test_train_takes_a_family(tmp_path, monkeypatch, source):
    for name, value in (("TRAINING_SAMPLES", 256), ("MIN_TRAINING_SAMPLES", 256)):
        monkeypatch.setattr(f"algebraformer.training.automatic.{name}", value)
    real = recipe_for
    monkeypatch.setattr(
        "algebraformer.training.trainer.recipe_for", lambda *args: dataclasses.replace(real(*args), steps=3)
    )
    result = train(source, tmp_path / "run", RunOptions(progress=False, workers=0))
    assert (result.finished, result.step) == (True, 3)
    solver, family = LearnedSolver.from_pretrained(result.folder), as_family(source)
    assert solver.info.problem_family() == family
    assert solver.info.name == family.name
    systems = family.sample(3, seed=5)
    assert solver.solve(systems.A, systems.b).certified.all()


# ---------------------------------------------------------------- a file


FILE = """
from __future__ import annotations
import dataclasses
import numpy as np
from algebraformer.problems import ProblemFamily
from beside import STRENGTH

@dataclasses.dataclass(frozen=True, kw_only=True)
class Mine(ProblemFamily):
    n: int = 5

    def draw(self, rng):
        return {"s": rng.uniform(1, STRENGTH), "b": rng.standard_normal(self.n)}

    def assemble(self, params):
        return params["s"][:, None, None] * np.eye(self.n), params["b"]

def by_function(rng):
    return rng.uniform(1, 2) * np.eye(3)

def raises(rng):
    raise KeyError("lost")

def ragged(rng):
    return np.eye(rng.integers(2, 50))

def not_a_number(rng):
    return np.diag([1.0, np.nan, 2.0])

def seldom(rng):
    return np.diag([1.0, np.inf if 0.5 < rng.random() < 0.52 else 1.0 + rng.random(), 2.0])

class Infinite(Mine):
    def assemble(self, params):
        A, b = super().assemble(params)
        return A, np.where(b > 0, np.inf, b)

class Oblong(Mine):
    def assemble(self, params):
        return np.ones((len(params["b"]), 5, 4)), params["b"]

LIMIT = 3

if __name__ == "__main__":
    raise SystemExit("executed as a script")
"""


@pytest.fixture
def file(tmp_path):
    (tmp_path / "mine.py").write_text(FILE)
    (tmp_path / "beside.py").write_text("STRENGTH = 2.0\n")
    return tmp_path / "mine.py"


def test_a_family_from_a_file(file, monkeypatch):
    monkeypatch.setattr("sys.path", list(sys.path))
    for name, expected in (("Mine", ("mine", 5)), ("by_function", ("by-function", 3)), ("Mine", ("mine", 5))):
        family = family_from_file(f"{file}:{name}")
        assert (family.name, family.n) == expected
        assert problems.from_settings(family.settings()) == family


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("Nothing", "mine.py has no 'Nothing'; it defines: Mine, by_function, raises, ragged, not_a_"),
        ("not_a_number", "A of the family not-a-number must be finite, received NaN or infinity at index 0 of seed 0"),
        ("Infinite", "b of the family infinite must be finite, received NaN or infinity at index"),
        ("LIMIT", "expected a family, a class of families or a function that samples A, received 3"),
        ("raises", "mine.py:raises cannot be sampled: KeyError: 'lost'"),
        ("ragged", "mine.py:ragged cannot be sampled: ValueError"),
        ("Oblong", "Oblong.assemble must return shapes"),
        ("", "expected FILE.py:NAME, received"),
        ("a b", "expected FILE.py:NAME, received"),
    ],
)
def test_names_in_a_file_that_are_no_families(file, monkeypatch, name, message):
    monkeypatch.setattr("sys.path", list(sys.path))
    with pytest.raises(ConfigurationError) as raised:
        family_from_file(f"{file}:{name}")
    assert message in str(raised.value)


def test_what_is_seldom_not_finite_is_refused_when_the_spectrum_is_taken(file, monkeypatch):
    monkeypatch.setattr("sys.path", list(sys.path))
    family = family_from_file(f"{file}:seldom")
    with pytest.raises(ConfigurationError, match="A of the family seldom must be finite, received NaN or infinity at"):
        recipe_for(family)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (None, "other.py: no such file; expected FILE.py:NAME"),
        ("import nothing_of_that_name", "other.py cannot be executed: ModuleNotFoundError: No module named"),
        ("x = (", "other.py cannot be executed: SyntaxError: '(' was never closed"),
        ("1 / 0", "other.py cannot be executed: ZeroDivisionError"),
        ("raise SystemExit(3)", "other.py cannot be executed: SystemExit: 3"),
    ],
)
def test_files_that_cannot_be_used(tmp_path, monkeypatch, text, message):
    monkeypatch.setattr("sys.path", list(sys.path))
    if text is not None:
        (tmp_path / "other.py").write_text(text)
    with pytest.raises(ConfigurationError) as raised:
        family_from_file(f"{tmp_path / 'other.py'}:Mine")
    assert message in str(raised.value)


def test_which_words_name_a_file():
    assert [names_a_file(text) for text in ("a.py:B", "a.py", "quick", "diffusion-64")] == [True, True, False, False]
