"""The training loop: the only place that saves, logs and evaluates."""

from __future__ import annotations

import math
import os
import sys
import time
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

import numpy as np
import torch
from torch import Tensor

from regionnorm._extras import require
from regionnorm.checkpoints.weights import save_weights
from regionnorm.data import ImageSource, InpaintingDataset, open_source
from regionnorm.devices import keep_freed_memory
from regionnorm.files.remote import is_url
from regionnorm.files.whole import atomic_path
from regionnorm.inspecting.activity import REGIONS_AT, REGIONS_IN, layer_activity
from regionnorm.masks import evaluation_masks
from regionnorm.measuring.evaluate import evaluate
from regionnorm.measuring.metrics import METRICS
from regionnorm.measuring.perceptual import PairMetric, make_metrics
from regionnorm.training.batches import Batches, mask_sampler
from regionnorm.training.clock import Clock
from regionnorm.training.compiler import compiler_problem, without_compiler_errors
from regionnorm.training.logs import Logs, Meter, save_grid
from regionnorm.training.recipe import Recipe, recipe_to_json
from regionnorm.training.state import TrainingState
from regionnorm.training.stopping import stop_signals

if TYPE_CHECKING:
    from lightning.fabric import Fabric

__all__ = ["learning_rate", "train"]

CHECKPOINT = "checkpoint.pt"
SAMPLES = 6
# A run with a time limit validates once by then, to know how long its last validation will take.
FIRST_VALIDATION = 1 / 3


def train(
    recipe: Recipe,
    *,
    data: Sequence[str | Path],
    val: str | Path | None = None,
    out: str | os.PathLike[str],
    resume: bool = False,
) -> bool:
    """Train a network and leave its weights in ``out``.

    ``out`` receives ``recipe.json``, ``checkpoint.pt`` (everything that resuming needs),
    ``weights.safetensors`` (the EMA), ``best.safetensors`` (the EMA that was best on ``val`` by
    the recipe's ``best_by``), ``log.csv``, ``tensorboard/`` and ``samples/``. On a CPU the process
    keeps the memory that it frees from here on, see :func:`regionnorm.devices.keep_freed_memory`.

    Args:
        recipe: All choices of the run.
        data: Photo folders, list files or tar shards to train on, by path or URL.
        val: Photos to judge by, not trained on; None to skip validation.
        out: The run's folder.
        resume: Go on from ``out``'s checkpoint, exactly as if the run had not stopped. Without a
            checkpoint the run starts from the beginning.

    Returns:
        True if all steps were taken or the recipe's minutes are over, False if the run was
        interrupted. Either way its checkpoint is saved.

    Raises:
        ValueError: ``out`` holds a run already and ``resume`` is False, or nothing to train on.
    """
    began = time.monotonic()
    if is_url(out):
        raise ValueError(f"{out} is not on this machine; give --out a folder here, and copy it")
    out = Path(out)
    checkpoint = out / CHECKPOINT
    if checkpoint.exists() and not resume:
        raise ValueError(f"{out} already holds a run; use --resume to go on, or another --out")
    source = open_source(data)
    judge = None if val is None else open_source(val)
    if "lightning.fabric" not in sys.modules:
        print("loading Lightning; the first step follows", file=sys.stderr, flush=True)
    fabric = _make_fabric(recipe)
    fabric.launch()
    if fabric.device.type == "cpu":
        keep_freed_memory()
    problem = compiler_problem(fabric.device) if recipe.compile else None
    begun = checkpoint.exists()
    state = TrainingState(
        fabric,
        replace(
            recipe,
            compile=recipe.compile and problem is None,
            init=None if begun else recipe.init,  # else all of it is in the checkpoint
        ),
    )
    if begun:
        state.load(checkpoint)
    if fabric.is_global_zero:
        with atomic_path(out / "recipe.json") as temporary:
            temporary.write_text(recipe_to_json(recipe))
    clock = Clock(recipe.minutes, state.time, began=began)
    run = _Run(fabric, recipe, state, source, judge, out, clock)
    if problem is not None:
        run.meter.say(
            f"compile=True: torch.compile does not work here ({problem}); going on without"
        )
    return run.to_end()


def _make_fabric(recipe: Recipe) -> Any:
    """Lightning Fabric by the recipe.

    Raises:
        ValueError: The recipe asks for devices that cannot be meant.
    """
    try:
        return require("lightning.fabric", extra="train").Fabric(
            accelerator=recipe.accelerator,
            devices=recipe.devices,
            num_nodes=recipe.nodes,
            strategy=recipe.strategy,
            precision=recipe.precision,
        )
    except TypeError as error:
        raise ValueError(
            f"devices is {recipe.devices!r}, which {recipe.accelerator} does not take; give a "
            "number, or auto"
        ) from error


def learning_rate(recipe: Recipe, step: int, time_used: float = 0.0) -> float:
    """Factor on the learning rates at a step: linear warm-up, then constant or half a cosine.

    The cosine follows the steps or the used share of the time, whichever is nearer its end.
    """
    if step < recipe.warmup:
        return (step + 1) / recipe.warmup
    if recipe.schedule == "constant":
        return 1.0
    progress = (step - recipe.warmup) / max(1, recipe.steps - recipe.warmup)
    return 0.5 * (1 + math.cos(math.pi * min(max(progress, time_used), 1.0)))


class _Run:
    """The loop over steps, with everything that happens every so many of them."""

    def __init__(
        self,
        fabric: Fabric,
        recipe: Recipe,
        state: TrainingState,
        source: ImageSource,
        judge: ImageSource | None,
        out: Path,
        clock: Clock,
    ) -> None:
        self.fabric, self.recipe, self.state = fabric, recipe, state
        self.source, self.judge, self.out, self.clock = source, judge, out, clock
        self.chief = fabric.is_global_zero
        self.logs = Logs(out, state.step) if self.chief else None
        self.meter = Meter(state.step, recipe.steps, quiet=not self.chief)
        # Before the first step, so that missing weights are told at once.
        self.further: dict[str, PairMetric] = {}
        if judge is not None and self.chief:
            of_vgg = [name for name in recipe.val_metrics if name not in METRICS]
            self.further = make_metrics(of_vgg, recipe.losses.vgg)
        self.saved = self.logged = time.monotonic()
        self.logged_step = state.step

    def to_end(self) -> bool:
        """Take the steps that are left, as far as time allows; True if none is left then."""
        recipe, state, meter = self.recipe, self.state, self.meter
        with meter:
            meter.say(recipe_to_json(recipe))
            meter.say(self._what())
            batches = Batches(
                recipe,
                self.source,
                self.fabric.device,
                rank=self.fabric.global_rank,
                world=self.fabric.world_size,
                say=meter.say,
                on_progress=meter.decoding,
            )
            with stop_signals() as stopped, without_compiler_errors(recipe.compile):
                finished = self._take_steps(batches, stopped)
                self._save()
                if not finished:
                    meter.say(f"stopped at step {state.step}; the checkpoint is saved")
                if state.step % recipe.sample_every:
                    self._sample()
        if self.logs is not None:
            self.logs.close()
        return finished

    def _what(self) -> str:
        """One line about what is about to happen."""
        judge = "no photos" if self.judge is None else f"{len(self.judge)} photos"
        text = (
            f"{len(self.source)} photos to train on, {judge} to judge by; from step "
            f"{self.state.step} to {self.recipe.steps} on {self.fabric.device}, into {self.out}"
        )
        shared = _shared(self.source, self.judge)
        if shared:
            text += f"\nWarning: {shared} of the photos to judge by are trained on too"
        return text

    def _take_steps(self, batches: Batches, stopped: list[int]) -> bool:
        """Train until steps or time are over (True) or the run is stopped (False)."""
        recipe, state = self.recipe, self.state
        self._sample()
        self.logged = time.monotonic()
        used = self._time_used()
        # A run whose time was over before takes no step more.
        for image, mask, skipped in batches.from_step(state.step) if used < 1 else ():
            values = self._step(image, mask, used)
            state.after_step(skipped)
            used = self._time_used()
            finished = state.step == recipe.steps or used >= 1
            self.meter.advance(state.step)
            if state.step % recipe.log_every == 0:
                self.meter.report(state.step, self._log(values), self.clock.minutes_left)
            if state.step % recipe.sample_every == 0:
                self._sample()
            if finished or self._validation_is_due(used):
                self._validate()
            if finished:
                return True
            stop, save = self._decide(stopped)
            if stop:
                return False
            if save:
                self._save()
        return True

    def _time_used(self) -> float:
        """Share of the run's time that is used: the same in all processes."""
        used = self.clock.used
        if self.clock.limited and self.fabric.world_size > 1:
            used = float(self.fabric.broadcast(used))
        return used

    def _validation_is_due(self, used: float) -> bool:
        if self.state.step % self.recipe.val_every == 0:
            return True
        return used >= FIRST_VALIDATION and not self.clock.measured("validation")

    def _step(self, image: Tensor, mask: Tensor, time_used: float) -> dict[str, Tensor]:
        recipe, networks = self.recipe, self.state.networks
        factor = learning_rate(recipe, self.state.step, time_used)
        for group in networks.generator.optimizer.param_groups:
            group["lr"], group["betas"] = recipe.lr * factor, recipe.betas
        for trained in networks.discriminators.values():
            for group in trained.optimizer.param_groups:
                group["lr"] = recipe.lr_discriminator * factor
                group["betas"] = recipe.betas
        # From the step's number, so that a resumed run draws what it would have drawn.
        seed = np.random.SeedSequence([recipe.seed, self.state.step, self.fabric.global_rank])
        random = torch.Generator().manual_seed(int(seed.generate_state(1)[0]))
        return self.state.train_step(self.fabric, networks, image, mask, random)

    def _log(self, values: dict[str, Tensor]) -> dict[str, float]:
        # First the values: they wait until the device has done all that it was given to do.
        scalars = {name: value.item() for name, value in values.items()}
        now, step = time.monotonic(), self.state.step
        images = (step - self.logged_step) * self.recipe.batch * self.fabric.world_size
        scalars["images/s"] = images / (now - self.logged)
        scalars["skipped"] = float(self.state.skipped)
        self.logged, self.logged_step = now, step
        if self.logs is not None:
            self.logs.write(step, scalars)
        return scalars

    def _decide(self, stopped: list[int]) -> tuple[bool, bool]:
        """Whether to stop and whether to save after this step: all processes do the same."""
        late = time.monotonic() - self.saved > 60 * self.recipe.save_minutes
        due = late or self.state.step % self.recipe.save_every == 0
        if self.fabric.world_size == 1:  # without asking the device, which would wait for it
            return bool(stopped), due
        votes = torch.tensor([bool(stopped), due], dtype=torch.float32, device=self.fabric.device)
        stop, save = cast(Tensor, self.fabric.all_reduce(votes, reduce_op="sum")) > 0
        return bool(stop), bool(save)

    def _save(self) -> None:
        # The weights first: they are refused if they are not finite, and then the last good
        # checkpoint is still there.
        with self.clock.ending("saving"):
            self._save_weights("weights.safetensors")
            self.state.time = self.clock.record
            self.state.save(self.out / CHECKPOINT)
        self.saved = time.monotonic()

    def _save_weights(self, name: str, **metadata: str) -> None:
        if self.chief:
            metadata |= {"recipe": self.recipe.name, "step": str(self.state.step)}
            save_weights(self.state.best_model, self.out / name, half=True, metadata=metadata)

    def _validate(self) -> None:
        """Score the network to ship on the validation photos, and keep it if it is the best."""
        if self.judge is None or not self.chief:
            return
        with self.clock.ending("validation"):
            self._score(self.judge)

    def _score(self, judge: ImageSource) -> None:
        recipe, step = self.recipe, self.state.step
        report = evaluate(
            {"model": self._fill},
            judge,
            size=recipe.val_size,
            limit=recipe.val_photos,
            batch_size=4,
            further=self.further,
        )
        overall = next(row for row in report.rows if row.interval is None)
        means = {name: overall.get(name).mean for name in recipe.val_metrics}
        if self.logs is not None:
            self.logs.write(step, {f"val/{key}": value for key, value in means.items()})
        text = " ".join(f"{key} {value:.4g}" for key, value in means.items())
        self.meter.say(f"step {step} validation: {text}")
        self._look_for_dead_layers()
        value = means[recipe.best_by]
        score = value if recipe.best_by in ("psnr", "ssim") else -value
        if score > self.state.best:
            self.state.best = score
            self._save_weights("best.safetensors", **{recipe.best_by: f"{value:.4g}"})

    def _look_for_dead_layers(self) -> None:
        """Log the share of zeros behind each norm, and how well each RN-L finds the hole."""
        activity = layer_activity(self.state.best_model, *self._on_device(*self._samples()))
        found = activity.found
        if found:
            image, _ = self._samples(REGIONS_AT)
            mask = evaluation_masks(range(len(image)), REGIONS_IN, REGIONS_AT)
            found = layer_activity(self.state.best_model, *self._on_device(image, mask)).found
        if self.logs is not None:
            values = {f"zeros/{name}": share for name, share in activity.zeros.items()}
            values |= {f"found/{name}": overlap for name, overlap in found.items()}
            self.logs.write(self.state.step, values)
        for name in activity.dead:
            self.meter.say(
                f"warning: {name} gives {activity.zeros[name]:.1%} zeros and hardly learns any "
                "more; a smaller lr or another init may keep it alive"
            )

    def _on_device(self, image: Tensor, mask: Tensor) -> tuple[Tensor, Tensor]:
        return image.to(self.fabric.device), mask.to(self.fabric.device)

    def _sample(self) -> None:
        """Write a grid of fills of fixed photos with fixed masks."""
        if not self.chief:
            return
        with self.clock.ending("sample"):
            self._write_sample()

    def _write_sample(self) -> None:
        image, mask = self._samples()
        path = self.out / "samples" / f"{self.state.step:07d}.png"
        save_grid(path, image, mask, self._fill(image, mask))

    def _samples(self, size: int | None = None) -> tuple[Tensor, Tensor]:
        """Fixed photos of a size, the recipe's or another, with fixed masks, on the CPU."""
        size, source = size or self.recipe.size, self.judge or self.source
        dataset = InpaintingDataset(
            source, mask_sampler(self.recipe), size=size, seed=1, min_scale=1.0, flip=False
        )
        samples = [dataset[position] for position in range(SAMPLES)]
        image = torch.stack([sample["image"] for sample in samples]).float() / 255
        return image, torch.stack([sample["mask"] for sample in samples])

    @torch.no_grad()
    def _fill(self, image: Tensor, mask: Tensor) -> Tensor:
        """The network to ship as a function of CPU tensors; it may be the one in training."""
        model, device = self.state.best_model, self.fabric.device
        training = model.training
        output: Tensor = model.eval()(image.to(device), mask.to(device))
        model.train(training)
        return output.float().cpu()


def _shared(source: ImageSource, judge: ImageSource | None) -> int:
    """How many photos to judge by are among those to train on, by their names."""
    judged = set() if judge is None else {judge.name(index) for index in range(len(judge))}
    return len(judged & {source.name(index) for index in range(len(source) if judged else 0)})
