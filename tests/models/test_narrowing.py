"""A narrower network takes over what the layers of a wider one listen to."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from regionnorm.models import InpaintingModel, RNGenerator, create_model
from regionnorm.models.narrowing import narrow

WIDE, BLOCKS = 6, 5
OPTIONS = [
    {"upsample": "pixelshuffle"},
    {"upsample": "pixelshuffle-blur", "skip": True, "noise": True, "prefill": "diffusion"},
    {"upsample": "transpose", "skip": True, "stats": "batch", "track_running_stats": True},
]


def make(name: str = "rn-arch3", seed: int = 0, **options: object) -> RNGenerator:
    """A network whose every parameter and running average is drawn."""
    random = torch.Generator().manual_seed(seed)
    model = create_model(name, **{"width": WIDE, "blocks": BLOCKS, **options}).eval()
    assert isinstance(model, RNGenerator)
    with torch.no_grad():
        for value in model.state_dict().values():
            if value.is_floating_point():
                drawn = torch.rand(value.shape, generator=random)
                value.copy_((drawn - 0.5) * 0.3 if value.dim() == 4 else drawn * 0.3 + 0.05)
    return model


def example() -> tuple[Tensor, Tensor]:
    random = torch.Generator().manual_seed(3)
    image = torch.rand(2, 3, 32, 24, generator=random)
    return image, (torch.rand(2, 1, 32, 24, generator=random) > 0.7).float()


def silence(listeners: list[tuple[nn.Module, int]], channels: Tensor) -> None:
    """Let convolutions no longer listen to ``channels``, which begin at an offset."""
    for convolution, offset in listeners:
        transposed = isinstance(convolution, nn.ConvTranspose2d)
        with torch.no_grad():
            convolution.get_parameter("weight").index_fill_(1 - transposed, channels + offset, 0.0)


def silence_half(model: RNGenerator) -> None:
    """Of each group of channels let half, by chance, be heard by no layer."""
    up = [each[0] if isinstance(each, nn.Sequential) else each for each in model.decoder]
    blocks = [block for block in model.residual if isinstance(block, nn.Module)]
    skip = [model.skip] if model.skip is not None else []
    groups: list[tuple[int, list[tuple[nn.Module, int]]]] = [
        (1, [(model.encoder[1], 0), *((each, WIDE) for each in skip)]),
        (2, [(model.encoder[2], 0)]),
        (4, [(up[0], 0), *((block.get_submodule("first"), 0) for block in blocks)]),
        *((4, [(block.get_submodule("second"), 0)]) for block in blocks),
        (2, [(up[1], 0)]),
        (1, [(model.output, 0), *((each, 0) for each in skip)]),
    ]
    if skip:
        groups.append((1, [(model.output, WIDE)]))
    random = torch.Generator().manual_seed(1)
    for times, listeners in groups:
        order = torch.randperm(times * WIDE, generator=random)
        silence(listeners, order[: times * WIDE // 2])


@pytest.mark.parametrize("options", OPTIONS)
def test_channels_that_no_layer_listens_to_go_first(options: dict[str, object]) -> None:
    wide = make(**options)
    silence_half(wide)
    small = make(seed=1, **{**options, "width": WIDE // 2})
    narrow(small, wide)
    image, mask = example()
    expected = wide(image, mask)
    assert expected.std() > 0.01
    torch.testing.assert_close(small(image, mask), expected)


@pytest.mark.parametrize("options", OPTIONS)
def test_blocks_are_taken_evenly_and_the_first_stays(options: dict[str, object]) -> None:
    deep = make("rn", **options)
    shallow = make("rn", seed=1, **{**options, "blocks": 2})
    narrow(shallow, deep)
    image, mask = example()
    deep.residual = nn.ModuleList([deep.residual[0], deep.residual[2]])
    assert torch.equal(shallow(image, mask), deep(image, mask))


def test_the_wider_network_stays_as_it_is() -> None:
    wide, same = make("rn", **OPTIONS[1]), make("rn", **OPTIONS[1])
    narrow(make("rn", seed=1, **{**OPTIONS[1], "width": 3, "blocks": 0}), wide)
    assert all(
        torch.equal(a, b)
        for a, b in zip(wide.state_dict().values(), same.state_dict().values(), strict=True)
    )


@pytest.mark.parametrize(
    ("small", "message"),
    [
        (lambda: make("rn", width=WIDE + 1), "width is 7; expected at most the other network's 6"),
        (lambda: make("rn", blocks=BLOCKS + 1), "blocks is 6"),
        (lambda: make("rn", width=3, threshold=0.7), "only width and blocks may differ"),
        (lambda: make("rn-arch3", width=3), "only width and blocks may differ"),
        (lambda: create_model("partial-conv", width=3), "both must be RN generators"),
    ],
)
def test_what_cannot_be_cut_is_said(small: object, message: str) -> None:
    assert callable(small)
    model = small()
    assert isinstance(model, InpaintingModel)
    with pytest.raises(ValueError, match=message):
        narrow(model, make("rn"))
