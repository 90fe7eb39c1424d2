"""The weights of the network that finds scratches: saved, loaded, shipped."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from regionnorm.checkpoints.finder import Finder, load_finder, packaged_finder, save_finder
from regionnorm.checkpoints.weights import packaged_weights
from regionnorm.models.scratch_net import ScratchNet


def test_what_is_saved_is_loaded_in_half_precision(tmp_path: Path) -> None:
    network = ScratchNet(norm="in", widths=(4, 4, 8, 8))
    path = tmp_path / "finder.safetensors"
    save_finder(Finder(network, 0.3), path, {"step": "7"})
    loaded = load_finder(path)
    assert loaded.threshold == 0.3
    assert loaded.network.options == network.options
    for key, value in network.state_dict().items():
        assert torch.equal(loaded.network.state_dict()[key], value.half().float())


def test_networks_with_residual_units_and_files_that_know_of_none_are_loaded(
    tmp_path: Path,
) -> None:
    network = ScratchNet(norm="bn", widths=(4, 4, 8, 8), refine=(1, 2, 0, 1))
    save_finder(Finder(network, 0.3), tmp_path / "new.safetensors")
    assert load_finder(tmp_path / "new.safetensors").network.options == network.options
    plain = ScratchNet(norm="bn", widths=(4, 4, 8, 8))
    assert set(plain.options) == {"norm", "stats", "widths"}
    save_finder(Finder(plain, 0.3), tmp_path / "old.safetensors")
    assert load_finder(tmp_path / "old.safetensors").network.options == plain.options


def test_a_header_that_claims_more_than_the_file_holds_gets_no_memory(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    made = []
    real = torch.nn.Conv2d.reset_parameters
    monkeypatch.setattr(
        torch.nn.Conv2d,
        "reset_parameters",
        lambda layer: made.append(layer.weight.device.type) or real(layer),
    )
    header = {
        "format": "regionnorm-finder/1",
        "options": {"widths": [3000] * 4, "norm": "none"},
        "threshold": 0.5,
    }
    path = tmp_path / "large.safetensors"
    save_file({"a": torch.zeros(1)}, path, metadata={"regionnorm": json.dumps(header)})
    with pytest.raises(ValueError, match=r"holds no network that finds scratches: .* network has"):
        load_finder(path)
    assert set(made) == {"meta"}


def test_running_averages_beyond_half_precision_survive(tmp_path: Path) -> None:
    network = ScratchNet(norm="bn", widths=(4, 4, 8, 8))
    wide = {k: v + 1e5 for k, v in network.state_dict().items() if k.endswith("running_var")}
    network.load_state_dict(wide, strict=False)
    save_finder(Finder(network, 0.3), tmp_path / "finder.safetensors")
    loaded = load_finder(tmp_path / "finder.safetensors").network.state_dict()
    assert wide and all(torch.equal(loaded[key], value) for key, value in wide.items())
    torch.nn.init.constant_(network.output.weight, 1e6)
    with pytest.raises(ValueError, match="too large for half precision"):
        save_finder(Finder(network, 0.3), tmp_path / "finder.safetensors")


def test_weights_of_something_else_are_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="format is 'regionnorm/1', not 'regionnorm-finder/1'"):
        load_finder(packaged_weights()["default"])
    path = tmp_path / "noise.safetensors"
    path.write_bytes(b"noise" * 9)
    with pytest.raises(ValueError, match="holds no network that finds scratches"):
        load_finder(path)
    with pytest.raises(FileNotFoundError, match="does not exist"):
        load_finder(tmp_path / "none.safetensors")


def test_a_network_that_is_not_finite_is_not_saved(tmp_path: Path) -> None:
    network = ScratchNet(widths=(4, 4, 8, 8))
    torch.nn.init.constant_(network.output.weight, float("nan"))
    with pytest.raises(ValueError, match="NaN or infinity"):
        save_finder(Finder(network, 0.5), tmp_path / "bad.safetensors")
    assert not list(tmp_path.iterdir())


def test_the_shipped_weights_are_small_and_no_filler() -> None:
    assert packaged_finder().stat().st_size < 2_000_000
    assert "scratches" not in packaged_weights()
    assert 0 < load_finder().threshold < 1
