"""Training of the network that finds scratches: a loop of its own, for it fills nothing."""

from __future__ import annotations

import json
import math
import os
import time
from collections.abc import Sequence
from contextlib import nullcontext
from dataclasses import asdict
from pathlib import Path
from typing import Annotated, Any, Literal, NamedTuple

import torch
from pydantic import ConfigDict, Field, TypeAdapter
from pydantic.dataclasses import dataclass
from torch import Tensor
from torch.nn import functional as F
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn

from regionnorm.checkpoints.finder import Finder, load_finder, save_finder
from regionnorm.data import open_source
from regionnorm.data.damaged import DamagedBatch, DamagedPhotos
from regionnorm.devices import keep_freed_memory, pick_device
from regionnorm.files.whole import atomic_path
from regionnorm.imaging import tensor_to_image, write_image
from regionnorm.models.scratch_net import ScratchNet, grow, logits_of_views
from regionnorm.training.clock import Clock
from regionnorm.training.logs import Logs, Meter
from regionnorm.training.recipe import read_recipe, recipe_to_json
from regionnorm.training.stopping import stop_signals

__all__ = ["Scores", "ScratchRecipe", "best_scores", "scratch_recipe_from_json", "train_scratches"]

Scale = Annotated[float, Field(gt=0)]
CHECKPOINT = "checkpoint.pt"
_FIRST_VALIDATION = 1 / 3  # of the time: to know how long the last one will take
_JUDGED_AT_ONCE = 8
_SAMPLES = 8


@dataclass(frozen=True, kw_only=True, config=ConfigDict(extra="forbid"))
class ScratchRecipe:
    """All choices of a run; see ``docs/training.md``. Sizes in pixels, counts in steps."""

    name: Literal["scratches"] = "scratches"
    norm: Literal["rn-l", "in", "bn", "none"] = "bn"
    stats: Literal["instance", "batch"] = "instance"
    widths: tuple[int, int, int, int] = (16, 40, 64, 96)
    refine: tuple[int, int, int, int] = (0, 0, 0, 0)  # residual units of each level
    init: str | None = None  # a finder to grow from, as large or smaller, instead of random weights
    size: int = Field(default=128, ge=32, le=1024, multiple_of=16)
    batch: int = Field(default=16, ge=1)
    pool: int = Field(default=24_000, ge=1)  # different samples, see DamagedPhotos
    scales: tuple[Scale, Scale] = (0.5, 3.0)  # pixels of a sample for each of the photo's
    ignore_unseen: bool = False  # where a mark has the photo's colour: neither right nor wrong
    steps: int = Field(default=16_000, ge=1)
    minutes: float | None = Field(default=None, gt=0)
    lr: float = Field(default=3e-3, gt=0)
    betas: tuple[float, float] = (0.9, 0.99)
    warmup: int = Field(default=100, ge=0)
    clip: float = Field(default=1.0, gt=0)
    overlap: float = Field(default=0.3, ge=0)  # weight of the overlap of regions (Dice)
    ema: float = Field(default=0.998, gt=0, lt=1)
    seed: int = Field(default=0, ge=0)
    precision: Literal["32-true", "bf16-mixed"] = "bf16-mixed"
    log_every: int = Field(default=50, ge=1)
    val_every: int = Field(default=1000, ge=1)
    val_photos: int = Field(default=96, ge=1)
    # Of the threshold that is chosen: who looks through a mask misses less than what is too much.
    least_precision: float = Field(default=0.8, ge=0, lt=1)
    val_size: int = Field(default=256, ge=32, le=4096, multiple_of=16)
    save_minutes: float = Field(default=3.0, gt=0)


_ADAPTER: TypeAdapter[ScratchRecipe] = TypeAdapter(ScratchRecipe)


def scratch_recipe_from_json(text: str) -> ScratchRecipe:
    """Read a run's ``recipe.json``.

    Raises:
        ValueError: A field is unknown or out of range.
    """
    return read_recipe(_ADAPTER, text)


class Scores(NamedTuple):
    """How well marks are found at a threshold, pixel by pixel, without any tolerance."""

    f1: float
    recall: float
    precision: float
    threshold: float
    clean: float
    """Share of the area marked on photos without marks."""


def best_scores(probability: Tensor, batch: DamagedBatch, least_precision: float = 0.0) -> Scores:
    """Choose the threshold with the best F1; what is too faint counts neither way.

    Args:
        probability: ``[B, 1, H, W]`` in [0, 1].
        batch: The truth.
        least_precision: Thresholds with less are passed over, as long as any has as much.
    """
    scores = [_scores(probability, batch, step / 40) for step in range(4, 40)]
    precise = [one for one in scores if one.precision >= least_precision]
    return max(precise or scores, key=lambda one: one.f1)


def _scores(probability: Tensor, batch: DamagedBatch, threshold: float) -> Scores:
    found = (probability > threshold).float()
    hits = float((found * batch.marks).sum())
    recall = hits / max(float(batch.marks.sum()), 1.0)
    precision = hits / max(float((found * batch.counted).sum()), 1.0)
    f1 = 2 * recall * precision / max(recall + precision, 1e-9)
    unmarked = batch.marks.sum((1, 2, 3)) == 0
    clean = float(found[unmarked].mean()) if bool(unmarked.any()) else 0.0
    return Scores(f1, recall, precision, threshold, clean)


def train_scratches(
    recipe: ScratchRecipe,
    *,
    data: Sequence[str | Path],
    val: str | Path | None = None,
    out: str | os.PathLike[str],
    resume: bool = False,
) -> bool:
    """Train the network that finds scratches and leave its weights in ``out``.

    ``out`` receives ``recipe.json``, ``checkpoint.pt``, ``weights.safetensors`` (the running
    average), ``best.safetensors`` (the one with the best F1 on ``val``), ``log.csv`` and
    ``samples/`` (photo, truth, found).

    Args:
        recipe: All choices of the run.
        data: Photo folders, list files or tar shards, by path or URL; the marks are drawn.
        val: Photos to judge by, not trained on; None: the threshold stays 0.5.
        out: The run's folder.
        resume: Go on from ``out``'s checkpoint, as if the run had not stopped.

    Returns:
        True if all steps were taken or the recipe's minutes are over, False if interrupted;
        saved either way.

    Raises:
        ValueError: ``out`` holds a run already and ``resume`` is False, or nothing to train on.
    """
    out = Path(out)
    checkpoint = out / CHECKPOINT
    if checkpoint.exists() and not resume:
        raise ValueError(f"{out} already holds a run; use --resume to go on, or another --out")
    began = time.monotonic()
    photos = DamagedPhotos(
        open_source(data),
        size=recipe.size,
        seed=recipe.seed,
        pool=recipe.pool,
        scales=recipe.scales,
        ignore_unseen=recipe.ignore_unseen,
    )
    judge = None
    if val is not None:
        count = recipe.val_photos
        judge = DamagedPhotos(
            open_source(val), size=recipe.val_size, seed=1, pool=count, scales=recipe.scales
        )
    run = _Run(recipe, photos, judge, out)
    if checkpoint.exists():
        run.load(checkpoint)
    run.clock = Clock(recipe.minutes, run.time, began=began)
    with atomic_path(out / "recipe.json") as temporary:
        temporary.write_text(recipe_to_json(recipe))
    return run.to_end()


class _Run:
    """Steps, and what happens every so many of them."""

    def __init__(
        self, recipe: ScratchRecipe, photos: DamagedPhotos, judge: DamagedPhotos | None, out: Path
    ) -> None:
        self.recipe, self.photos, self.judge, self.out = recipe, photos, judge, out
        self.device = pick_device()
        if self.device.type == "cpu":
            keep_freed_memory()
        torch.manual_seed(recipe.seed)
        network = ScratchNet(
            norm=recipe.norm, stats=recipe.stats, widths=recipe.widths, refine=recipe.refine
        )
        if recipe.init is not None and not (out / CHECKPOINT).exists():  # else all of it is there
            grow(network, load_finder(recipe.init).network)
        self.network = network.to(self.device)
        self.network.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
        self.averaged = AveragedModel(
            self.network,
            multi_avg_fn=get_ema_multi_avg_fn(recipe.ema),  # type: ignore[no-untyped-call]
            use_buffers=True,
        )
        self.optimizer = torch.optim.Adam(
            self.network.parameters(), lr=recipe.lr, betas=recipe.betas, fused=True
        )
        self.step, self.best, self.threshold = 0, -1.0, 0.5
        self.time: dict[str, float] = {}
        self.clock = Clock(None)

    # --- state -----------------------------------------------------------------------------------

    def save(self) -> None:
        """Write weights and checkpoint."""
        with self.clock.ending("saving"):
            self._save_weights("weights.safetensors")
            state = {name: part.state_dict() for name, part in self._parts().items()}
            state |= {"step": self.step, "best": self.best, "threshold": self.threshold}
            state["time"] = self.clock.record
            with atomic_path(self.out / CHECKPOINT) as temporary:
                torch.save(state, temporary)

    def load(self, path: Path) -> None:
        """Restore what :meth:`save` wrote.

        Raises:
            ValueError: The file is no checkpoint of this recipe.
        """
        try:
            state = torch.load(path, map_location="cpu", weights_only=True)
            for name, part in self._parts().items():
                part.load_state_dict(state[name])
            self.step, self.best = state["step"], state["best"]
            self.threshold, self.time = state["threshold"], state["time"]
        except Exception as error:  # a damaged file can make the reader raise nearly anything
            first = (str(error) or repr(error)).splitlines()[0]
            raise ValueError(f"{path} does not fit this recipe: {first}") from error

    def _parts(self) -> dict[str, Any]:
        return {"network": self.network, "averaged": self.averaged, "optimizer": self.optimizer}

    def _save_weights(self, name: str, **metadata: str) -> None:
        network = self.averaged.module
        assert isinstance(network, ScratchNet)
        metadata |= {"recipe": self.recipe.name, "step": str(self.step)}
        save_finder(Finder(network, self.threshold), self.out / name, metadata)

    # --- steps -----------------------------------------------------------------------------------

    def to_end(self) -> bool:
        """Take the steps that are left, as far as time allows; False if stopped before."""
        recipe = self.recipe
        logs, meter = Logs(self.out, self.step), Meter(self.step, recipe.steps)
        with meter, stop_signals() as stopped:
            meter.say(json.dumps(asdict(recipe)))
            meter.say(f"{len(self.photos.source)} photos, on {self.device}, into {self.out}")
            finished = self._take_steps(stopped, logs, meter)
            self.save()
            if not finished:
                meter.say(f"stopped at step {self.step}; the checkpoint is saved")
        logs.close()
        return finished

    def _take_steps(self, stopped: list[int], logs: Logs, meter: Meter) -> bool:
        recipe = self.recipe
        saved = logged = time.monotonic()
        used = self.clock.used
        while self.step < recipe.steps and used < 1:
            start = self.step * recipe.batch
            batch = self.photos.batch(range(start, start + recipe.batch))
            values = self._step(batch, used)
            self.step += 1
            used = self.clock.used
            meter.advance(self.step)
            if self.step % recipe.log_every == 0:
                now = time.monotonic()
                scalars = {key: value.item() for key, value in values.items()}
                scalars["images/s"] = recipe.log_every * recipe.batch / (now - logged)
                logged = now
                logs.write(self.step, scalars)
                meter.report(self.step, scalars, self.clock.minutes_left)
            finished = self.step == recipe.steps or used >= 1
            early = used >= _FIRST_VALIDATION and not self.clock.measured("validation")
            if finished or early or self.step % recipe.val_every == 0:
                self._validate(logs, meter)
            if stopped and not finished:
                return False
            if time.monotonic() - saved > 60 * recipe.save_minutes:
                self.save()
                saved = time.monotonic()
        return True

    def _step(self, batch: DamagedBatch, used: float) -> dict[str, Tensor]:
        recipe = self.recipe
        factor = min(1.0, (self.step + 1) / max(recipe.warmup, 1))
        factor *= 0.5 * (1 + math.cos(math.pi * min(1.0, max(used, self.step / recipe.steps))))
        for group in self.optimizer.param_groups:
            group["lr"], group["betas"] = recipe.lr * factor, recipe.betas
        logits = self._logits(self.network, batch.image)
        marks, counted = batch.marks.to(self.device), batch.counted.to(self.device)
        each = F.binary_cross_entropy_with_logits(logits, marks, reduction="none")
        entropy = (each * counted).sum() / counted.sum().clamp(min=1)
        found = torch.sigmoid(logits) * counted
        overlap = (2 * (found * marks).sum() + 1) / (found.sum() + marks.sum() + 1)
        loss = entropy + recipe.overlap * (1 - overlap)
        self.optimizer.zero_grad(set_to_none=True)
        loss.backward()  # type: ignore[no-untyped-call]
        torch.nn.utils.clip_grad_norm_(self.network.parameters(), recipe.clip)
        self.optimizer.step()
        self.averaged.update_parameters(self.network)
        return {"entropy": entropy.detach(), "overlap": overlap.detach()}

    def _logits(self, network: torch.nn.Module, image: Tensor, *, views: bool = False) -> Tensor:
        image = image.to(self.device).contiguous(memory_format=torch.channels_last)
        mixed = self.recipe.precision == "bf16-mixed"
        with torch.autocast(self.device.type, torch.bfloat16) if mixed else nullcontext():
            logits: Tensor = logits_of_views(network, image) if views else network(image)
        return logits.float()

    # --- judging ---------------------------------------------------------------------------------

    @torch.no_grad()
    def _validate(self, logs: Logs, meter: Meter) -> None:
        """Choose the threshold on validation photos; keep the network if it is the best."""
        if self.judge is None:
            return
        with self.clock.ending("validation"):
            network = self.averaged.module.eval()
            batches, found = [], []
            for start in range(0, self.judge.pool, _JUDGED_AT_ONCE):
                end = min(start + _JUDGED_AT_ONCE, self.judge.pool)
                batches.append(self.judge.batch(range(start, end)))
                logits = self._logits(network, batches[-1].image, views=True)
                found.append(torch.sigmoid(logits).cpu())
            network.train()
            truth = DamagedBatch(*map(torch.cat, zip(*batches, strict=True)))
            probability = torch.cat(found)
            scores = best_scores(probability, truth, self.recipe.least_precision)
            self._sample(truth, probability)
        logs.write(self.step, {f"val/{key}": value for key, value in scores._asdict().items()})
        text = " ".join(f"{key} {value:.4g}" for key, value in scores._asdict().items())
        meter.say(f"step {self.step} validation: {text}")
        self.threshold = scores.threshold
        if scores.f1 > self.best:
            self.best = scores.f1
            self._save_weights("best.safetensors", f1=f"{scores.f1:.4f}")

    def _sample(self, truth: DamagedBatch, probability: Tensor) -> None:
        """Write photo, truth and found of some photos below each other."""
        rows = [
            torch.cat(list(part[:_SAMPLES].expand(-1, 3, -1, -1)), dim=2)
            for part in (truth.image, truth.marks, probability)
        ]
        picture = tensor_to_image(torch.cat(rows, dim=1)[None])
        write_image(picture, self.out / "samples" / f"{self.step:07d}.png")
