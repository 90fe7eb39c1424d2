"""The training step of the RN family: one picture, one patch discriminator."""

from __future__ import annotations

from torch import Tensor, nn

from regionnorm.imaging import composite
from regionnorm.models import InpaintingModel, PatchDiscriminator
from regionnorm.training.steps.base import Pictures, TrainingStep

__all__ = ["SingleStage"]


class SingleStage(TrainingStep):
    """Any network that paints one picture, judged whole by EdgeConnect's discriminator."""

    def generator(self, model: InpaintingModel) -> nn.Module:
        """The network itself."""
        return model

    def discriminators(self) -> dict[str, nn.Module]:
        """One PatchGAN."""
        return {"discriminator": PatchDiscriminator(width=self.recipe.discriminator_width)}

    def paint(self, generator: nn.Module, image: Tensor, mask: Tensor) -> Pictures:
        """The network's picture or, if the recipe says so, the composite."""
        output = generator(image, mask).float()
        if self.losses.on_composite:
            output = composite(image, output, mask)
        return {"output": output}
