"""The training loop: the only place that saves, logs and evaluates."""

from __future__ import annotations

import math
import signal
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from types import FrameType
from typing import TYPE_CHECKING, cast

import torch
from torch import Tensor
from torch.utils.data import DataLoader

from regionnorm._extras import require
from regionnorm.checkpoints import save_weights
from regionnorm.data import (
    CenterSquare,
    GeneratedMasks,
    ImageSource,
    InpaintingDataset,
    MaskFolder,
    MaskSampler,
    open_source,
)
from regionnorm.evaluate import evaluate
from regionnorm.imaging import atomic_path
from regionnorm.training.logs import Logs, Meter, save_grid
from regionnorm.training.recipe import Recipe, recipe_to_json
from regionnorm.training.state import TrainingState
from regionnorm.training.steps import train_step

if TYPE_CHECKING:
    from lightning.fabric import Fabric

__all__ = ["learning_rate", "train"]

CHECKPOINT = "checkpoint.pt"
SAMPLES = 6


def train(
    recipe: Recipe,
    *,
    data: Sequence[str | Path],
    val: str | Path | None = None,
    out: str | Path,
    resume: bool = False,
) -> bool:
    """Train a network and leave its weights in ``out``.

    ``out`` receives ``recipe.json``, ``checkpoint.pt`` (everything that resuming needs),
    ``weights.safetensors`` (the EMA), ``best.safetensors`` (the EMA that scored the best PSNR on
    ``val``), ``log.csv``, ``tensorboard/`` and ``samples/``.

    Args:
        recipe: All choices of the run.
        data: Photo folders, list files or tar shards to train on.
        val: Photos to judge by, not trained on; None to skip validation.
        out: The run's folder.
        resume: Go on from ``out``'s checkpoint, exactly as if the run had not stopped. Without a
            checkpoint the run starts from the beginning.

    Returns:
        True if all steps were taken, False if the run was interrupted (its checkpoint is saved).

    Raises:
        ValueError: ``out`` holds a run already and ``resume`` is False, or nothing to train on.
    """
    out = Path(out)
    checkpoint = out / CHECKPOINT
    if checkpoint.exists() and not resume:
        raise ValueError(f"{out} already holds a run; use --resume to go on, or another --out")
    source = open_source(data)
    judge = None if val is None else open_source(val)
    fabric = require("lightning.fabric", extra="train").Fabric(
        accelerator=recipe.accelerator,
        devices=recipe.devices,
        num_nodes=recipe.nodes,
        strategy=recipe.strategy,
        precision=recipe.precision,
    )
    fabric.launch()
    state = TrainingState(fabric, recipe)
    if checkpoint.exists():
        state.load(checkpoint)
    if fabric.is_global_zero:
        with atomic_path(out / "recipe.json") as temporary:
            temporary.write_text(recipe_to_json(recipe))
    run = _Run(fabric, recipe, state, source, judge, out)
    return run.to_end()


def learning_rate(recipe: Recipe, step: int) -> float:
    """Factor on the learning rates at a step: linear warm-up, then constant or half a cosine."""
    if step < recipe.warmup:
        return (step + 1) / recipe.warmup
    if recipe.schedule == "constant":
        return 1.0
    progress = (step - recipe.warmup) / max(1, recipe.steps - recipe.warmup)
    return 0.5 * (1 + math.cos(math.pi * min(progress, 1.0)))


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
    ) -> None:
        self.fabric, self.recipe, self.state = fabric, recipe, state
        self.source, self.judge, self.out = source, judge, out
        self.chief = fabric.is_global_zero
        self.logs = Logs(out, state.step) if self.chief else None
        self.saved = self.logged = time.monotonic()
        self.logged_step = state.step

    def to_end(self) -> bool:
        """Take the steps that are left; True if none is left at the end."""
        recipe, state = self.recipe, self.state
        with (
            _stop_signals() as stopped,
            Meter(state.step, recipe.steps, quiet=not self.chief) as meter,
        ):
            meter.say(recipe_to_json(recipe))
            self._sample()
            for image, mask, skipped in self._batches():
                values = self._step(image, mask)
                state.after_step(skipped)
                meter.advance(state.step)
                if state.step % recipe.log_every == 0:
                    meter.report(state.step, self._log(values))
                if state.step % recipe.sample_every == 0:
                    self._sample()
                if state.step % recipe.val_every == 0 or state.step == recipe.steps:
                    self._validate(meter)
                stop, save = self._decide(stopped)
                if stop or state.step == recipe.steps:
                    break
                if save:
                    self._save()
            self._save()
            if state.step < recipe.steps:
                meter.say(f"stopped at step {state.step}; the checkpoint is saved")
            if state.step % recipe.sample_every:
                self._sample()
        if self.logs is not None:
            self.logs.close()
        return state.step >= recipe.steps

    def _step(self, image: Tensor, mask: Tensor) -> dict[str, Tensor]:
        recipe, networks = self.recipe, self.state.networks
        factor = learning_rate(recipe, self.state.step)
        for group in networks.optimizer.param_groups:
            group["lr"] = recipe.lr * factor
        if networks.discriminator_optimizer is not None:
            for group in networks.discriminator_optimizer.param_groups:
                group["lr"] = recipe.lr_discriminator * factor
        return train_step(self.fabric, networks, recipe.losses, image, mask, recipe.clip)

    def _batches(self) -> Iterator[tuple[Tensor, Tensor, int]]:
        """Batches from the state's step to the last: which photos depends on the step alone."""
        recipe, fabric = self.recipe, self.fabric
        dataset = InpaintingDataset(
            self.source,
            _masks(recipe),
            size=recipe.size,
            seed=recipe.seed,
            min_scale=recipe.min_scale,
            max_scale=recipe.max_scale,
            flip=recipe.flip,
        )
        steps = range(self.state.step, recipe.steps)
        positions = _positions(steps, recipe.batch, fabric.global_rank, fabric.world_size)
        loader = DataLoader(
            dataset,
            batch_sampler=positions,
            num_workers=recipe.workers,
            pin_memory=fabric.device.type == "cuda",
            worker_init_fn=_ignore_interrupts,
            # The loader draws a seed; from its own generator, so that resuming changes nothing.
            generator=torch.Generator().manual_seed(recipe.seed),
        )
        layout = torch.channels_last if recipe.channels_last else torch.contiguous_format
        for batch in loader:
            image = batch["image"].to(fabric.device, non_blocking=True).float() / 255
            mask = batch["mask"].to(fabric.device, non_blocking=True)
            yield image.contiguous(memory_format=layout), mask, int(batch["skipped"].sum())

    def _log(self, values: dict[str, Tensor]) -> dict[str, float]:
        now, step = time.monotonic(), self.state.step
        images = (step - self.logged_step) * self.recipe.batch * self.fabric.world_size
        scalars = {name: value.item() for name, value in values.items()}
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
        votes = torch.tensor([bool(stopped), due], dtype=torch.float32, device=self.fabric.device)
        stop, save = cast(Tensor, self.fabric.all_reduce(votes, reduce_op="sum")) > 0
        return bool(stop), bool(save)

    def _save(self) -> None:
        # The weights first: they are refused if they are not finite, and then the last good
        # checkpoint is still there.
        self._save_weights("weights.safetensors")
        self.state.save(self.out / CHECKPOINT)
        self.saved = time.monotonic()

    def _save_weights(self, name: str, **metadata: str) -> None:
        if self.chief:
            metadata |= {"recipe": self.recipe.name, "step": str(self.state.step)}
            save_weights(self.state.best_model, self.out / name, half=True, metadata=metadata)

    def _validate(self, meter: Meter) -> None:
        """Score the network to ship on the validation photos, and keep it if it is the best."""
        if self.judge is None or not self.chief:
            return
        report = evaluate(
            {"model": self._fill},
            self.judge,
            limit=self.recipe.val_photos,
            batch_size=4,
        )
        overall = next(row for row in report.rows if row.interval is None)
        means = {name: getattr(overall, name).mean for name in ("psnr", "ssim", "l1")}
        if self.logs is not None:
            self.logs.write(self.state.step, {f"val/{key}": value for key, value in means.items()})
        text = " ".join(f"{key} {value:.4g}" for key, value in means.items())
        meter.say(f"step {self.state.step} validation: {text}")
        if means["psnr"] > self.state.best:
            self.state.best = means["psnr"]
            self._save_weights("best.safetensors", psnr=f"{means['psnr']:.3f}")

    def _sample(self) -> None:
        """Write a grid of fills of fixed photos with fixed masks."""
        if not self.chief:
            return
        recipe = self.recipe
        source = self.judge or self.source
        dataset = InpaintingDataset(
            source, _masks(recipe), size=recipe.size, seed=1, min_scale=1.0, flip=False
        )
        samples = [dataset[position] for position in range(SAMPLES)]
        image = torch.stack([sample["image"] for sample in samples]).float() / 255
        mask = torch.stack([sample["mask"] for sample in samples])
        path = self.out / "samples" / f"{self.state.step:07d}.png"
        save_grid(path, image, mask, self._fill(image, mask))

    @torch.no_grad()
    def _fill(self, image: Tensor, mask: Tensor) -> Tensor:
        """The network to ship as a function of CPU tensors; it may be the one in training."""
        model, device = self.state.best_model, self.fabric.device
        training = model.training
        output: Tensor = model.eval()(image.to(device), mask.to(device))
        model.train(training)
        return output.float().cpu()


def _masks(recipe: Recipe) -> MaskSampler:
    """Mask sampler of a recipe: ``"generated"``, ``"center"`` or a folder of mask files."""
    if recipe.masks == "generated":
        return GeneratedMasks(recipe.max_area)
    return CenterSquare() if recipe.masks == "center" else MaskFolder(recipe.masks)


def _positions(steps: range, batch: int, rank: int, world: int) -> list[list[int]]:
    """Which samples each step of this process takes; all processes share out one sequence."""
    return [
        list(range((step * world + rank) * batch, (step * world + rank + 1) * batch))
        for step in steps
    ]


def _ignore_interrupts(worker: int) -> None:
    """Leave Ctrl-C to the main process, which still needs its workers to finish the step."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)


@contextmanager
def _stop_signals() -> Iterator[list[int]]:
    """Collect Ctrl-C and SIGTERM, so that no step is cut in half; a second one gets through."""
    received: list[int] = []

    def note(number: int, frame: FrameType | None) -> None:
        if received:
            raise KeyboardInterrupt
        received.append(number)

    before = {number: signal.signal(number, note) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield received
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
