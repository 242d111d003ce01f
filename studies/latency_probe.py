"""What `studies.latency` starts in a process of its own: one job, and the moment at which each part of it was done.

    python -P latency_probe.py predict MODEL SYSTEMS.npz warm|cold CALLS SECONDS
    python -P latency_probe.py solve MODEL A b

`predict` loads a model as a module of torch and calls `predict` at least CALLS times and SECONDS long; cold leaves out
the call that warms up. `solve` is the command of that name. The last line printed is a JSON object; its
`marks` are names and values of the monotonic clock, which all processes of a machine share.

-P keeps the folder of this file, and with it a module called operator, out of the path of imports.
"""

import sys
import time

MARKS = [("start of Python", time.monotonic())]

import json  # noqa: E402
from collections.abc import Callable, Sequence  # noqa: E402
from importlib import import_module  # noqa: E402
from typing import Any  # noqa: E402

IMPORTS = {
    "predict": {
        "numpy": "import of NumPy",
        "algebraformer": "import of algebraformer",
        "torch": "import of torch",
        "algebraformer.solver": "import of SciPy and the solver",
    },
    "solve": {
        "numpy": "import of NumPy",
        "algebraformer.__main__": "import of the command line",
        "algebraformer.io": "import of the readers of files",
        "algebraformer.solver": "import of SciPy and the solver",
    },
}
"""Modules in the order in which the job needs them."""


def mark(name: str) -> None:
    """Remember that something is done."""
    MARKS.append((name, time.monotonic()))


def marked(call: Callable[..., Any], after: str, before: str = "") -> Callable[..., Any]:
    """Return the function with a mark behind it, and one in front of it if that has a name."""

    def timed(*arguments: Any, **options: Any) -> Any:
        if before:
            mark(before)
        value = call(*arguments, **options)
        mark(after)
        return value

    return timed


def predict(modules: Sequence[Any], model: str, systems: str, way: str, calls: str, seconds: str) -> dict[str, Any]:
    """Load a model in torch and call predict; return the seconds of every call and the threads of torch."""
    numpy, _, torch, solver = modules
    with numpy.load(systems) as arrays:
        A, b = arrays["A"], arrays["b"]
    mark("files")
    learned = solver.LearnedSolver(*solver.checkpoint.load(solver.checkpoint.resolve(model)))
    if way == "warm":
        with numpy.errstate(all="ignore"):
            learned.predict(numpy.eye(learned.n), numpy.ones(learned.n))
    mark("load of the model")
    took: list[float] = []
    while len(took) < int(calls) or sum(took) < float(seconds):
        begin = time.perf_counter()
        learned.predict(A, b)
        took.append(time.perf_counter() - begin)
    return {"calls": took, "threads": torch.get_num_threads()}


def solve(modules: Sequence[Any], model: str, A: str, b: str) -> dict[str, Any]:
    """Run the command."""
    _, command_line, _, solver = modules
    load = marked(solver.LearnedSolver.from_pretrained, "load of the model", before="arguments and files")
    solver.LearnedSolver.from_pretrained = load
    solver.LearnedSolver.solve = marked(solver.LearnedSolver.solve, "solve")
    sys.argv = ["algebraformer", "solve", A, b, "--model", model, "--json"]
    command_line.main()
    mark("output")
    return {}


JOBS: dict[str, Callable[..., dict[str, Any]]] = {"predict": predict, "solve": solve}


def main(job: str, *arguments: str) -> None:
    """Do the job and print what it took."""
    modules = []
    for name, what in IMPORTS[job].items():
        modules.append(import_module(name))
        mark(what)
    found = JOBS[job](modules, *arguments)
    print(json.dumps({"marks": MARKS, **found}))


if __name__ == "__main__":
    main(*sys.argv[1:])
