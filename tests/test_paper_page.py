"""The page of the paper's claims: complete, filled from the results, and honest about what is missing."""

from __future__ import annotations

import json
import math
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import scipy.sparse

from algebraformer import problems
from algebraformer.checkpoint import load, resolve
from algebraformer.training.data import TEST_SEED
from studies import claims
from studies.claims import CLAIMS, Claim, Fact, Sentences
from studies.harness import pages

ROOT = Path(__file__).resolve().parents[1]
RESULTS = ROOT / "results"
PAGE = (ROOT / "docs" / "paper.md").read_text()
SECTIONS = list(dict.fromkeys(claim.section for claim in CLAIMS))


def content(name: str) -> dict[str, Any]:
    return json.loads((RESULTS / f"{name}.json").read_text())


def rows(text: str) -> list[list[str]]:
    """Return the cells of the tables of claims in a text."""
    lines = [line for line in text.splitlines() if line.startswith("| ") and not line.startswith(("| ---", "| claim"))]
    return [re.split(r" (?<!\\)\| ", line.removeprefix("| ").removesuffix(" |")) for line in lines]


def test_the_page_is_up_to_date() -> None:
    assert pages.refreshed(PAGE, RESULTS) == PAGE, "run `make tables`"


def test_every_claim_is_on_the_page_once_and_in_order() -> None:
    assert re.findall(r"^<!-- claims: (.*) -->$", PAGE, re.MULTILINE) == SECTIONS
    assert [row[0] for row in rows(PAGE)] == [claim.claim for claim in CLAIMS]
    assert all(len(row) == 4 and all(row) for row in rows(PAGE))
    assert len({(claim.section, claim.claim) for claim in CLAIMS}) == len(CLAIMS)


def test_a_stale_page_is_noticed() -> None:
    assert pages.refreshed(PAGE.replace("9,511,169", "9,511,170"), RESULTS) == PAGE


def test_unknown_sections_are_refused() -> None:
    with pytest.raises(KeyError, match="no claim belongs to 'lost'"):
        pages.refreshed("<!-- claims: lost -->\n<!-- end claims -->\n", RESULTS)


@pytest.mark.parametrize(
    "source",
    [
        pytest.param(source, id=f"{source.study}: {', '.join(source.words)}")
        for source in dict.fromkeys(s for claim in CLAIMS for s in claim.sources if isinstance(s, Sentences))
    ],
)
def test_words_pick_a_sentence_of_every_verdict(source: Sentences) -> None:
    assert source.chosen(content(source.study)), "no sentence has these words: the page shows the whole verdict"


# ---------------------------------------------------------------- rows from results


def write(folder: Path, verdict: list[str], figure: bool = False) -> Path:
    made = {"command": "algebraformer study some --preset cpu --json", "verdict": verdict}
    (folder / "some.json").write_text(json.dumps(made))
    if figure:
        (folder / "some.png").touch()
    return folder


CLAIM = Claim("s", "it works", (Sentences("some", ("Works",)),))


def test_a_claim_without_a_result(tmp_path: Path) -> None:
    assert claims.row(CLAIM, tmp_path) == ["it works", "not measured yet", "Not measured yet: some.", "–"]
    two = Claim("s", "it works", (*CLAIM.sources, Sentences("some"), Sentences("other")))
    assert claims.row(two, tmp_path)[2] == "Not measured yet: some, other."


@pytest.mark.parametrize(
    ("sentence", "verdict"),
    [
        ("It works: reproduced.", "reproduced"),
        ("It works: Not reproduced, by 3.", "not reproduced"),
        ("It works: reproduced at smaller scale.", "reproduced at smaller scale"),
        ("It works.", "measured"),
        ("GRU: reproduced. LSTM works: not reproduced.", "reproduced; not reproduced"),
    ],
)
def test_the_verdict_is_that_of_the_sentence(tmp_path: Path, sentence: str, verdict: str) -> None:
    found = claims.row(CLAIM, write(tmp_path, ["Another: not reproduced.", sentence], figure=True))
    shown = "`algebraformer study some --preset cpu`, [figure](../results/some.png)"
    assert found == ["it works", verdict, sentence, shown]


def test_a_verdict_in_other_words_is_shown_whole(tmp_path: Path) -> None:
    assert claims.row(CLAIM, write(tmp_path, ["One.", "Two |x|."]))[2:] == [
        "One. Two \\|x\\|.",
        "`algebraformer study some --preset cpu`",
    ]


def test_the_first_source_with_a_verdict_decides(tmp_path: Path) -> None:
    silent, fact = Sentences("some"), Fact(lambda: ("holds", "By hand."), "[page](page.md)")
    found = claims.row(Claim("s", "c", (Sentences("later"), silent, fact)), write(tmp_path, ["No verdict in here."]))
    assert found[1:3] == ["holds", "No verdict in here. By hand. Not measured yet: later."]
    found = claims.row(Claim("s", "c", (silent, fact)), write(tmp_path, ["Reproduced."]))
    assert found[1] == "reproduced"


def test_a_page_fills_itself_when_a_result_appears(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(claims, "CLAIMS", (CLAIM,))
    before = pages.refreshed("x\n<!-- claims: s -->\n<!-- end claims -->\ny\n", tmp_path)
    assert "| it works | not measured yet |" in before
    after = pages.refreshed(before, write(tmp_path, ["It works: reproduced."]))
    assert rows(after) == [
        ["it works", "reproduced", "It works: reproduced.", "`algebraformer study some --preset cpu`"]
    ]
    assert after.startswith("x\n<!-- claims: s -->\n")
    assert after.endswith("<!-- end claims -->\ny\n")


# ---------------------------------------------------------------- numbers and facts


def test_numbers_come_out_either_way() -> None:
    token, operator = content("diffusion-64-token"), content("diffusion-64")
    worse = {**token, "network": {**token["network"], "mse": 3e-4}}
    assert claims.accuracy({**token, "network": {**token["network"], "mse": 2e-4}})[0] == "reproduced at smaller scale"
    assert claims.accuracy(worse)[0] == "not reproduced"
    assert "mse 0.0003," in claims.accuracy(worse)[1]
    for lapack, median, label in ((0.0, 0.9, "holds"), (1.0, 0.04, "holds in part"), (1.0, 0.9, "does not hold")):
        made = {"network": {"relative_error_median": median}, "solve": {"lapack": lapack}, "rtol": 1e-10}
        assert claims.direct(made)[0] == label
    solve = {**operator["solve"], "learned": 0.1, "learned+refined": 0.5}
    assert claims.operator_answers({**operator, "solve": solve})[0] == "holds in part"
    assert "60 % of 1000 systems" in claims.operator_answers({**operator, "solve": solve})[1]


def test_memory_and_speed_either_way() -> None:
    bench = content("bench")
    assert claims.memory(bench)[0] == "reproduced"
    for entry in bench["memory"]:
        entry["exponents"][-1]["exponent"] = 2.0
    assert claims.memory(bench)[0] == "not reproduced"
    seconds = {
        f"{who}, batch {b}": s for b in (1, 64) for who, s in (("predict, paper", 2e-3), ("numpy.linalg.solve", 1e-3))
    }
    assert claims.speed({"seconds_per_system": seconds})[0] == "holds"
    seconds["predict, paper, batch 64"] = 3e-3
    label, text = claims.speed({"seconds_per_system": seconds})
    assert label == "does not hold"
    assert "3 ms a system against 1 ms of LAPACK at batch 64" in text


def test_smoothness_and_size() -> None:
    made = {"family": "f", "rank": 7, "methods": {"projection": {"contraction_median": 0.05}}}
    assert claims.smoothness({"data": {"records": [made]}}) == (
        "holds",
        "The inverses of a family lie near few operators; what the best combination of them leaves of an error: "
        "0.05 (f, 7 operators).",
    )
    made["methods"]["projection"]["contraction_median"] = 0.5
    assert claims.smoothness({"data": {"records": [made]}})[0] == "holds in part"
    scaling = content("scaling")
    assert claims.large(scaling)[0] == ""
    assert f"n = {max(r['n'] for r in scaling['data']['records'])}:" in claims.large(scaling)[1]
    assert claims.unstructured(content("outside"))[0] == "not measured yet"


def test_the_number_of_parameters() -> None:
    """Counted by hand: n = 64, width 256, 12 blocks; biases everywhere, norms with scale and shift."""
    n, d, blocks = 64, 256, 12
    block = 2 * 2 * d + (d * 3 * d + 3 * d) + (d * d + d) + (d * 4 * d + 4 * d) + (4 * d * d + d)
    count = ((n + 1) * d + d) + n * d + blocks * block + 2 * d + (d + 1)
    assert claims.parameters()[0] == "holds"
    assert f"exactly {count:,} parameters" in claims.parameters()[1]


def test_a_condition_number_amplifies_an_error_by_itself() -> None:
    """Random directions stay below the bound, the extreme ones reach it."""
    assert claims.conditioning()[0] == "holds"
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
    label, text = claims.density()
    assert label == "holds"
    banded = scipy.sparse.diags_array([1.0, -2.0, 1.0], offsets=[-1, 0, 1], shape=(64, 64))
    assert f"against {100 * banded.nnz / 64**2:.2g} %" in text
    assert "100 % of the entries" in text
    assert (problems.get("diffusion", n=64).sample(1, TEST_SEED).A != 0).all()


def test_tokens_and_condition_numbers() -> None:
    assert claims.tokens() == ("holds", f"At n = 64 it is 64 tokens instead of {64 * 64:,}.")
    assert "64 tokens of 65 numbers" in claims.pipeline()[1]
    A = problems.get("diffusion", n=64).sample(200, TEST_SEED).A
    kappas = sorted(float(s[0] / s[-1]) for s in np.linalg.svd(A, compute_uv=False))
    found = [float(number) for number in re.findall(r"\d\.\de\+\d\d", claims.difficulty()[1])]
    expected = [kappas[0], kappas[-1], (kappas[99] + kappas[100]) / 2]
    assert [math.isclose(a, b, rel_tol=0.05) for a, b in zip(found, expected, strict=True)] == [True] * 3


def test_the_shipped_token_head_is_the_one_described() -> None:
    config = load(resolve("diffusion-64-token"))[0].config
    assert "four blocks of width 96" in claims.accuracy(content("diffusion-64-token"))[1]
    assert (config.n_layer, config.n_embd, config.head.encoding) == (4, 96, "column")
