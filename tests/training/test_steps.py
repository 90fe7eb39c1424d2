"""Training steps of all families: they learn, and all that they train is saved and resumed."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from regionnorm.checkpoints.weights import load_pretrained
from regionnorm.losses import gradient_penalty
from regionnorm.models import WassersteinCritic
from regionnorm.recipes import get_recipe, list_recipes
from regionnorm.training import Recipe, train
from regionnorm.training.steps import make_step
from regionnorm.training.steps.contextual_attention import densest_windows

Folder = Callable[..., Path]
LogReader = Callable[[Path], dict[str, list[float]]]

# Recipes by the name of their network, with options that make the network small.
FAMILIES = {
    "contextual-attention": {"options.width": "8"},
    "rn-contextual-attention": {"options.width": "8"},
    "gated-conv": {"options.width": "16", "size": "40"},
    "rn-gated-conv": {"options.width": "16", "size": "40"},
    "partial-conv": {"options.width": "8", "options.levels": "3"},
    "rn-partial-conv": {"options.width": "8", "options.levels": "3"},
    "edgeconnect": {"options.width": "8", "options.blocks": "1"},
}
SETTINGS: dict[str, dict[str, str]] = {
    **FAMILIES,
    "default-sharp": {
        "init": "none",
        "max_scale": "1",
        "options.width": "8",
        "options.blocks": "1",
        "losses.feature_distance": "0",
        "best_by": "psnr",
        "precision": "32-true",
    },
}
DISCRIMINATORS = {
    "default-sharp": {"discriminator"},
    "contextual-attention": {"global_critic", "local_critic"},
    "gated-conv": {"discriminator"},
    "partial-conv": set(),
    "edgeconnect": {"discriminator", "edge_discriminator"},
}


def tiny(name: str, **changes: object) -> Recipe:
    """A family's recipe for the CPU, without VGG, always with the same crops and hole."""
    settings = {
        "size": 32,
        "batch": 2,
        "workers": 0,
        "lr": 2e-3,
        "lr_discriminator": 2e-3,
        "discriminator_width": 4,
        "losses.perceptual": 0,
        "losses.style": 0,
        "masks": "center",
        "flip": "false",
        "min_scale": 1,
        "log_every": 1,
        "sample_every": 1000,
        "accelerator": "cpu",
        "devices": 1,
        **SETTINGS[name],
        **changes,
    }
    return get_recipe(name, {key: str(value) for key, value in settings.items()})


def checkpoint(run: Path) -> dict[str, dict[str, torch.Tensor]]:
    state: dict[str, dict[str, torch.Tensor]] = torch.load(run / "checkpoint.pt", weights_only=True)
    return state


@pytest.mark.parametrize("name", FAMILIES)
def test_some_steps_lower_the_loss(
    name: str, photo_folder: Folder, read_log: LogReader, tmp_path: Path
) -> None:
    two_stages = "attention" in name or "gated" in name
    steps = 30 if two_stages else 50  # those of two stages learn fast enough, and cost more
    # One critic update a step: five would take most of the test's time.
    recipe = tiny(name, steps=steps, discriminator_steps=1)
    train(recipe, data=[photo_folder(2)], out=tmp_path)
    values = read_log(tmp_path)
    stages = [values[part] for part in ("l1", "l1_coarse") if part in values]
    total = [sum(step) for step in zip(*stages, strict=True)]
    assert len(total) == steps
    assert len(stages) == (2 if two_stages else 1)
    fifth = steps // 5
    assert sum(total[-fifth:]) < 0.7 * sum(total[:fifth])
    assert load_pretrained(tmp_path).name == name


@pytest.mark.parametrize("name", DISCRIMINATORS)
def test_a_stopped_run_resumes_bit_for_bit(name: str, photo_folder: Folder, tmp_path: Path) -> None:
    photos = photo_folder(3)
    whole, parts = tmp_path / "whole", tmp_path / "parts"
    train(tiny(name, steps=4, masks="generated"), data=[photos], out=whole)
    train(tiny(name, steps=2, masks="generated"), data=[photos], out=parts)
    train(tiny(name, steps=4, masks="generated"), data=[photos], out=parts, resume=True)
    first, second = checkpoint(whole), checkpoint(parts)
    trained = {"generator", *DISCRIMINATORS[name]}
    assert trained | {f"{each}_optimizer" for each in DISCRIMINATORS[name]} <= first.keys()
    for network in trained:
        for key, value in first[network].items():
            assert torch.equal(value, second[network][key]), (network, key)


@pytest.mark.parametrize("name", DISCRIMINATORS)
def test_every_network_of_a_run_is_trained(name: str, photo_folder: Folder, tmp_path: Path) -> None:
    photos = photo_folder(2)
    for steps in (1, 2):
        train(tiny(name, steps=steps), data=[photos], out=tmp_path / str(steps))
    first, second = checkpoint(tmp_path / "1"), checkpoint(tmp_path / "2")
    for network in {"generator", *DISCRIMINATORS[name]}:
        weights = [key for key in first[network] if key.endswith(("weight", "original"))]
        assert any(not torch.equal(first[network][k], second[network][k]) for k in weights)


@pytest.mark.parametrize("name", DISCRIMINATORS)
def test_mixed_precision_trains(
    name: str, photo_folder: Folder, read_log: LogReader, tmp_path: Path
) -> None:
    train(tiny(name, steps=2, precision="bf16-mixed"), data=[photo_folder(2)], out=tmp_path)
    assert all(torch.isfinite(torch.tensor(value)).all() for value in read_log(tmp_path).values())


SCRIPT = """
import sys
sys.path.insert(0, {folder!r})
from test_steps import tiny
from regionnorm.training import train
recipe = tiny("contextual-attention", steps=2, devices=2, strategy="ddp")
train(recipe, data=[{photos!r}], out={run!r})
"""


def test_two_processes_train_with_a_gradient_penalty(photo_folder: Folder, tmp_path: Path) -> None:
    run = tmp_path / "run"
    folder = str(Path(__file__).parent)
    script = tmp_path / "two.py"
    script.write_text(SCRIPT.format(folder=folder, photos=str(photo_folder(4)), run=str(run)))
    done = subprocess.run([sys.executable, script], capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
    assert torch.load(run / "checkpoint.pt", weights_only=True)["step"] == 2


def test_partial_convolution_uses_vgg_on_picture_and_composite(
    photo_folder: Folder,
    read_log: LogReader,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    from regionnorm.nn.vgg import VGGFeatures
    from regionnorm.training import state

    monkeypatch.setattr(state, "load_vgg19", lambda path, *, layers: VGGFeatures(layers))
    layers = "relu1_2,relu2_1"
    vgg = {f"losses.{loss}_layers": layers for loss in ("perceptual", "style")}
    weights = {"losses.perceptual": 0.05, "losses.style": 120}
    recipe = tiny("partial-conv", steps=1, **weights, **vgg)
    train(recipe, data=[photo_folder(2)], out=tmp_path)
    parts = {"perceptual", "perceptual_composite", "style", "style_composite", "total_variation"}
    assert parts <= read_log(tmp_path).keys()


@pytest.mark.parametrize(
    ("family", "loss"),
    [
        ("partial-conv", "feature_distance"),
        ("partial-conv", "adversarial"),
        ("gated-conv", "total_variation"),
        ("contextual-attention", "feature_matching"),
        ("edgeconnect", "total_variation"),
    ],
)
def test_a_loss_that_would_not_count_is_refused(family: str, loss: str) -> None:
    with pytest.raises(ValueError, match=f"losses.{loss} is no loss of training_step '{family}'"):
        make_step(tiny(family, **{f"losses.{loss}": "1"}))


@pytest.mark.parametrize("name", sorted(set(list_recipes()) - {"scratches"}))
def test_the_recipes_ask_for_nothing_that_would_not_count(name: str) -> None:
    make_step(get_recipe(name))


def test_critics_of_another_kind_are_refused() -> None:
    with pytest.raises(ValueError, match="losses.gan is 'hinge'; the critics"):
        make_step(tiny("contextual-attention", **{"losses.gan": "hinge"}))


def test_partial_convolution_goes_on_with_frozen_norms(
    photo_folder: Folder, tmp_path: Path
) -> None:
    photos = photo_folder(2)
    train(tiny("partial-conv", steps=2), data=[photos], out=tmp_path)
    before = checkpoint(tmp_path)["generator"]
    frozen = tiny("partial-conv", steps=4, **{"options.frozen_encoder_norm": "true"})
    train(frozen, data=[photos], out=tmp_path, resume=True)
    after = checkpoint(tmp_path)["generator"]
    changed = {key for key in before if not torch.equal(before[key], after[key])}
    assert any(key.startswith("encoder.") for key in changed)
    assert any(key.startswith("decoder_norms.") for key in changed)
    assert not any(key.startswith("encoder_norms.") for key in changed)


def test_a_critic_learns_a_slope_of_one() -> None:
    critic = WassersteinCritic(8, [8])
    optimizer = torch.optim.Adam(critic.parameters(), lr=1e-2)
    image, mask = torch.rand(8, 3, 8, 8), torch.ones(8, 1, 8, 8)
    for _ in range(100):
        loss = gradient_penalty(critic(image, mask))
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    assert torch.allclose(critic(image, mask), torch.ones(8), atol=0.1)


def test_an_adversary_that_must_exist_is_asked_for() -> None:
    with pytest.raises(ValueError, match="losses.adversarial is 0; .* 'single-stage'"):
        make_step(tiny("default-sharp", **{"losses.adversarial": "0"}))


def test_only_the_hole_is_judged() -> None:
    step = make_step(tiny("default-sharp"))
    adversary, random = step.discriminators()["discriminator"], torch.Generator()
    image, mask = torch.rand(2, 3, 64, 64), torch.zeros(2, 1, 64, 64)
    mask[..., :12, :12] = 1
    # Far from the hole, beyond the reach of a judgement near it.
    elsewhere = image.clone()
    elsewhere[..., 60:, 60:] = 0

    def loss(painted: torch.Tensor) -> torch.Tensor:
        real, fake = step.judged("discriminator", {"output": painted}, image, mask)
        return step.discriminator_loss("discriminator", adversary, real, fake, random)

    assert torch.equal(loss(image), loss(elsewhere))
    inside = image.clone()
    inside[..., :4, :4] = 0
    assert not torch.equal(loss(image), loss(inside))


def test_matching_alone_leads_to_the_photo() -> None:
    step = make_step(tiny("default-sharp", **{"losses.feature_matching": "1"}))
    adversary = step.discriminators()["discriminator"]
    image, mask = torch.rand(1, 3, 32, 32), torch.ones(1, 1, 32, 32)
    for painted, same in ((image, True), (image.flip(-1), False)):
        shown = step.judged("discriminator", {"output": painted}, image, mask)
        parts = step.adversarial_losses("discriminator", adversary, *shown)
        assert (parts["feature_matching"] == 0) == same


def test_the_local_window_holds_most_of_the_hole() -> None:
    mask = torch.zeros(3, 1, 16, 16)
    mask[0, :, 8:16, 2:10] = 1
    mask[1, :, 0, 0] = 1
    mask[1, :, 9:15, 9:15] = 1
    (top, left), (other_top, other_left), empty = densest_windows(mask, 8)
    assert (top, left) == (8, 2)
    assert mask[1, :, other_top : other_top + 8, other_left : other_left + 8].sum() == 36
    assert empty == (0, 0)


def test_an_unknown_training_step_lists_the_known_ones() -> None:
    with pytest.raises(ValueError, match="single-stage.*partial-conv"):
        make_step(tiny("gated-conv", training_step="nonsense"))


def test_pictures_too_small_for_six_halvings_are_refused() -> None:
    with pytest.raises(ValueError, match="size is 32; .* needs 33 or more"):
        make_step(tiny("gated-conv", size=32)).discriminators()
