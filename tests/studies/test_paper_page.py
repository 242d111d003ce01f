"""The page of the paper's claims: complete, filled from outcomes, and an error where one is missing."""

from __future__ import annotations

import dataclasses
import json
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import scipy.sparse

from algebraformer import problems
from algebraformer.checkpoint import load, resolve
from algebraformer.reporting import Verdict, in_json, outcome
from algebraformer.training.data import TEST_SEED
from studies.claims import facts
from studies.claims import rows as page_rows
from studies.claims.sources import Claim, Fact, Shown
from studies.claims.summary import CLAIMS
from studies.harness import pages

ROOT = Path(__file__).resolve().parents[2]
RESULTS = ROOT / "results"
PAGE = (ROOT / "docs" / "paper.md").read_text()
SOURCES = list(dict.fromkeys(source for claim in CLAIMS for source in claim.sources))
MAX_WORDS = 15


def content(name: str) -> dict[str, Any]:
    return json.loads((RESULTS / f"{name}.json").read_text())


def rows(text: str) -> list[list[str]]:
    """Return the cells of the tables of claims in a text."""
    lines = [line for line in text.splitlines() if line.startswith("| ") and not line.startswith(("| ---", "| part"))]
    return [re.split(r" (?<!\\)\| ", line.removeprefix("| ").removesuffix(" |")) for line in lines]


def test_the_page_is_up_to_date() -> None:
    assert pages.refreshed(PAGE, RESULTS) == PAGE, "run `make tables`"


def test_every_claim_is_on_the_page_once_and_in_order() -> None:
    assert [row[:2] for row in rows(PAGE)] == [[claim.part, claim.claim] for claim in CLAIMS]
    assert all(len(row) == 5 and all(row) for row in rows(PAGE))
    assert len({claim.claim for claim in CLAIMS}) == len(CLAIMS)


def test_cells_are_short_and_have_a_verdict() -> None:
    assert [cell for row in rows(PAGE) for cell in row if len(cell.split()) > MAX_WORDS] == []
    assert {row[2] for row in rows(PAGE)} <= {str(verdict) for verdict in Verdict}


def test_a_stale_page_is_noticed() -> None:
    assert pages.refreshed(PAGE.replace("9,511,169", "9,511,170"), RESULTS) == PAGE


def test_every_fact_and_evaluation_is_used() -> None:
    assert {source.id for source in SOURCES if isinstance(source, Fact)} == set(facts.FACTS)
    assert {source.result for source in SOURCES if isinstance(source, Shown)} >= set(facts.EVALUATED)


# ---------------------------------------------------------------- rows from results


def write(folder: Path, figure: bool = False, **verdicts: Verdict) -> Path:
    """Write a result with an outcome for each verdict, with the number 0.25."""
    outcomes = {f"some.{name}": outcome(verdict, value=0.25) for name, verdict in verdicts.items()}
    made = {"command": "algebraformer study some --preset cpu --json", **in_json(outcomes, [])}
    (folder / "some.json").write_text(json.dumps(made))
    for suffix in (".md", ".png") if figure else ():
        (folder / f"some{suffix}").touch()
    return folder


WORKS, ALSO = Shown("some", "some.works", "value {value:.1f}"), Shown("some", "some.also")
CLAIM = Claim("s", "it works", (WORKS,))


@pytest.mark.parametrize("verdict", [Verdict.REPRODUCED, Verdict.MISSED, Verdict.INCONCLUSIVE])
def test_a_row_has_the_verdict_and_the_number_of_the_outcome(tmp_path: Path, verdict: Verdict) -> None:
    found = page_rows.row(CLAIM, write(tmp_path, figure=True, other=Verdict.FAILS, works=verdict))
    assert found == ["s", "it works", str(verdict), "value 0.2", "[some](../results/some.png)"]


@pytest.mark.parametrize(
    ("works", "also", "expected"),
    [
        (Verdict.REPRODUCED, Verdict.REPRODUCED, Verdict.REPRODUCED),
        (Verdict.REPRODUCED, Verdict.SMALLER_SCALE, Verdict.SMALLER_SCALE),
        (Verdict.REPRODUCED, Verdict.NOT_REPRODUCED, Verdict.PARTLY_REPRODUCED),
        (Verdict.HOLDS, Verdict.FAILS, Verdict.PARTLY),
        (Verdict.FAILS, Verdict.FAILS, Verdict.FAILS),
    ],
)
def test_several_outcomes_decide_together(tmp_path: Path, works: Verdict, also: Verdict, expected: Verdict) -> None:
    claim = dataclasses.replace(CLAIM, sources=(WORKS, ALSO))
    assert page_rows.row(claim, write(tmp_path, works=works, also=also))[2] == expected


def test_sources_that_do_not_decide(tmp_path: Path) -> None:
    write(tmp_path, works=Verdict.REPRODUCED, also=Verdict.NOT_REPRODUCED)
    silent = dataclasses.replace(ALSO, decides=False, text="|{value}|")
    found = page_rows.row(Claim("s", "c", (WORKS, silent)), tmp_path)
    assert found[2:4] == ["reproduced", "value 0.2; \\|0.25\\|"]
    assert page_rows.row(Claim("s", "c", (silent,)), tmp_path)[2] == "measured"
    assert page_rows.row(Claim("s", "c", (silent,), undecided=Verdict.INCONCLUSIVE), tmp_path)[2] == "inconclusive"


def test_what_is_missing_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match=r"some\.json"):
        page_rows.row(CLAIM, tmp_path)
    write(tmp_path, works=Verdict.HOLDS)
    with pytest.raises(KeyError, match=r"has no outcome 'some\.also'"):
        page_rows.row(Claim("s", "c", (ALSO,)), tmp_path)
    with pytest.raises(KeyError, match="other"):
        page_rows.row(Claim("s", "c", (dataclasses.replace(WORKS, text="{other}"),)), tmp_path)


def test_a_page_is_filled_from_results(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(page_rows, "CLAIMS", (CLAIM,))
    page = "x\n<!-- claims -->\nold\n<!-- end claims -->\ny\n"
    found = pages.refreshed(page, write(tmp_path, works=Verdict.REPRODUCED))
    assert rows(found) == [["s", "it works", "reproduced", "value 0.2", "`some`"]]
    assert found.startswith("x\n<!-- claims -->\n")
    assert found.endswith("<!-- end claims -->\ny\n")


# ---------------------------------------------------------------- evaluations and facts


def test_evaluations_either_way() -> None:
    token, operator = content("diffusion-64-token"), content("diffusion-64")
    for mse, verdict in ((2e-4, Verdict.SMALLER_SCALE), (3e-4, Verdict.NOT_REPRODUCED)):
        found = facts.token_head({**token, "network": {**token["network"], "mse": mse}})["token-head.mse"]
        assert (found.verdict, found.numbers) == (verdict, {"mse": mse, "paper": 0.00024131})
    for lapack, median, verdict in (
        (0.0, 0.9, Verdict.HOLDS),
        (1.0, 0.04, Verdict.PARTLY),
        (1.0, 0.9, Verdict.FAILS),
    ):
        made = {"network": {"mse": 1.0, "relative_error_median": median}, "solve": {"lapack": lapack}}
        assert facts.token_head(made)["token-head.direct"].verdict == verdict
    solve = {**operator["solve"], "learned": 0.1, "learned+refined": 0.5}
    found = facts.operator_head({**operator, "solve": solve})["operator-head.certified"]
    assert (found.verdict, found.numbers["by_network"]) == (Verdict.PARTLY, 0.6)


def test_speed_either_way() -> None:
    seconds = {
        f"{who}, batch {b}": s for b in (1, 64) for who, s in (("predict, paper", 2e-3), ("numpy.linalg.solve", 1e-3))
    }
    assert facts.bench({"seconds_per_system": seconds})["bench.speed"].verdict == Verdict.HOLDS
    seconds["predict, paper, batch 64"] = 3e-3
    found = facts.bench({"seconds_per_system": seconds})["bench.speed"]
    assert (found.verdict, found.numbers["ms_64"], found.numbers["lapack_ms_64"]) == (Verdict.FAILS, 3, 1)


def test_the_number_of_parameters() -> None:
    """Counted by hand: n = 64, width 256, 12 blocks; biases everywhere, norms with scale and shift."""
    n, d, blocks = 64, 256, 12
    block = 2 * 2 * d + (d * 3 * d + 3 * d) + (d * d + d) + (d * 4 * d + 4 * d) + (4 * d * d + d)
    count = ((n + 1) * d + d) + n * d + blocks * block + 2 * d + (d + 1)
    found = facts.parameters()
    assert (found.verdict, found.numbers) == (Verdict.HOLDS, {"parameters": count})


def test_a_condition_number_amplifies_an_error_by_itself() -> None:
    """Random directions stay below the bound, the extreme ones reach it."""
    found = facts.conditioning()
    assert (found.verdict, found.numbers["change"]) == (Verdict.HOLDS, pytest.approx(1e-3))
    rng = np.random.default_rng(0)
    U, V = (np.linalg.qr(rng.standard_normal((20, 20)))[0] for _ in range(2))
    A = U @ np.diag(np.geomspace(1, 1e-5, 20)) @ V.T

    def change(b: Any, db: Any) -> float:
        x = np.linalg.solve(A, b)
        return float(np.linalg.norm(np.linalg.solve(A, b + 1e-8 * db) - x) / np.linalg.norm(x))

    assert change(U[:, 0], U[:, -1]) == pytest.approx(1e-3, rel=1e-4)
    for _ in range(20):
        b, db = rng.standard_normal((2, 20))
        assert change(b / np.linalg.norm(b), db / np.linalg.norm(db)) < 1e-3


def test_spectral_matrices_are_dense_and_differences_are_not() -> None:
    banded = scipy.sparse.diags_array([1.0, -2.0, 1.0], offsets=[-1, 0, 1], shape=(64, 64))
    found = facts.density()
    assert (found.verdict, found.numbers) == (Verdict.HOLDS, {"spectral": 1.0, "differences": banded.nnz / 64**2})
    assert (problems.get("diffusion", n=64).sample(1, TEST_SEED).A != 0).all()


def test_tokens_and_condition_numbers() -> None:
    assert facts.tokens().numbers == {"column": 64, "entry": 64 * 64}
    assert facts.pipeline().numbers == {"tokens": 64, "width": 65}
    assert facts.tokens().verdict == facts.pipeline().verdict == Verdict.HOLDS
    A = problems.get("diffusion", n=64).sample(200, TEST_SEED).A
    kappas = sorted(float(s[0] / s[-1]) for s in np.linalg.svd(A, compute_uv=False))
    expected = {"low": kappas[0], "median": (kappas[99] + kappas[100]) / 2, "high": kappas[-1]}
    assert facts.difficulty().numbers == pytest.approx(expected, rel=1e-6)


def test_the_shipped_token_head_is_small() -> None:
    config = load(resolve("diffusion-64-token"))[0].config
    assert (config.n_layer, config.n_embd, config.head.encoding) == (4, 96, "column")
