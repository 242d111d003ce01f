"""Solve in threads or child processes, and compare with the parent: run by `tests/cli/test_command_processes.py`.

A script of its own, so that a hang ends with its process, and that processes which are spawned have a main module.
"""

from __future__ import annotations

import concurrent.futures
import multiprocessing
import sys
import threading
import warnings
from collections.abc import Callable

import numpy as np

MODELS = ("diffusion-64", "diffusion-64-token", "deblur-64")
SYSTEMS = 16  # enough for torch to share the work among its threads
Answers = dict[str, np.ndarray]


def answers(models: tuple[str, ...] = MODELS) -> Answers:
    """Return what models say of systems of their families, from every method that computes."""
    import algebraformer as af

    found = {}
    for name in models:
        solver = af.LearnedSolver.from_pretrained(name)
        systems = solver.info.problem_family().sample(SYSTEMS, seed=3)
        found[f"{name} predict"] = solver.predict(systems.A, systems.b)
        if solver.network.config.head.name == "estimate":
            with warnings.catch_warnings():
                warnings.simplefilter("ignore", af.errors.InconsistentWarning)
                found[f"{name} estimate"] = solver.estimate(systems.A, systems.b).x
        else:
            found[f"{name} solve"] = solver.solve(systems.A, systems.b).x
    return found


def weights() -> Answers:
    """Return the weights of a small network after two training steps."""
    import torch

    from algebraformer.models import Algebraformer, ModelConfig
    from algebraformer.problems import get

    torch.manual_seed(0)
    model = Algebraformer(ModelConfig(n=16, n_layer=1, n_head=2, n_embd=64))
    systems = get("diffusion", n=16).sample(64)
    for _ in range(2):
        loss = model.loss(*(torch.from_numpy(part) for part in (systems.A, systems.b, systems.x)))
        parameters = list(model.parameters())
        with torch.no_grad():  # not torch.optim, which takes more than a second to import
            for parameter, gradient in zip(parameters, torch.autograd.grad(loss, parameters), strict=True):
                parameter -= 1e-3 * gradient
    return {"weights": torch.cat([parameter.detach().flatten() for parameter in model.parameters()]).numpy()}


def everything(models: tuple[str, ...] = MODELS) -> Answers:
    return answers(models) | weights()


def by_processes(method: str, models: tuple[str, ...] = MODELS) -> Answers:
    with concurrent.futures.ProcessPoolExecutor(1, multiprocessing.get_context(method)) as pool:
        return pool.submit(everything, models).result()


def by_joblib(backend: str, models: tuple[str, ...] = MODELS) -> Answers:
    import joblib

    return joblib.Parallel(n_jobs=2, backend=backend)([joblib.delayed(answers)(models)])[0]


def by_fork_in_a_thread() -> Answers:
    """A child that is forked by a thread which has solved itself."""
    found: list[Answers] = []

    def run() -> None:
        answers(MODELS[:1])
        with multiprocessing.get_context("fork").Pool(1) as pool:
            found.append(pool.apply(everything, [MODELS[:2]]))

    thread = threading.Thread(target=run)
    thread.start()
    thread.join()
    return found[0]


def by_threads() -> Answers:
    with concurrent.futures.ThreadPoolExecutor(2) as pool:
        return list(pool.map(answers, [MODELS[:2]] * 2))[1]  # no weights: threads share a generator


WAYS: dict[str, list[Callable[[], Answers]]] = {
    "fork": [lambda: by_processes("fork"), lambda: by_joblib("multiprocessing", MODELS[:1]), by_fork_in_a_thread],
    "threads": [by_threads, lambda: by_joblib("threading", MODELS[:1])],
    "spawn": [lambda: by_processes("spawn", MODELS[:1])],
    "forkserver": [lambda: by_processes("forkserver", MODELS[:1])],
    "loky": [lambda: by_joblib("loky", MODELS[:1])],
}


def main() -> None:
    import torch

    torch.set_num_threads(2)
    expected = everything(MODELS if sys.argv[1] == "fork" else MODELS[:2])
    for way in WAYS[sys.argv[1]]:
        for name, found in way().items():
            largest = np.abs(expected[name]).max()
            np.testing.assert_allclose(found, expected[name], rtol=0, atol=1e-5 * largest, err_msg=name)
    if torch.get_num_threads() != 2:
        raise AssertionError("the parent must keep its threads")


if __name__ == "__main__":
    main()
