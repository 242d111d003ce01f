"""Names that the documentation taught at earlier places give the new object, and a warning that says where it is."""

from __future__ import annotations

import importlib
import re
import subprocess
import sys

import pytest

from algebraformer import _deprecated

TAUGHT = {
    "classical.conjugate_residuals": {"solve": "numerics.gcr", "SLOW": "numerics.gcr:STAGNATION_FACTOR"},
    "classical.linear_estimator": {"LinearEstimator": "studies.baselines.lmmse", "fit": "studies.baselines.lmmse"},
    "classical.lp": {"minimize": "studies.baselines.lp"},
    "classical.operator_basis": {
        "OperatorBasis": "numerics.operator_basis",
        "fit": "numerics.operator_basis",
        "MeanInverse": "numerics.preconditioner",
    },
    "classical.reading": {"Reading": "numerics.entry_sampler:EntrySampler"},
    "classical.regularization": {"tikhonov": "numerics.regularization", "decompose": "numerics.regularization"},
    "classical.sparse": {"total_variation": "studies.baselines.sparse", "lasso": "studies.baselines.sparse"},
    "lp_norm": {"norm": "numerics.lp_norm:p_norm"},
    "models": {"systems_at_once": "models:max_batch_size"},
    "plots": {"save_report": "plotting", "save": "plotting", "boundary_value_figure": "plotting"},
    "report": {"print_table": "reporting"},
    "studies.attention": {"attention_maps": "studies.attention.measure"},
    "studies.base": {"StudyResult": "reporting:Report", "TableData": "reporting", "write_results": "reporting"},
    "studies.family": {"measure": "assessment:assess", "Plan": "assessment", "contraction": "assessment"},
    "studies.operator": {"exact_solution": "studies.operator.measure"},
    "training.automatic": {"Sampler": "problems.custom", "as_family": "problems.custom"},
    "training.from_file": {"family_from_file": "problems.custom"},
    "training": {"score": "metrics", "FewSystems": "training.recipes:FinetuneRecipe"},
}
"""Names by their earlier module, with the new module and, after a colon, the new name if it is another one."""
CASES = [
    (old, name, place if place.startswith("studies.") else f"algebraformer.{place}", new or name)
    for old, names in TAUGHT.items()
    for name, (place, _, new) in ((name, where.partition(":")) for name, where in names.items())
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
    assert set(TAUGHT) == {*_deprecated.MODULES, "models", "training", "training.automatic"}
    assert {f"{old}.{name}" for old, names in TAUGHT.items() for name in names} >= set(_deprecated.RENAMED)


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
