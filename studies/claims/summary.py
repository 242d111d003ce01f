"""The claims, questions and open points of the summary, in its order and in our words."""

from __future__ import annotations

import dataclasses
from typing import Any

from algebraformer.reporting import Verdict
from studies.claims.sources import Claim, Fact, Shown

MODELS, DEPARTURES, FAMILIES = "[models](models.md)", "[departures](departures.md)", "[families](families.md)"
MSE = Shown("diffusion-64-token", "token-head.mse", "small token head {mse:.2g}, paper {paper:.2g}, on other data")
DIRECT = Shown(
    "diffusion-64-token",
    "token-head.direct",
    "median relative error {relative_error:.2g}; {lapack:.0%} needed LAPACK for a certified answer",
)
RECIPE = Shown(
    "spectral",
    "spectral.paper-recipe",
    "{steps} steps of the paper's recipe: normalized_mse {normalized_mse:.2g}; extrapolated to all: {extrapolated:.2g}",
    decides=False,
)
LSTM = Shown("spectral", "spectral.beats/diffusion, LSTM", "mse {ratio:.2g} of LSTM's")
GRU = Shown("spectral", "spectral.beats/diffusion, GRU", "{ratio:.2g} of GRU's")
BIDIRECTIONAL = Shown(
    "spectral", "spectral.beats-bidirectional/diffusion", "{ratio:.2g} times that of {network}", decides=False
)
FINE_TUNING = Shown(
    "transfer",
    "transfer.fewer-epochs/token head",
    "{reaction-diffusion:,.0f} times fewer epochs on reaction-diffusion, {advection-diffusion:.3g} on "
    "advection-diffusion",
)
FOUR_TIMES = Shown(
    "newton", "newton.four-times", "learned start: {times:.3g} times fewer iterations than with step 1/(p−1)"
)
DIRECTION = Shown(
    "newton",
    "newton.learned-direction/filter, n = 32",
    "the paper's way: a learned step was taken in {accepted:.0%} of the problems",
)
AROUND = Shown(
    "condition",
    "condition.around-1e5",
    "{learned} of {networks} networks learned; without LAPACK: token head {solved_min:.0%}",
)
SHIPPED = Shown("diffusion-64", "operator-head.certified", "shipped operator head {by_network:.1%}", decides=False)
KAPPA = Fact("difficulty", "median kappa {median:.1e}", FAMILIES, decides=False)
STORED = Shown("encoding", "encoding.memory/math", "attention scores stored: n^{column:.2g} against n^{entry:.2g}")
NOT_STORED = Shown("encoding", "encoding.memory/default", "not stored: n^{column:.2g} against n^{entry:.2g}")
COLUMNS_SUFFICE = Shown(
    "encoding",
    "encoding.columns-suffice",
    "normalized_mse {mean:.2g} with column tokens, {other_mean:.2g} with entry tokens, at equal compute",
)
FAR_ABOVE = Shown(
    "condition",
    "condition.far-above-training",
    "normalized_mse {ratio_min:.2g} to {ratio_max:.2g} times as high at kappa 1e5 to 1e6",
)
BEYOND = Shown(
    "condition",
    "condition.beyond-1e5",
    "solved in {works} of {groups} groups; largest share without LAPACK {solved:.0%}",
)
LARGE = Shown(
    "scaling",
    "scaling.speed-up/n = 1024",
    "operator head at n = {n}: {by_network:.0%} certified without LAPACK; no token head there",
    decides=False,
)


def of(source: Shown, **changes: Any) -> Shown:
    """Return a source with another text, or one that does not decide."""
    return dataclasses.replace(source, **changes)


def epochs(family: str) -> Shown:
    """Return the epochs from scratch and by fine-tuning of the token head on a family."""
    text = f"{family}: {{scratch:g}} from scratch, {{fine:g}} fine-tuned"
    return Shown("transfer", f"transfer.epochs/token head, {family}", text, decides=False)


EPOCHS = (of(FINE_TUNING, text=""), epochs("reaction-diffusion"), epochs("advection-diffusion"))

CLAIMS = (
    Claim("key-results", "Mean squared error of 0.00024131 on diffusion.", (MSE,)),
    Claim("key-results", "More accurate than an LSTM (0.00048211) and a GRU (0.00031371).", (LSTM, GRU, BIDIRECTIONAL)),
    Claim(
        "key-results",
        "A network fine-tuned from diffusion needs 100 epochs where one from scratch needs 1,000.",
        (FINE_TUNING,),
    ),
    Claim(
        "key-results", "Newton's method for ℓₚ regression converges about four times faster.", (FOUR_TIMES, DIRECTION)
    ),
    Claim("key-results", "It copes with condition numbers around 10⁵.", (AROUND, SHIPPED, KAPPA)),
    Claim(
        "mechanisms",
        "One token per column instead of one per entry of A.",
        (Fact("tokens", "{column:,} tokens instead of {entry:,} at n = 64", MODELS),),
    ),
    Claim("mechanisms", "Memory grows as n² instead of n⁴.", (STORED, NOT_STORED)),
    Claim("mechanisms", "Columns as tokens keep enough information to learn the inverse mapping.", (COLUMNS_SUFFICE,)),
    Claim("mechanisms", "A Transformer maps (A, b) to x directly, without an iteration.", (DIRECT,)),
    Claim(
        "mechanisms",
        "The mapping is smooth enough for a network to approximate the inverse operator.",
        (
            Shown(
                "operator",
                "operator.smooth/diffusion",
                "the best combination of {rank} operators leaves {contraction:.2g} of an error on diffusion",
            ),
            Shown("operator", "operator.smooth/reaction-diffusion"),
            Shown("operator", "operator.smooth/advection-diffusion"),
            Shown("operator", "operator.smooth/random-diffusion", "of {rank} {contraction:.2g} on random-diffusion"),
        ),
    ),
    Claim(
        "mechanisms",
        "Pre-training on diffusion gives structure that harder equations reuse, so that they need less data.",
        (
            of(FINE_TUNING, text=""),
            Shown(
                "transfer",
                "transfer.lowest-error/token head, reaction-diffusion",
                "best normalized_mse on 250 systems of reaction-diffusion: {fine:.2g} fine-tuned, {scratch:.2g} from "
                "scratch",
                decides=False,
            ),
        ),
    ),
    Claim(
        "questions",
        "Condition number 10⁵ and a relative error of 10⁻⁸ in the input: how large can the error of x get? About 10⁻³.",
        (
            Fact("conditioning", "{change:.1g} for a diagonal matrix", "[the certificate](certificate.md)"),
            Shown(
                "perturbation",
                "perturbation.kappa-eps/randsvd, kappa = 1e+05",
                "random matrices: {A_worst:.2g} in the worst direction, {A_random:.2g} in a random one",
            ),
        ),
    ),
    Claim(
        "questions",
        "Why are the matrices of spectral methods dense and those of finite differences sparse?",
        (
            Fact(
                "density",
                "every basis function reaches everywhere: {spectral:.0%} of the entries are nonzero, with three-point "
                "differences {differences:.2g}",
                FAMILIES,
            ),
        ),
    ),
    Claim(
        "questions",
        "What does each attention head correlate?",
        (
            Shown(
                "attention",
                "attention.preferred-place",
                "{parity} of {heads} heads look at columns of one parity, {parity_before} before training",
                decides=False,
            ),
            Shown("attention", "attention.learned-correlation/to b", "{heads} follow b", decides=False),
        ),
    ),
    Claim(
        "design",
        "Tokens of columns, a linear embedding, blocks with attention, one entry of x from each token, squared error.",
        (Fact("pipeline", "{tokens} tokens of {width} numbers at n = 64; our loss is scaled", DEPARTURES),),
    ),
    Claim(
        "design",
        "Column tokens allow larger matrices and lose attention between single entries.",
        (
            of(COLUMNS_SUFFICE, text="normalized_mse {times:.2g} times lower than with entry tokens at equal compute"),
            of(STORED, text="at n = {n} entry tokens take {ratio:.0f} times the memory"),
        ),
    ),
    Claim(
        "design",
        "About 9.5 million parameters are few enough to compete with numerical solvers in speed.",
        (
            Shown("bench", "bench.speed", "{ms_64:.3g} ms per system at n = 64, LAPACK {lapack_ms_64:.2g} ms"),
            Shown("scaling", "scaling.one-at-a-time", "operator head, one at a time: fastest at {wins} of {sizes} n"),
        ),
    ),
    Claim("design", "So few parameters may limit accuracy on systems of many unknowns.", (LARGE,)),
    Claim(
        "design",
        "Decoder-only is simpler than an encoder and a decoder, and may use context in both directions less well.",
        (
            Shown(
                "attention",
                "attention.bidirectional-better",
                "normalized_mse {mean:.2g} with a causal mask, {other_mean:.2g} in both directions",
            ),
        ),
    ),
    Claim("failures", "Less accurate where the condition number is far above that of the training.", (FAR_ABOVE,)),
    Claim("failures", "From scratch a new equation may take more than 1,000 epochs, fine-tuned about 100.", EPOCHS),
    Claim(
        "failures",
        "The first forward pass is delayed by about one second.",
        (
            Shown(
                "latency",
                "latency.paper-delay",
                "first call at most {extra_ms:.2g} ms longer than later ones; import of torch {torch_seconds:.2g} s",
            ),
        ),
    ),
    Claim("experiments", "Train on 50,000 diffusion systems for 400 epochs and find an mse near 0.00024.", (RECIPE,)),
    Claim("experiments", "Compare column tokens with flattening the matrix at n = 16.", (COLUMNS_SUFFICE,)),
    Claim(
        "experiments",
        "Train on condition numbers from 10³ to 10⁴, test from 10⁵ to 10⁶, and measure what is lost.",
        (
            of(FAR_ABOVE, text=""),
            Shown(
                "condition",
                "condition.lost/randsvd, spread 0.001 (operator head)",
                "near one matrix: normalized_mse {near:.2g}, then {far:.2g}",
                decides=False,
            ),
            Shown(
                "condition",
                "condition.haar/token head",
                "Haar-random matrices are not learned: {normalized_mse:.2g}",
                decides=False,
            ),
        ),
    ),
    Claim(
        "limitations",
        "The paper names no open questions.",
        (Fact("nothing", "what the summary leaves open is listed with the departures", DEPARTURES, decides=False),),
        undecided=Verdict.INCONCLUSIVE,
    ),
    Claim(
        "limitations",
        "The encoding may not capture unstructured sparse matrices.",
        (
            Shown(
                "outside",
                "outside.fallback",
                "no such family here; LAPACK solves {rows permuted:.0%} with permuted rows, "
                "{standard normal matrices:.0%} of random matrices",
                decides=False,
            ),
        ),
        undecided=Verdict.INCONCLUSIVE,
    ),
    Claim(
        "limitations", "Condition numbers far above 10⁵ are untested and may go wrong.", (of(BEYOND, decides=False),)
    ),
    Claim("limitations", "Far more than 64 unknowns are unproven.", (LARGE,)),
    Claim("confidence", "High: column tokens need less memory than flattening.", (STORED, NOT_STORED)),
    Claim(
        "confidence",
        "High: the network has about 9.5 million parameters.",
        (Fact("parameters", "exactly {parameters:,} parameters at n = 64", MODELS),),
    ),
    Claim(
        "confidence",
        "High: it outperforms LSTM and GRU on spectral interpolation.",
        (
            of(LSTM, text="mse {ratio:.2g} of LSTM's on diffusion"),
            of(GRU, text=""),
            Shown("spectral", "spectral.beats/reaction-diffusion, LSTM"),
            Shown("spectral", "spectral.beats/reaction-diffusion, GRU", "{ratio:.2g} of GRU's on reaction-diffusion"),
            Shown("spectral", "spectral.beats/advection-diffusion, LSTM"),
            Shown("spectral", "spectral.beats/advection-diffusion, GRU"),
        ),
    ),
    Claim(
        "confidence",
        "Medium: diffusion transfers to reaction-diffusion and advection-diffusion by fine-tuning.",
        (FINE_TUNING,),
    ),
    Claim("confidence", "Medium: Newton's method becomes about four times faster.", (FOUR_TIMES, DIRECTION)),
    Claim("confidence", "Low: systems with condition numbers far above 10⁵ can be solved.", (BEYOND,)),
    Claim(
        "left-out",
        "Noisy systems: is a network that is trained with noise more accurate than LU?",
        (
            Shown(
                "noise",
                "noise.lu/token head",
                "token head: at levels {from_A:.1g} to {to_A:.1g} with noise on A, nowhere with noise on b",
            ),
        ),
    ),
    Claim(
        "left-out",
        "Noisy systems: is it more accurate than classical methods that are made for noise?",
        (
            Shown(
                "noise",
                "noise.classical/A",
                "noise on A: {ratio_min:.2g} to {ratio_max:.2g} times the error of the best one",
            ),
            Shown("noise", "noise.classical/b", "on b: {ratio_min:.2g} to {ratio_max:.2g} times"),
        ),
    ),
    Claim(
        "left-out",
        "Noisy systems: is it more accurate than LSTM and GRU?",
        (
            Shown("noise", "noise.recurrent/A", "noise on A: error {one_direction:.2g} times theirs"),
            Shown("noise", "noise.recurrent/b", "on b {one_direction:.2g} times"),
        ),
    ),
    Claim(
        "checks",
        "Reproduce the diffusion result with AdamW, a cosine schedule and 400 epochs, K = 1 + α cos(2πωx).",
        (MSE, of(RECIPE, text="")),
    ),
    Claim(
        "checks",
        "From scratch on 250 reaction-diffusion and 1,500 advection-diffusion systems against fine-tuning: the epoch "
        "at which fine-tuning is as good.",
        EPOCHS,
    ),
    Claim(
        "checks", "Condition numbers from 10³ to 10⁶, inside and outside the training, against the error.", (FAR_ABOVE,)
    ),
)
