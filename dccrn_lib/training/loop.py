"""Training: one loop from a laptop to several GPUs.

Read :func:`train` from top to bottom: open the run (data, model, teacher, loss, optimiser: ``session``), then per step
forward, loss, backward, clip, step (``step``), now and then validate and checkpoint. A run lives in one folder, see
``run_folder``; docs/training.md shows how to start one on one machine or many.

Batch k holds the mixtures k * batch .. (k + 1) * batch - 1, each a pure function of (seed, epoch, index): a resumed
run sees what an uninterrupted one would have seen, whatever the number of workers or ranks. With the statistics of
BatchNorm shared, several ranks compute what one would have computed, up to rounding (and dropout).
"""

from __future__ import annotations

import math
from contextlib import nullcontext
from pathlib import Path

from dccrn_lib.networks.weights import load_model
from dccrn_lib.runtime.distributed import Processes
from dccrn_lib.runtime.errors import ConfigError
from dccrn_lib.runtime.locks import only_writer
from dccrn_lib.training.config import CONTENTS, MAY_CHANGE, TrainConfig
from dccrn_lib.training.inputs import input_hashes, require_same_inputs
from dccrn_lib.training.run_folder import CHECKPOINT, WEIGHTS, is_finished, open_run, require_steps
from dccrn_lib.training.session import TrainResult, fit_to_device, open_session
from dccrn_lib.training.step import optimise


def train(
    config: TrainConfig, resume: bool = False, progress: bool = True, stop_after: int | None = None
) -> TrainResult:
    """Train ``config.model``; ``run_folder`` says what is left in ``config.out``.

    Args:
        config: what to do.
        resume: resume from ``checkpoint.pt`` if there is one.
        progress: show a progress bar.
        stop_after: stop with a checkpoint after this many steps of this call, as a signal would (for tests).

    Raises:
        ConfigError: the folder holds a run and ``resume`` is False, or a config that differs from it, or it has made more
            steps than ``config.steps``, or has learnt from other recordings or another teacher; a batch that does not
            divide among the ranks; a teacher missing; compile with amp on a CPU; another process trains in this folder.
        DamagedFileError: the checkpoint or the config of the run is cut off or empty.
        TrainingError: more than ``max_bad_batches`` batches in a row gave a non-finite loss or gradient; the device
            lacks memory.
        WorkerError: a process that mixes was killed.

    An exception loses no step where the disk takes a checkpoint; a note on it says from which step to resume.
    """
    ranks, device = Processes.start(config.device)
    config = fit_to_device(config, ranks, device, progress)
    out, weights = Path(config.out), Path(config.out) / WEIGHTS
    saved = open_run(out, config, resume, MAY_CHANGE, CONTENTS)
    require_steps(out, saved, config.steps)
    # weights were kept as soon as a validation gave a finite score
    if saved is not None and saved["best"] > -math.inf and not weights.is_file():
        raise ConfigError(
            f"{weights} is gone, the best weights of the {saved['step']} steps that were made: put it back, or train anew "
            "in another folder"
        )
    if saved is not None and is_finished(saved, config.steps) and weights.is_file():  # nothing to build, nothing to do
        require_same_inputs(saved, input_hashes(config), out / CHECKPOINT)
        return TrainResult(load_model(weights, device), saved["history"], weights, stopped=False)

    stopping = False
    with only_writer(out) if ranks.rank == 0 else nullcontext():
        saved = open_run(out, config, resume, MAY_CHANGE, CONTENTS)  # another process may have trained here until now
        require_steps(out, saved, config.steps)
        with open_session(config, ranks, device, saved, progress) as session:
            if session.validation_due():  # a full disk, perhaps, kept an earlier call from it
                session.validate()
                session.checkpoint_if_due()
            while session.step < config.steps and not stopping:
                outcome = optimise(session)  # forward, loss, backward over the micro-batches; clip, step, average
                session.record(outcome)
                if session.validation_due():
                    session.validate()  # into the history; the best weights so far are kept
                stopping = session.stop_requested(stop_after)
                session.checkpoint_if_due(stopping)
        return session.result()
