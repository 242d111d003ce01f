"""The training loop, the same for every model.

A run lives in one folder: log.jsonl (one JSON object a line), step-* (the two newest checkpoints, each with the state
of the optimisers beside the network) and, at the end, model/ (the network alone, with its scores). A run that stopped
for whatever reason resumes from its newest readable checkpoint and gives, on the same machine and with the same number
of threads and processes, bit for bit what an undisturbed run gives.
"""

from __future__ import annotations

import dataclasses
import functools
import json
import os
import shutil
import time
from collections.abc import Generator, Mapping
from contextlib import closing, nullcontext
from pathlib import Path
from typing import Any

import torch

from algebraformer.checkpoint import (
    CheckpointInfo,
    check_name,
    finite_scores,
    naming,
    read_folder,
    save,
    step_folders,
    write_folder,
)
from algebraformer.errors import CheckpointError, ConfigurationError, TrainingError
from algebraformer.metrics import score
from algebraformer.models import Algebraformer
from algebraformer.models.heads.data import Batch, ExampleMaker
from algebraformer.models.inference.stored_basis import Basis
from algebraformer.problems import ProblemFamily
from algebraformer.problems.custom import Sampler, as_family
from algebraformer.result import plain
from algebraformer.training import warm_start
from algebraformer.training.automatic import recipe_for
from algebraformer.training.data import (
    TEST_SEED,
    VALIDATION_SEED,
    StepBatches,
    capped_sample_size,
    is_resident,
    step_batches,
    store_examples,
    training_data,
)
from algebraformer.training.exclusive import exclusive
from algebraformer.training.monitor import Monitor, Stopped
from algebraformer.training.optim import make_optimizers, schedule, set_learning_rates
from algebraformer.training.options import RunOptions, TrainResult
from algebraformer.training.processes import Processes, joined
from algebraformer.training.recipes import FinetuneRecipe, Recipe
from algebraformer.training.run_state import OPTIMIZERS as OPTIMIZERS
from algebraformer.training.run_state import RNG as RNG
from algebraformer.training.run_state import STATE as STATE
from algebraformer.training.run_state import Counters, finished_run, pack_run, unpack_run

MAX_SKIPPED = 50
"""Training gives up after this many steps in a row without a finite gradient."""


class Trainer:
    """One run: its network, optimisers, counters and folder. `train` also keeps other runs out of the folder.

    Parameters
    ----------
    recipe : Recipe
    output : path
        Folder of the run. If it holds checkpoints of the same recipe, the run resumes from the newest readable one;
        checkpoints of another recipe are a `ConfigurationError`.
    options : RunOptions
    name : str
        Name of the model, recorded in its checkpoints.
    basis : OperatorBasis or LowRankBasis, optional
        Basis for an operator head, if another run on the same family has computed it already.
    initial : Algebraformer, optional
        The network that a `FinetuneRecipe` starts from.
    monitor : Monitor, optional
        Progress bar and signals; new ones if not given.
    processes : Processes, optional
        Those that share the work; this one alone if not given.
    """

    def __init__(
        self,
        recipe: Recipe,
        output: Path | str,
        options: RunOptions | None = None,
        name: str = "",
        basis: Basis | None = None,
        initial: Algebraformer | None = None,
        monitor: Monitor | None = None,
        processes: Processes | None = None,
    ) -> None:
        self.recipe, self.output, self.options = recipe, Path(output), options or RunOptions()
        self.monitor = monitor or Monitor(self.options.progress)
        self.processes = processes or Processes(self.options.device)
        if recipe.batch_size < self.processes.count:
            raise ConfigurationError(
                f"{self.processes.count} processes share batches of {recipe.batch_size} systems: choose a batch_size "
                "of at least one system each"
            )
        self.family = recipe.problem_family()
        self.info = CheckpointInfo(
            name=name or self.family.name, family=self.family.settings(), recipe=recipe.settings()
        )
        self.counters = Counters()
        self.log = self.output / "log.jsonl"
        files = self.processes.from_first(lambda: self._open(basis, initial))
        if not self.processes.first:
            self._unpack(files, "the first process")
        self.loss = torch.compile(self.model.loss) if self.options.compile else self.model.loss

    @property
    def step(self) -> int:
        """Steps done."""
        return self.counters.step

    def _open(self, basis: Basis | None, initial: Algebraformer | None) -> dict[str, bytes]:
        """Make folder and network ready, from the newest checkpoint or new; return what other processes start from."""
        self.output.mkdir(parents=True, exist_ok=True)
        for pattern in (".step-*", ".model.*"):  # what was being written when the process died
            for unfinished in self.output.glob(pattern):
                shutil.rmtree(unfinished)
        if not self._restore():
            with self.monitor:
                self.model = self._starting_model(basis, initial)
            self.model.to(self.processes.device)
            self.optimizers = make_optimizers(self.model, self.recipe)
        self.log.touch()
        os.truncate(self.log, min(self.counters.log_bytes, self.log.stat().st_size))  # what came after the checkpoint
        return self._pack() if self.processes.count > 1 else {}

    def _starting_model(self, basis: Basis | None, initial: Algebraformer | None) -> Algebraformer:
        """Return the network before the first step."""
        recipe = self.recipe
        if isinstance(recipe, FinetuneRecipe):
            if basis is not None:
                raise ConfigurationError("a recipe for fine-tuning takes its basis from its systems: leave out basis")
            return warm_start.starting_model(recipe, self.family, initial, self.monitor.part)
        if initial is not None:
            raise ConfigurationError("a network to start from needs a FinetuneRecipe: call finetune")
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(recipe.seed)
            model = Algebraformer(recipe.model)
        if basis is not None:
            model.head.use_basis(model, basis)
        else:
            model.head.begin(model, training_data(recipe, self.family), self.monitor.part)
        return model

    # ---------------------------------------------------------------- checkpoints

    def _restore(self) -> bool:
        """Load the newest checkpoint that can be read; False if there is none."""
        problems = []
        for folder in step_folders(self.output):
            try:
                self._unpack(read_folder(folder), str(folder))
                return True
            except CheckpointError as error:
                problems.append(str(error))
        if problems:
            raise CheckpointError(f"{self.output}: no readable checkpoint ({'; '.join(problems)})")
        return False

    def _unpack(self, files: Mapping[str, bytes], where: str) -> None:
        """Take network, optimisers and counters from the files of a checkpoint."""
        self.model, self.optimizers, self.counters = unpack_run(
            files, where, self.recipe, self.output, self.processes.device
        )

    def _pack(self) -> dict[str, bytes]:
        """Return the files of a checkpoint."""
        return pack_run(self.model, self.info, self.optimizers, self.counters)

    def checkpoint(self) -> None:
        """Write step-*, keep the one before it, delete what is older."""
        if not self.processes.first:
            return
        self.counters.log_bytes = self.log.stat().st_size
        write_folder(self.output / f"step-{self.step:09d}", self._pack())
        for old in step_folders(self.output)[2:]:
            shutil.rmtree(old)

    # ---------------------------------------------------------------- the loop

    def run(self) -> TrainResult:
        """Train until the recipe's last step or a signal; return how it ended."""
        finished, scores = True, {}
        with self.monitor:
            try:
                self._take_steps()
            except Stopped:
                finished = False
            self.checkpoint()
            try:
                scores = self.processes.from_first(self._finish) if finished else {}
            except Stopped:
                finished = False
        return TrainResult(folder=self.output, step=self.step, finished=finished, scores=scores)

    def _take_steps(self) -> None:
        """Take all steps that are left; raise `Stopped` between two of them if a signal came."""
        options, recipe, processes, counters = self.options, self.recipe, self.processes, self.counters
        if self.step == recipe.steps:  # stopped while it was being calibrated: no training set is needed
            return
        size = capped_sample_size(recipe.validation_systems, self.family.n)
        validation = self.family.sample(size, VALIDATION_SEED) if processes.first else None
        with closing(self._batches()) as batches:
            rate = ""
            # All processes stop at the same step.
            report = self.monitor.part(self.info.name, lambda: processes.any(self.monitor.stop.is_set()))
            report(self.step, recipe.steps)
            in_a_row, saved_at, clock = 0, time.monotonic(), time.monotonic()
            while self.step < recipe.steps:
                # 1. The step; `waited` is what the optimiser lost to the making of its systems.
                batch = next(batches)
                waited = time.monotonic() - clock
                record = self.train_step(batch)
                counters.step += 1
                in_a_row = in_a_row + 1 if record["skipped"] else 0
                if in_a_row > MAX_SKIPPED:
                    raise TrainingError(f"{MAX_SKIPPED} steps in a row were not finite at step {self.step}: lower lr")
                counters.waited += waited
                counters.seconds += time.monotonic() - clock

                # 2. The log, and the scores on the frozen validation set.
                last = self.step == recipe.steps
                if self.step % options.log_every == 0 or last:
                    record = {name: float(value) for name, value in record.items()}
                    self._log(record | self._progress_record())
                    speed = self.step * recipe.batch_size / counters.seconds
                    rate = f"loss {record['loss']:.2e}, {speed:.0f} systems/s"
                if validation is not None and (self.step % options.validate_every == 0 or last):
                    self.model.eval()
                    self._log({f"validation_{k}": v for k, v in score(self.model, validation).items()})
                    self.model.train()

                # 3. A checkpoint. Only after it a signal may stop the run, in `report`.
                if time.monotonic() - saved_at >= options.checkpoint_seconds:
                    self.checkpoint()
                    saved_at = time.monotonic()
                report(self.step, recipe.steps, rate)
                clock = time.monotonic()

    def _batches(self) -> Generator[Batch, None, None]:
        """Return this process's shares of the batches from this step on; see `is_resident` for where they come from."""
        recipe, maker = self.recipe, self.model.head.example_maker(self.model)
        data = StepBatches(self.family, recipe, maker, self.processes.share(recipe.batch_size))
        pin = self.processes.device.startswith("cuda")
        return step_batches(data, self.step, self.options.workers, pin, self.stored)

    @functools.cached_property
    def stored(self) -> Batch | None:
        """The training set, on the device, where it is kept in memory; None where examples are made as they come."""
        recipe, maker = self.recipe, self.model.head.example_maker(self.model)
        if recipe.samples is None or not is_resident(recipe, self.family, maker):
            return None
        return tuple(part.to(self.processes.device) for part in self._store(recipe.samples, maker))

    def _store(self, count: int, maker: ExampleMaker) -> Batch:
        """Return the examples of the first training systems."""
        report = self.monitor.part("training set")
        return store_examples(self.family, maker, count, self.recipe.seed, self.options.workers, report)

    def train_step(self, batch: Batch) -> dict[str, Any]:
        """Take one optimiser step, or skip it if the gradient is not finite; return loss, gradient norm, skipped."""
        device = self.processes.device
        batch = tuple(part.to(device, non_blocking=True) for part in batch)
        set_learning_rates(self.optimizers, schedule(self.step, self.recipe))
        with torch.autocast("cuda", torch.bfloat16) if self.options.autocast else nullcontext():
            loss = self.loss(*batch)
        loss = self.processes.backward(loss, self.model.parameters(), self.recipe.batch_size)
        norm = torch.nn.utils.clip_grad_norm_(self.model.parameters(), self.recipe.clip)
        skipped = not bool(torch.isfinite(norm))
        for optimizer in self.optimizers:
            if not skipped:
                optimizer.step()
            optimizer.zero_grad(set_to_none=True)
        self.counters.skipped += skipped
        return {"loss": loss, "gradient_norm": norm.detach(), "skipped": skipped}

    def _finish(self) -> dict[str, float]:
        """Fit and calibrate what is left, score the network on the frozen test set and write model/."""
        self.model.eval()
        data = training_data(self.recipe, self.family, self._readout_examples)
        self.model.head.finish(self.model, data, self.monitor.part)
        with self.monitor.whole("scores"):
            count = capped_sample_size(self.recipe.test_systems, self.family.n)
            scores = dict(finite_scores(score(self.model, self.family.sample(count, TEST_SEED))))
        info = dataclasses.replace(
            self.info, scores=scores, seconds=round(self.counters.seconds, 3), threads=torch.get_num_threads()
        )
        save(self.output / "model", self.model, info)
        return scores

    def _readout_examples(self) -> Batch:
        """Return the stored training set, or make the examples that a read-out is fitted to."""
        stored = self.stored or self._store(self.recipe.readout_samples, self.model.head.example_maker(self.model))
        return tuple(part.cpu() for part in stored)

    # ---------------------------------------------------------------- log

    def _progress_record(self) -> dict[str, float]:
        samples, seconds = self.step * self.recipe.batch_size, self.counters.seconds
        per_sample = self.model.training_flops()
        return {
            "lr": self.optimizers[-1].param_groups[0]["lr"],
            "samples": samples,
            "seconds": round(seconds, 3),
            "samples_per_second": round(samples / seconds, 2),
            "data_wait": round(self.counters.waited / seconds, 5),
            "training_flops": samples * per_sample,
            "skipped": self.counters.skipped,
        }

    def _log(self, record: Mapping[str, float]) -> None:
        """Append a line to log.jsonl; NaN and infinity become null."""
        if not self.processes.first:
            return
        with naming(self.log), self.log.open("a") as stream:
            stream.write(json.dumps({"step": self.step, **plain(dict(record))}) + "\n")


def train(
    recipe: Recipe | ProblemFamily | type[ProblemFamily] | Sampler,
    output: Path | str,
    options: RunOptions | None = None,
    name: str = "",
    basis: Basis | None = None,
    initial: Algebraformer | None = None,
) -> TrainResult:
    """Train a network, or go on with a run that stopped; of a finished run, return the scores.

    Parameters
    ----------
    recipe : Recipe, ProblemFamily, class of one, or function
        What to learn and how; `training.RECIPES` has named ones. For a family, or a function that samples its matrices,
        the recipe is made: see `training.automatic.recipe_for` and `problems.custom.as_family`.
    output : path
        Folder of the run.
    options : RunOptions
        Device, workers, progress bar and so on.
    name : str
        Name of the model; the family's name if empty.
    basis : OperatorBasis or LowRankBasis, optional
        Basis for an operator head, if another run on the same family has computed it already: see
        `numerics.operator_basis.fit`.
    initial : Algebraformer, optional
        The network that a `FinetuneRecipe` starts from: see `finetune`.

    Returns
    -------
    TrainResult

    Raises
    ------
    ConfigurationError
        The folder holds a run of another recipe, or another training is using it.
    CheckpointError
        The folder holds checkpoints and none of them can be read.
    TrainingError
        The gradient was not finite for too many steps in a row.

    Examples
    --------
    >>> import dataclasses, tempfile
    >>> from algebraformer.training import RECIPES, RunOptions, train
    >>> recipe = dataclasses.replace(RECIPES["quick"], steps=2)
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     result = train(recipe, folder, RunOptions(progress=False, workers=0))
    >>> result.finished, sorted(result.scores)[0]
    (True, 'mse')
    """
    options, output = options or RunOptions(), Path(output)
    if name:
        check_name(name)  # before there is a folder
    with joined(options.device) as processes, Monitor(options.progress and processes.first) as monitor:
        try:
            if not isinstance(recipe, Recipe):
                family = as_family(recipe)
                recipe = processes.from_first(lambda: recipe_for(family, monitor.part("spectrum")))
            known = recipe
            if (result := processes.from_first(lambda: finished_run(known, output))) is not None:
                return result
            with exclusive(output) if processes.first else nullcontext():
                return Trainer(recipe, output, options, name, basis, initial, monitor, processes).run()
        except Stopped:  # before there was anything to save
            return TrainResult(folder=output, step=0, finished=False, scores={})
