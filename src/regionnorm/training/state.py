"""All that a training run must remember, and how it is saved and restored."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

import torch
from torch import nn
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn

from regionnorm.checkpoints.weights import load_pretrained
from regionnorm.files.whole import atomic_path
from regionnorm.models import InpaintingModel, create_model
from regionnorm.models.narrowing import narrow
from regionnorm.nn.vgg import load_vgg19
from regionnorm.training.recipe import Recipe
from regionnorm.training.steps import Networks, Trained, make_step

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
        self.best = float("-inf")  # by the recipe's measure, high = better
        self.best_by = recipe.best_by
        self.time: dict[str, float] = {}  # what a run with a time limit has taken of it
        self.train_step = make_step(recipe)
        self.model = create_model(recipe.model, **recipe.options)
        if recipe.init is not None:
            self._start_from(recipe.init)
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
            # Counts are not averaged: rounded down, they would stay at 1.
            for average, current in zip(
                self.averaged.module.buffers(), self.model.buffers(), strict=True
            ):
                if not average.is_floating_point():
                    average.copy_(current)

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
        except Exception as error:  # a damaged file can make the reader raise nearly anything
            raise ValueError(f"{path} is damaged; start again with another --out") from error
        try:
            for name, part in self._parts().items():
                part.load_state_dict(state[name])
            self.fabric.strategy.precision.load_state_dict(state["precision"])
        except (KeyError, RuntimeError, TypeError, ValueError, AttributeError) as error:
            first = str(error).splitlines()[0]
            raise ValueError(f"{path} does not fit this recipe: {first}") from error
        self.step, self.skipped = state["step"], state["skipped"]
        if state.get("best_by", "psnr") == self.best_by:  # older checkpoints know PSNR only
            self.best = state["best"]
        self.time = state.get("time", {})  # older checkpoints have none
        torch.set_rng_state(state["random"])
        if state["random_cuda"] is not None and self.fabric.device.type == "cuda":
            torch.cuda.set_rng_state(state["random_cuda"], self.fabric.device)

    def _start_from(self, weights: str) -> None:
        """Take the weights of a network of the same kind, such as a run's or the shipped ones.

        Of a wider or deeper RN generator the strongest channels are taken, see :func:`narrow`.

        Raises:
            ValueError: They belong to another network.
        """
        start = load_pretrained(weights)
        if not isinstance(start, InpaintingModel):
            raise ValueError(
                f"init {weights!r} is an exported network, which cannot be trained; give the "
                "weights that it was made of"
            )
        if (start.name, start.options) == (self.model.name, self.model.options):
            self.model.load_state_dict(start.state_dict())
            return
        try:
            narrow(self.model, start)
        except ValueError as error:
            raise ValueError(f"init {weights!r} {_difference(start, self.model)}") from error

    def _state(self) -> dict[str, Any]:
        on_cuda = self.fabric.device.type == "cuda"
        return {
            **{name: part.state_dict() for name, part in self._parts().items()},
            "step": self.step,
            "skipped": self.skipped,
            "best": self.best,
            "best_by": self.best_by,
            "time": self.time,
            "random": torch.get_rng_state(),
            "random_cuda": torch.cuda.get_rng_state(self.fabric.device) if on_cuda else None,
            "precision": self.fabric.strategy.precision.state_dict(),
        }

    def _parts(self) -> dict[str, Any]:
        networks = self.networks
        parts: dict[str, Any] = {
            "generator": self.model,
            "optimizer": networks.generator.optimizer,
        }
        for name, trained in networks.discriminators.items():
            parts[name], parts[f"{name}_optimizer"] = trained.network, trained.optimizer
        if self.averaged is not None:
            parts["averaged"] = self.averaged
        return parts

    def _networks(self, recipe: Recipe) -> Networks:
        layout = torch.channels_last if recipe.channels_last else torch.contiguous_format
        self.model.to(memory_format=layout)  # type: ignore[call-overload]
        generator = self.train_step.generator(self.model)
        if recipe.compile:
            generator.compile()
        networks = Networks(self._set_up(generator, recipe.lr, recipe))
        if recipe.needs_discriminator:
            for name, discriminator in self.train_step.discriminators().items():
                networks.discriminators[name] = self._set_up(
                    discriminator, recipe.lr_discriminator, recipe
                )
        if recipe.needs_features:
            features = load_vgg19(recipe.losses.vgg, layers=self.train_step.feature_layers())
            # Channels-last whatever the generator's layout: measured 1.4 times as fast on a CPU.
            features.to(self.fabric.device)
            features.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
            networks.features = features
        return networks

    def _set_up(self, module: nn.Module, lr: float, recipe: Recipe) -> Trained:
        # Frozen parameters too: a run may go on with some of them frozen.
        # One kernel for a parameter: a third of the time on a CPU. Not elsewhere: fused steps undo
        # the scale of half-precision gradients themselves, which Fabric's clipping refuses.
        fused = self.fabric.device.type == "cpu"
        optimizer = torch.optim.Adam(
            module.parameters(), lr=lr, betas=recipe.betas, fused=fused or None
        )
        placed, wrapped = self.fabric.setup(module, optimizer)
        return Trained(placed, wrapped)


def _difference(start: InpaintingModel, wanted: InpaintingModel) -> str:
    """In what a network to start from is another one, and what to set."""
    if start.name != wanted.name:
        return f"is of a {start.name!r} network, not of {wanted.name!r}; set model={start.name}"
    keys = dict.fromkeys((*start.options, *wanted.options))
    sets = [
        f"options.{key}={str(start.options.get(key, 'none')).lower()}"
        for key in keys
        if start.options.get(key) != wanted.options.get(key)
    ]
    return (
        f"has other options than this recipe; set {' '.join(sets)}, or a smaller width or fewer "
        "blocks alone"
    )
