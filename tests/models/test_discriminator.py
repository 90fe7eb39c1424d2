"""PatchGAN discriminator."""

from __future__ import annotations

import torch

from regionnorm.models import PatchDiscriminator


def test_each_logit_judges_a_patch_of_70_pixels() -> None:
    model = PatchDiscriminator(width=4)
    image = torch.rand(1, 3, 256, 256, requires_grad=True)
    logits = model(image)
    assert logits.shape == (1, 1, 30, 30)
    logits[0, 0, 15, 15].backward()
    assert image.grad is not None
    rows = image.grad.abs().sum(dim=(0, 1, 3)).nonzero()
    assert rows.max() - rows.min() + 1 == 70


def test_every_convolution_has_spectral_norm_one() -> None:
    torch.manual_seed(0)
    model = PatchDiscriminator(width=8)
    with torch.no_grad():
        for _ in range(30):  # power iterations
            model(torch.rand(2, 3, 64, 64))
        convolutions = [m for m in model.modules() if isinstance(m, torch.nn.Conv2d)]
        assert len(convolutions) == 5
        for convolution in convolutions:
            assert convolution.bias is None
            norm = torch.linalg.matrix_norm(convolution.weight.flatten(1), 2)
            assert abs(norm.item() - 1) < 0.05
