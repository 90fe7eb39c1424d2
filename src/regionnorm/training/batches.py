"""What each step of a run sees: from photos in a device's memory, or from files."""

from __future__ import annotations

import logging
import signal
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from regionnorm.data import ImageSource, InpaintingDataset
from regionnorm.data.resident import DoesNotFitError, ResidentPhotos
from regionnorm.masks import (
    CenterSquare,
    GeneratedMasks,
    MaskFolder,
    MaskSampler,
    center_square_mask,
)
from regionnorm.masks.fields import field_masks
from regionnorm.training.recipe import Recipe

__all__ = ["Batch", "Batches", "mask_sampler"]

_log = logging.getLogger(__name__)

Progress = Callable[[int, int], None]

_FIELDS_STREAM = 1  # a step's other random numbers have none


class Batch(NamedTuple):
    """What a step trains on."""

    image: Tensor
    """float32 ``[B, 3, S, S]`` in [0, 1]."""
    mask: Tensor
    """float32 ``[B, 1, S, S]``, 1 in the hole."""
    skipped: int
    """How many unreadable photos were passed over."""


class Batches:
    """The batches of a run: a function of seed, step and process alone.

    Photos that stay on the device give the crops that files give, except for rounding.

    Args:
        recipe: All choices of the run.
        source: Photos.
        device: Where the batches go.
        rank: This process among all that train together.
        world: How many these are.
        say: Prints one line.
        on_progress: Called with the number of photos decoded and of all, where they are to stay.

    Raises:
        ValueError: The recipe wants the photos to stay on the device, and they do not fit.
    """

    def __init__(
        self,
        recipe: Recipe,
        source: ImageSource,
        device: torch.device,
        *,
        rank: int = 0,
        world: int = 1,
        say: Callable[[str], None] = _log.info,
        on_progress: Progress | None = None,
    ) -> None:
        self.recipe, self.device, self.rank, self.world = recipe, device, rank, world
        self.dataset = InpaintingDataset(
            source,
            # Drawn on the device instead; what the dataset's own costs is nothing.
            CenterSquare() if recipe.masks == "fields" else mask_sampler(recipe),
            size=recipe.size,
            seed=recipe.seed,
            min_scale=recipe.min_scale,
            max_scale=recipe.max_scale,
            flip=recipe.flip,
        )
        self.photos: ResidentPhotos | None = None
        on_cuda = device.type == "cuda"
        if recipe.resident == "always" or (recipe.resident == "auto" and on_cuda):
            self.photos = self._resident(say, on_progress)

    def from_step(self, step: int) -> Iterator[Batch]:
        """Batches from a step to the last one of the recipe."""
        steps = range(step, self.recipe.steps)
        positions = _Positions(steps, self.recipe.batch, self.rank, self.world)
        layout = torch.contiguous_format
        if self.recipe.channels_last:
            layout = torch.channels_last
        if self.photos is None:
            crops = self._from_files(positions)
        else:
            crops = self._from_memory(self.photos, positions)
        for number, (image, mask, skipped) in zip(steps, crops, strict=True):
            if self.recipe.masks == "fields":
                mask = self._fields(number)
            yield Batch(image.contiguous(memory_format=layout), mask, skipped)

    def _resident(
        self, say: Callable[[str], None], on_progress: Progress | None
    ) -> ResidentPhotos | None:
        recipe, device = self.recipe, self.device
        limit = None if recipe.resident_gib is None else int(recipe.resident_gib * 2**30)
        try:
            photos = ResidentPhotos(self.dataset, device, limit=limit, on_progress=on_progress)
        except DoesNotFitError as error:
            if recipe.resident == "always":
                raise ValueError(f"resident=always: {error}; use resident=auto") from error
            say(f"photos are read from their files again and again: {error}")
            return None
        size = photos.pixels.numel() / 2**30
        say(f"{photos.readable} photos stay on {device}: {size:.3g} GiB")
        return photos

    def _loader(self, dataset: Dataset[Any], positions: _Positions) -> DataLoader[Any]:
        return DataLoader(
            dataset,
            batch_sampler=positions,
            num_workers=self.recipe.workers,
            pin_memory=self.device.type == "cuda",
            worker_init_fn=_ignore_interrupts,
            # The loader draws a seed; from its own generator, so that resuming changes nothing.
            generator=torch.Generator().manual_seed(self.recipe.seed),
        )

    def _from_files(self, positions: _Positions) -> Iterator[Batch]:
        for batch in self._loader(self.dataset, positions):
            image = batch["image"].to(self.device, non_blocking=True).float() / 255
            mask = batch["mask"].to(self.device, non_blocking=True)
            yield Batch(image, mask, int(batch["skipped"].sum()))

    def _from_memory(self, photos: ResidentPhotos, positions: _Positions) -> Iterator[Batch]:
        for chosen, mask in zip(positions, self._masks(positions), strict=True):
            image, skipped = photos.batch(chosen)
            yield Batch(image, mask, skipped)

    def _masks(self, positions: _Positions) -> Iterator[Tensor]:
        """Masks that the dataset draws at the positions, by the loader's workers."""
        recipe = self.recipe
        if recipe.masks in ("fields", "center"):
            square = torch.from_numpy(center_square_mask(recipe.size, recipe.size)).float()
            mask = square.expand(recipe.batch, 1, -1, -1).to(self.device)
            for _ in positions:
                yield mask
            return
        for mask in self._loader(_Masks(self.dataset), positions):
            yield mask.to(self.device, non_blocking=True)

    def _fields(self, step: int) -> Tensor:
        recipe = self.recipe
        key = [recipe.seed, step, self.rank, _FIELDS_STREAM]
        seed = int(np.random.SeedSequence(key).generate_state(1)[0])
        generator = torch.Generator(self.device).manual_seed(seed)
        size = recipe.size
        return field_masks(generator, recipe.batch, size, size, max_area=recipe.max_area)


@dataclass(frozen=True)
class _Positions:
    """Which samples each step of a process takes; all processes share out one sequence."""

    steps: range
    batch: int
    rank: int
    world: int

    def __iter__(self) -> Iterator[list[int]]:
        for step in self.steps:
            start = (step * self.world + self.rank) * self.batch
            yield list(range(start, start + self.batch))


class _Masks(Dataset[Tensor]):
    """The masks of a dataset's samples without their photos."""

    def __init__(self, dataset: InpaintingDataset) -> None:
        self.dataset = dataset

    def __getitem__(self, position: int) -> Tensor:
        dataset = self.dataset
        mask = dataset.masks(dataset.size, dataset.size, dataset.draw(position)[1])
        return torch.from_numpy(mask.astype(np.float32)[None])


def mask_sampler(recipe: Recipe) -> MaskSampler:
    """Mask sampler of a recipe: generated ones, the centre square or a folder of mask files.

    There is none for ``"fields"``, which are drawn on the device; sample pictures show generated
    masks then.
    """
    if recipe.masks in ("generated", "fields"):
        return GeneratedMasks(recipe.max_area, thin=recipe.thin)
    return CenterSquare() if recipe.masks == "center" else MaskFolder(recipe.masks)


def _ignore_interrupts(worker: int) -> None:
    """Leave signals to the main process, which still needs its workers to finish the step."""
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, signal.SIG_IGN)
