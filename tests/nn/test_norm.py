"""The norm factory: every kind is called the same way."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import nn

from regionnorm.nn import NORMS, LearnableRegionNorm2d, RegionNorm2d, make_norm

CLASSES = {
    "rn-b": RegionNorm2d,
    "rn-l": LearnableRegionNorm2d,
    "in": nn.InstanceNorm2d,
    "bn": nn.BatchNorm2d,
    "none": nn.Identity,
}


@pytest.mark.parametrize("kind", NORMS)
def test_every_kind_is_called_with_the_mask_and_applies_its_activation(kind: str) -> None:
    x = torch.randn(2, 6, 9, 7)
    mask = (torch.rand(2, 1, 9, 7) > 0.5).float()
    torch.manual_seed(0)
    plain = make_norm(kind, 6)
    torch.manual_seed(0)
    relu = make_norm(kind, 6, activation="relu")
    assert type(plain.layer) is CLASSES[kind]
    assert torch.allclose(relu(x, mask), torch.relu(plain(x, mask)), atol=1e-6)


def test_only_rn_b_depends_on_the_mask() -> None:
    x = torch.randn(1, 4, 8, 8)
    first, second = torch.zeros(1, 1, 8, 8), torch.zeros(1, 1, 8, 8)
    second[..., :4] = 1
    for kind in NORMS:
        norm = make_norm(kind, 4)
        same = torch.equal(norm(x, first), norm(x, second))
        assert same == (kind != "rn-b")


def test_settings_reach_the_layers() -> None:
    found = make_norm("rn-l", 8, stats="batch", threshold=0.6).layer
    given = make_norm("rn-b", 8, stats="group:4").layer
    assert (found.stats, found.threshold, given.stats) == ("batch", 0.6, "group:4")


def test_unknown_kinds_are_refused() -> None:
    with pytest.raises(ValueError, match="rn-b, rn-l, in, bn, none"):
        make_norm("layer", 4)


@pytest.mark.parametrize("kind", NORMS)
@pytest.mark.parametrize("wrong", [{"stats": "nonsense"}, {"threshold": 7}, {"activation": "gelu"}])
def test_settings_that_are_not_known_are_refused_whatever_the_kind(
    kind: str, wrong: dict[str, Any]
) -> None:
    with pytest.raises(ValueError, match=f"{next(iter(wrong))} is"):
        make_norm(kind, 4, **wrong)
