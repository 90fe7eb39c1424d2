"""What every network keeps, whatever its family."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor, nn

from regionnorm.models import InpaintingModel, create_model, list_models

# Small enough for a test; the families' own tests vary more.
SMALL: dict[str, dict[str, Any]] = {
    "contextual-attention": {"width": 4},
    "gated-conv": {"width": 8},
    "partial-conv": {"width": 4, "levels": 4},
}
RN_FAMILY = {"width": 4, "blocks": 1}


def small(name: str) -> InpaintingModel:
    torch.manual_seed(0)
    return create_model(name, **SMALL.get(name.removeprefix("rn-"), RN_FAMILY))


def example(height: int, width: int) -> tuple[Tensor, Tensor]:
    image = torch.rand(2, 3, height, width)
    mask = (torch.rand(2, 1, height // 8 + 1, width // 8 + 1) > 0.6).float()
    return image, nn.functional.interpolate(mask, size=(height, width))


@pytest.mark.parametrize("size", [(256, 256), (200, 312), (17, 33)])
@pytest.mark.parametrize("name", list_models())
def test_a_picture_keeps_its_size_and_range(name: str, size: tuple[int, int]) -> None:
    image, mask = (part[:1] for part in example(*size))
    with torch.no_grad():
        output = small(name).eval()(image, mask)
    assert output.shape == image.shape
    assert output.dtype == torch.float32
    assert 0 <= output.min() < output.max() <= 1


@pytest.mark.parametrize("name", list_models())
def test_what_lies_under_the_hole_is_never_read(name: str) -> None:
    image, mask = example(48, 40)
    model = small(name)
    poisoned = torch.where(mask > 0, torch.nan, image)
    assert torch.equal(model(image, mask), model(poisoned, mask))


@pytest.mark.parametrize("fill", [0.0, 1.0])
@pytest.mark.parametrize("name", list_models())
def test_no_hole_and_nothing_but_hole_give_finite_pictures_and_gradients(
    name: str, fill: float
) -> None:
    image, _ = example(48, 48)
    model = small(name)
    output = model(image, torch.full_like(image[:, :1], fill))
    assert torch.isfinite(output).all()
    output.sum().backward()
    gradients = [parameter.grad for parameter in model.parameters()]
    assert all(grad is None or torch.isfinite(grad).all() for grad in gradients)


@pytest.mark.parametrize("name", list_models())
def test_every_parameter_learns(name: str) -> None:
    image, mask = example(48, 48)
    model = small(name)
    stages = model.forward_stages(image, mask)
    torch.stack([stage.square().sum() for stage in stages.values()]).sum().backward()
    assert all(parameter.grad is not None for parameter in model.parameters())


@pytest.mark.parametrize("name", list_models())
def test_the_picture_is_the_output_stage_within_range(name: str) -> None:
    image, mask = example(24, 40)
    model = small(name).eval()
    stages = model.forward_stages(image, mask)
    assert torch.equal(model(image, mask), stages["output"].clamp(0, 1))
    assert all(stage.shape[2:] == image.shape[2:] for stage in stages.values())


@pytest.mark.parametrize("name", list_models())
def test_half_precision_stays_close_to_single(name: str) -> None:
    image, mask = example(48, 48)
    model = small(name).eval()
    with torch.no_grad():
        wanted = model(image, mask)
        with torch.autocast("cpu", dtype=torch.bfloat16):
            output = model(image, mask)
    assert torch.isfinite(output).all()
    assert (output - wanted).abs().mean() < 0.1


@pytest.mark.parametrize("name", [name for name in list_models() if "bn" not in name])
def test_one_picture_does_not_depend_on_its_neighbours(name: str) -> None:
    image, mask = example(48, 48)
    model = small(name).eval()
    with torch.no_grad():
        together, alone = model(image, mask)[:1], model(image[:1], mask[:1])
    assert torch.allclose(together, alone, atol=1e-4)


@pytest.mark.parametrize("name", list_models())
def test_networks_run_in_any_precision(name: str) -> None:
    image, mask = example(48, 40)
    for dtype, expected in (
        (torch.float64, torch.float64),
        (torch.bfloat16, torch.float32),
        (torch.float16, torch.float32),
    ):
        with torch.no_grad():
            output = small(name).to(dtype)(image.to(dtype), mask.to(dtype))
        assert output.dtype == expected, dtype
        assert torch.isfinite(output).all(), dtype


@pytest.mark.parametrize("name", list_models())
def test_an_empty_batch_is_an_empty_batch(name: str) -> None:
    image, mask = (part[:0] for part in example(48, 40))
    with torch.no_grad():
        assert small(name).eval()(image, mask).shape == image.shape
