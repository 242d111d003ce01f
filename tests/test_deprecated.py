"""Names that the documentation taught at earlier places give the new object, and a warning that says where it is."""

from __future__ import annotations

import importlib
import re
import subprocess
import sys

import pytest

from algebraformer import _deprecated

TAUGHT = {
    "classical.conjugate_residuals": {"solve": "numerics.gcr"},
    "classical.linear_estimator": {"LinearEstimator": "studies.baselines.lmmse", "fit": "studies.baselines.lmmse"},
    "classical.lp": {"minimize": "studies.baselines.lp"},
    "classical.operator_basis": {"OperatorBasis": "numerics.operator_basis", "fit": "numerics.operator_basis"},
    "classical.regularization": {"tikhonov": "numerics.regularization", "decompose": "numerics.regularization"},
    "classical.sparse": {"total_variation": "studies.baselines.sparse", "lasso": "studies.baselines.sparse"},
    "lp_norm": {"newton_step": "numerics.lp_norm", "line_search": "numerics.lp_norm"},
    "plots": {"save_report": "plotting", "save": "plotting", "boundary_value_figure": "plotting"},
    "report": {"print_table": "reporting"},
    "studies.attention": {"attention_maps": "studies.attention.measure"},
    "studies.base": {"TableData": "reporting", "write_results": "reporting"},
    "studies.family": {"Plan": "assessment", "contraction": "assessment"},
    "studies.operator": {"exact_solution": "studies.operator.measure"},
}
CASES = [
    (old, name, place if place.startswith("studies.") else f"algebraformer.{place}", name)
    for old, names in TAUGHT.items()
    for name, place in names.items()
] + [
    (*old.rsplit(".", 1), *new.rsplit(".", 1))
    for old, new in _deprecated.RENAMED.items()
    if "preconditioner" not in old
]


@pytest.mark.parametrize(("old", "name", "place", "new"), CASES)
def test_an_earlier_name_gives_the_new_object_and_says_where_it_is(old: str, name: str, place: str, new: str) -> None:
    module = importlib.import_module(f"algebraformer.{old}")
    expected = getattr(importlib.import_module(place), new)
    message = f"algebraformer.{old}.{name} is now {place}.{new}"
    with pytest.warns(DeprecationWarning, match=f"^{re.escape(message)}$") as caught:
        assert getattr(module, name) is expected
    assert caught[0].filename == __file__


def test_every_earlier_module_is_tested() -> None:
    assert {case[0] for case in CASES} >= set(_deprecated.MODULES)


def test_names_that_never_were() -> None:
    with pytest.raises(AttributeError, match="nothing"):
        importlib.import_module("algebraformer.plots").nothing  # noqa: B018
    with pytest.raises(ImportError):
        importlib.import_module("algebraformer.classical.nothing")


def test_every_way_to_import_works() -> None:
    code = """
from algebraformer.studies.family import Plan, measure
from algebraformer.classical import regularization
import algebraformer.classical.reading as reading
from algebraformer import plots
print(Plan, measure, regularization.tikhonov, reading.Reading, plots.save)
"""
    arguments = [sys.executable, "-W", "ignore::DeprecationWarning", "-c", code]
    assert subprocess.run(arguments, capture_output=True, text=True, check=True).stderr == ""


def test_what_does_not_ship_is_named(tmp_path) -> None:
    """Outside a checkout there is no package `studies`."""
    code = """
import importlib.abc, sys
class Blocked(importlib.abc.MetaPathFinder):
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] == "studies":
            raise ModuleNotFoundError(f"No module named {name!r}", name=name)
sys.meta_path.insert(0, Blocked())
try:
    from algebraformer.classical.sparse import lasso
except ImportError as error:
    print(error)
"""
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=tmp_path)
    assert "algebraformer.classical.sparse is now studies.baselines.sparse, which does not ship" in run.stdout
