from __future__ import annotations

import sys
from collections.abc import Callable

import pytest
import skimage.color
import skimage.feature
import torch
from PIL import Image
from torch import Tensor

from regionnorm.imaging import image_to_tensor
from regionnorm.nn.edges import canny_edges, luminance

PhotoMaker = Callable[..., Image.Image]


@pytest.fixture
def photos(make_photo: PhotoMaker) -> Tensor:
    return torch.cat([image_to_tensor(make_photo(64, 48, seed=seed)) for seed in (0, 1)])


def middle(x: Tensor) -> Tensor:
    hole = torch.zeros_like(x[:, :1])
    hole[..., 16:32, 20:44] = 1
    return hole


def test_luminance_is_scikit_images(photos: Tensor) -> None:
    expected = skimage.color.rgb2gray(photos[0].permute(1, 2, 0).numpy())
    torch.testing.assert_close(luminance(photos)[0, 0], torch.from_numpy(expected))


def test_edges_are_scikit_images_for_each_picture(photos: Tensor) -> None:
    edges = canny_edges(luminance(photos))
    assert edges.shape == (2, 1, 48, 64) and edges.dtype == torch.float32
    for edge, photo in zip(edges, luminance(photos), strict=True):
        expected = skimage.feature.canny(photo[0].numpy(), sigma=2)
        assert expected.any()
        assert torch.equal(edge[0].bool(), torch.from_numpy(expected))


def test_a_hole_is_not_read_and_leaves_no_edges_of_its_own(photos: Tensor) -> None:
    gray = luminance(photos)
    hole = middle(gray)
    edges = canny_edges(gray, hole)
    around = torch.nn.functional.max_pool2d(hole, 3, stride=1, padding=1)
    assert edges.any() and not edges[around > 0].any()
    for other in (0.0, 1.0, torch.nan):
        assert torch.equal(canny_edges(torch.where(hole > 0, other, gray), hole), edges)


def test_nothing_but_hole_has_no_edges(photos: Tensor) -> None:
    gray = luminance(photos)
    assert not canny_edges(gray, torch.ones_like(gray)).any()


def test_a_missing_scikit_image_names_the_extra(
    photos: Tensor, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "skimage.feature", None)
    with pytest.raises(ImportError, match=r"pip install 'regionnorm\[eval\]'"):
        canny_edges(luminance(photos))
