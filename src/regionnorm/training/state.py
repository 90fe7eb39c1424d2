"""All that a training run must remember, and how it is saved and restored."""

from __future__ import annotations

from pathlib import Path
from pickle import UnpicklingError
from typing import TYPE_CHECKING, Any, cast

import torch
from torch import nn
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn

from regionnorm.imaging import atomic_path
from regionnorm.models import InpaintingModel, PatchDiscriminator, create_model
from regionnorm.nn.vgg import load_vgg19
from regionnorm.training.recipe import Recipe
from regionnorm.training.steps import Networks

if TYPE_CHECKING:
    from lightning.fabric import Fabric

__all__ = ["TrainingState"]


class TrainingState:
    """Networks, optimisers, EMA, step and random state of a run.

    Args:
        fabric: Places the networks on devices.
        recipe: Which networks, and how they are optimised.
    """

    def __init__(self, fabric: Fabric, recipe: Recipe) -> None:
        torch.manual_seed(recipe.seed)
        self.fabric = fabric
        self.step = 0
        self.skipped = 0
        self.best = float("-inf")
        self.model = create_model(recipe.model, **recipe.options)
        self.averaged: AveragedModel | None = None
        if recipe.ema:
            self.averaged = AveragedModel(
                self.model,
                multi_avg_fn=get_ema_multi_avg_fn(recipe.ema),  # type: ignore[no-untyped-call]
                use_buffers=True,
            ).to(fabric.device)
        self.networks = self._networks(recipe)

    @property
    def best_model(self) -> InpaintingModel:
        """The network to judge and to ship: the average if there is one."""
        if self.averaged is None:
            return self.model
        return cast(InpaintingModel, self.averaged.module)

    def after_step(self, skipped: int) -> None:
        """Count the step that was just taken and let the average follow."""
        self.step += 1
        self.skipped += skipped
        if self.averaged is not None:
            self.averaged.update_parameters(self.model)

    def save(self, path: Path) -> None:
        """Write everything, under a temporary name first, so that a kill leaves the old file."""
        if self.fabric.is_global_zero:
            with atomic_path(path) as temporary:
                torch.save(self._state(), temporary)
        self.fabric.barrier()

    def load(self, path: Path) -> None:
        """Restore what :meth:`save` wrote.

        Raises:
            ValueError: The file is no checkpoint of this recipe.
        """
        try:
            state = torch.load(path, map_location="cpu", weights_only=True)
            for name, part in self._parts().items():
                part.load_state_dict(state[name])
            self.fabric.strategy.precision.load_state_dict(state["precision"])
        except (EOFError, UnpicklingError) as error:
            raise ValueError(f"{path} is damaged; start again with another --out") from error
        except (KeyError, RuntimeError) as error:
            first = str(error).splitlines()[0]
            raise ValueError(f"{path} does not fit this recipe: {first}") from error
        self.step, self.skipped, self.best = state["step"], state["skipped"], state["best"]
        torch.set_rng_state(state["random"])
        if state["random_cuda"] is not None and self.fabric.device.type == "cuda":
            torch.cuda.set_rng_state(state["random_cuda"], self.fabric.device)

    def _state(self) -> dict[str, Any]:
        on_cuda = self.fabric.device.type == "cuda"
        return {
            **{name: part.state_dict() for name, part in self._parts().items()},
            "step": self.step,
            "skipped": self.skipped,
            "best": self.best,
            "random": torch.get_rng_state(),
            "random_cuda": torch.cuda.get_rng_state(self.fabric.device) if on_cuda else None,
            "precision": self.fabric.strategy.precision.state_dict(),
        }

    def _parts(self) -> dict[str, Any]:
        parts = {
            "generator": self.networks.generator,
            "optimizer": self.networks.optimizer,
            "discriminator": self.networks.discriminator,
            "discriminator_optimizer": self.networks.discriminator_optimizer,
            "averaged": self.averaged,
        }
        return {name: part for name, part in parts.items() if part is not None}

    def _networks(self, recipe: Recipe) -> Networks:
        layout = torch.channels_last if recipe.channels_last else torch.contiguous_format
        self.model.to(memory_format=layout)  # type: ignore[call-overload]
        if recipe.compile:
            self.model.compile()
        generator, optimizer = self._set_up(self.model, recipe.lr, recipe)
        networks = Networks(generator, optimizer)
        if recipe.needs_discriminator:
            discriminator = PatchDiscriminator(width=recipe.discriminator_width)
            networks.discriminator, networks.discriminator_optimizer = self._set_up(
                discriminator, recipe.lr_discriminator, recipe
            )
        if recipe.needs_features:
            losses = recipe.losses
            layers = [
                *(losses.perceptual_layers if losses.perceptual else ()),
                *(losses.style_layers if losses.style else ()),
            ]
            features = load_vgg19(losses.vgg, layers=layers)
            networks.features = features.to(self.fabric.device)
        return networks

    def _set_up(self, module: nn.Module, lr: float, recipe: Recipe) -> tuple[Any, Any]:
        optimizer = torch.optim.Adam(module.parameters(), lr=lr, betas=recipe.betas)
        placed, wrapped = self.fabric.setup(module, optimizer)
        return placed, wrapped
