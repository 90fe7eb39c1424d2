from __future__ import annotations

import torch
from torch import nn

from regionnorm.models import create_model
from regionnorm.nn.precision import cast_convolutions
from regionnorm.nn.region_norm import LearnableRegionNorm2d


def test_convolutions_are_cast_and_norms_are_not():
    network = create_model("rn", width=4, blocks=1)
    cast_convolutions(network, torch.bfloat16)
    assert network.output.weight.dtype == torch.bfloat16
    for module in network.modules():
        if isinstance(module, LearnableRegionNorm2d):
            assert all(part.dtype == torch.float32 for part in module.parameters())


def test_the_picture_is_that_of_autocast_alone():
    torch.manual_seed(0)
    network = create_model("rn", width=8, blocks=2).eval()
    nn.init.normal_(network.output.weight, std=0.1)
    image, mask = torch.rand(1, 3, 40, 36), (torch.rand(1, 1, 40, 36) > 0.5).float()
    with torch.inference_mode(), torch.autocast("cpu", torch.bfloat16):
        before = network(image, mask)
        cast_convolutions(network, torch.bfloat16)
        assert torch.equal(network(image, mask), before)
