"""The training step of gated convolution: SN-PatchGAN."""

from __future__ import annotations

from torch import nn

from regionnorm.models import GatedDiscriminator
from regionnorm.training.steps.coarse_to_fine import CoarseToFineStep

__all__ = ["GatedConvStep"]

SMALLEST = 33  # the last convolution still sees 2x2 pixels


class GatedConvStep(CoarseToFineStep):
    """One discriminator, which is shown the mask too and judges every location."""

    def discriminators(self) -> dict[str, nn.Module]:
        """One SN-PatchGAN.

        Raises:
            ValueError: The recipe's pictures are too small for its six halvings.
        """
        # A convolution of one pixel with stride 2 leaves part of its gradient unwritten in
        # oneDNN's bfloat16, so that NaN may stand there.
        if self.recipe.size < SMALLEST:
            raise ValueError(
                f"size is {self.recipe.size}; the discriminator of 'gated-conv' halves it six "
                f"times and needs {SMALLEST} or more"
            )
        return {"discriminator": GatedDiscriminator(width=self.recipe.discriminator_width)}
