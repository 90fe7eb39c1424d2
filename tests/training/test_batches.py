"""What a step sees: the same from files and from memory, a function of seed and step alone."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from itertools import islice
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torch.utils._python_dispatch import TorchDispatchMode

from regionnorm.data import ImageSource, open_source
from regionnorm.training import Recipe
from regionnorm.training.batches import Batch, Batches

Folder = Callable[..., Path]
CPU = torch.device("cpu")


def recipe(**changes: object) -> Recipe:
    base = Recipe(
        name="tiny", size=16, batch=3, steps=6, workers=0, masks="fields", resident="always"
    )
    return replace(base, **changes)  # type: ignore[arg-type]


def batches(source: ImageSource, step: int = 0, rank: int = 0, world: int = 1, **changes: object):
    made = Batches(recipe(**changes), source, CPU, rank=rank, world=world)
    return list(made.from_step(step))


def same(first: list[Batch], second: list[Batch]) -> bool:
    return len(first) == len(second) and all(
        torch.equal(a.image, b.image) and torch.equal(a.mask, b.mask) and a.skipped == b.skipped
        for a, b in zip(first, second, strict=True)
    )


@pytest.fixture
def source(photo_folder: Folder) -> ImageSource:
    return open_source(photo_folder(5, 30, 24))


@pytest.mark.parametrize("masks", ["fields", "generated", "center"])
@pytest.mark.parametrize("resident", ["always", "never"])
def test_a_step_sees_the_same_wherever_the_run_starts(
    source: ImageSource, masks: str, resident: str
) -> None:
    whole = batches(source, masks=masks, resident=resident)
    assert same(whole[2:], batches(source, step=2, masks=masks, resident=resident))
    assert not torch.equal(whole[0].image, whole[1].image)


@pytest.mark.parametrize("masks", ["fields", "generated", "center"])
def test_photos_in_memory_and_files_give_the_same_batches(source: ImageSource, masks: str) -> None:
    kept = batches(source, masks=masks)
    files = batches(source, masks=masks, resident="never")
    for ours, theirs in zip(kept, files, strict=True):
        assert torch.equal(ours.mask, theirs.mask)
        assert (ours.image - theirs.image).abs().max() <= 1.01 / 255
        assert ours.image.dtype == theirs.image.dtype == torch.float32


def test_mask_files_serve_photos_in_memory(source: ImageSource, tmp_path: Path) -> None:
    (tmp_path / "masks").mkdir()
    pixels = np.zeros((20, 20), np.uint8)
    pixels[:9] = 255
    Image.fromarray(pixels).save(tmp_path / "masks" / "half.png")
    for batch in batches(source, masks=str(tmp_path / "masks"), steps=2):
        assert batch.mask.shape == (3, 1, 16, 16)
        assert 0.3 < batch.mask.mean() < 0.6


def test_masks_change_from_step_to_step_and_with_the_seed(source: ImageSource) -> None:
    first, second = islice(batches(source), 2)
    assert not torch.equal(first.mask, second.mask)
    assert not torch.equal(first.mask, batches(source, seed=1)[0].mask)


def test_processes_share_out_the_photos_and_draw_masks_of_their_own(source: ImageSource) -> None:
    alone = batches(source, batch=6, steps=2, masks="generated")
    ranks = [batches(source, rank=rank, world=2, steps=2, masks="generated") for rank in (0, 1)]
    for number, whole in enumerate(alone):
        image = torch.cat([part[number].image for part in ranks])
        assert torch.equal(image, whole.image)
    ranks = [batches(source, rank=rank, world=2, steps=1) for rank in (0, 1)]
    assert not torch.equal(ranks[0][0].mask, ranks[1][0].mask)


class _NoWaiting(TorchDispatchMode):
    """Refuses operations that need the value of a tensor, for which a GPU is awaited."""

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):  # type: ignore[no-untyped-def]
        name = function.overloadpacket.__name__
        if name in ("_local_scalar_dense", "nonzero", "masked_select", "item", "equal", "unique"):
            raise AssertionError(f"{name} waits for the device")
        return function(*args, **(kwargs or {}))


def test_batches_are_made_without_waiting_for_the_device(source: ImageSource) -> None:
    made = Batches(recipe(), source, CPU)
    with _NoWaiting():
        assert len(list(made.from_step(0))) == 6
    with pytest.raises(AssertionError, match="waits"), _NoWaiting():
        torch.ones(1).item()


def test_channels_last_batches_are_laid_out_so(source: ImageSource) -> None:
    image = batches(source, steps=1, channels_last=True)[0].image
    assert image.is_contiguous(memory_format=torch.channels_last)


def test_photos_that_do_not_fit_are_read_from_files(source: ImageSource) -> None:
    said: list[str] = []
    tiny = recipe(resident="always", resident_gib=1e-6)
    with pytest.raises(ValueError, match=r"resident=always: 5 photos need .*resident=auto"):
        Batches(tiny, source, CPU)
    # On a CPU "auto" reads files without trying; the fallback itself is the same on all devices.
    made = Batches(replace(tiny, resident="auto"), source, CPU, say=said.append)
    assert made.photos is None
    assert not said
    assert made._resident(said.append, None) is None
    assert len(said) == 1
    assert "from their files" in said[0]
    assert next(made.from_step(0)).image.shape == (3, 3, 16, 16)
