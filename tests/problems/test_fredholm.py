"""All integral equations in one family: every system is one of its member's."""

from __future__ import annotations

import numpy as np
import pytest

from algebraformer import problems
from algebraformer.errors import ConfigurationError, UnknownNameError
from algebraformer.problems.fredholm import OPERATOR_PARAMETERS

FAMILY = problems.get("fredholm", n=10, m=12, noise=(1e-2, 2e-2), priors=("smooth", "classical"))


def test_members_are_all_integral_equations() -> None:
    found = {name for name in problems.names() if issubclass(problems.family_class(name), problems.FredholmFamily)}
    assert set(FAMILY.members) == found


def test_every_system_is_a_members() -> None:
    systems = FAMILY.sample(200, seed=1)
    members = systems.params["member"]
    assert np.bincount(members, minlength=len(FAMILY.members)).min() >= 10
    for i in range(0, 200, 7):
        family = problems.get(FAMILY.members[members[i]], n=10, m=12)
        params = {name: value[i : i + 1] for name, value in systems.params.items() if name not in ("member", "clean")}
        A, b = family.assemble(params)
        np.testing.assert_array_equal(systems.A[i], A[0])
        np.testing.assert_array_equal(systems.b[i], b[0])
        used = [name for name in OPERATOR_PARAMETERS if hasattr(family, name)]
        assert all((params[name][0] == 0) == (name not in used) for name in OPERATOR_PARAMETERS if name != "slope")
    assert ((systems.params["noise"] >= 1e-2) & (systems.params["noise"] <= 2e-2)).all()


def test_classical_signals_are_the_members_own() -> None:
    systems = problems.get("fredholm", n=10, priors=("classical",)).sample(60, seed=2)
    for i in range(60):
        own = problems.get(FAMILY.members[systems.params["member"][i]], n=10).classical_signal()
        np.testing.assert_allclose(systems.x[i] * np.linalg.norm(own), own * np.linalg.norm(systems.x[i]), atol=1e-12)


@pytest.mark.parametrize(
    ("members", "error", "message"),
    [
        ((), ConfigurationError, "members must be names of families"),
        (("diffusion",), ConfigurationError, "members must be integral equations, received 'diffusion'"),
        (("fredholm",), ConfigurationError, "members must be integral equations, received 'fredholm'"),
        (("nonsense",), UnknownNameError, "unknown family 'nonsense'"),
    ],
)
def test_other_members_are_refused(members: tuple[str, ...], error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        problems.get("fredholm", members=members)
