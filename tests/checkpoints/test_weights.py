"""Weights files: what is saved is what is loaded, and strangers' files are refused in one line."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from regionnorm.checkpoints.weights import (
    load_pretrained,
    load_weights,
    packaged_weights,
    read_metadata,
    save_weights,
)
from regionnorm.models import create_model, list_models


@pytest.mark.parametrize("name", list_models())
def test_every_network_survives_the_round_trip(name: str, tmp_path: Path) -> None:
    model = create_model(name, width=4)
    save_weights(model, tmp_path / "model.safetensors")
    again = load_weights(tmp_path / "model.safetensors")
    assert (again.name, again.options) == (model.name, model.options)
    for key, value in model.state_dict().items():
        assert torch.equal(again.state_dict()[key], value)
    assert not again.training


def test_half_precision_halves_the_file_and_loads_as_float32(tmp_path: Path) -> None:
    model = create_model("rn", width=8, blocks=2)
    save_weights(model, tmp_path / "full.safetensors")
    save_weights(model, tmp_path / "half.safetensors", half=True)
    full, half = ((tmp_path / f"{n}.safetensors").stat().st_size for n in ("full", "half"))
    assert half < 0.6 * full
    parameters = list(load_weights(tmp_path / "half.safetensors").parameters())
    assert all(parameter.dtype == torch.float32 for parameter in parameters)


def test_metadata_comes_back(tmp_path: Path) -> None:
    path = tmp_path / "model.safetensors"
    save_weights(create_model("rn", width=4, blocks=0), path, metadata={"step": "7"})
    metadata = read_metadata(path)
    assert metadata["step"] == "7"
    assert metadata["model"] == "rn"


def test_equal_weights_are_equal_files(tmp_path: Path) -> None:
    model = create_model("rn", width=4, blocks=1)
    metadata = {name: name for name in "abcdefgh"}
    files = [tmp_path / f"{number}.safetensors" for number in range(4)]
    for file in files:
        save_weights(model, file, metadata=metadata)
    assert len({file.read_bytes() for file in files}) == 1


def test_nan_weights_are_not_saved(tmp_path: Path) -> None:
    model = create_model("rn", width=4, blocks=0)
    model.output.weight.data[0, 0, 0, 0] = torch.nan
    with pytest.raises(ValueError, match="output.weight holds NaN"):
        save_weights(model, tmp_path / "model.safetensors")
    assert not list(tmp_path.iterdir())


def test_networks_made_elsewhere_are_refused(tmp_path: Path) -> None:
    from regionnorm.models import RNGenerator

    with pytest.raises(ValueError, match="create_model"):
        save_weights(RNGenerator(width=4), tmp_path / "model.safetensors")


def test_files_of_strangers_are_refused_in_one_line(tmp_path: Path) -> None:
    garbage, foreign = tmp_path / "garbage.safetensors", tmp_path / "foreign.safetensors"
    garbage.write_bytes(b"not a safetensors file at all")
    save_file({"x": torch.zeros(1)}, foreign)
    mismatched = tmp_path / "mismatched.safetensors"
    header = '{"format": "regionnorm/1", "model": "rn", "options": {"width": 4}}'
    save_file({"x": torch.zeros(1)}, mismatched, metadata={"regionnorm": header})
    damaged = tmp_path / "damaged.safetensors"
    save_file({"x": torch.zeros(1)}, damaged, metadata={"regionnorm": "{"})
    for path in (garbage, foreign, mismatched, damaged):
        with pytest.raises(ValueError, match=path.name) as caught:
            load_pretrained(path)
        assert "\n" not in str(caught.value)


HEADERS = {
    "options is [1]": {"options": [1]},
    "options is None": {"options": None},
    "model is ['a']": {"model": ["a"], "options": {}},
    "width is 400000": {"options": {"width": 400_000}},
    "width is inf": {"options": {"width": float("inf")}},
    "width is -3": {"options": {"width": -3}},
    "blocks is 1e+09": {"options": {"blocks": 10**9}},
    "describes no network": {"options": {"stats": ["a"]}},
    "not supported": {"options": {"width": "wide"}},
}


@pytest.mark.parametrize("message", HEADERS)
def test_headers_that_claim_nonsense_are_refused_before_anything_is_made(
    message: str, tmp_path: Path
) -> None:
    header = {"format": "regionnorm/1", "model": "rn", **HEADERS[message]}
    path = tmp_path / "odd.safetensors"
    save_file({"x": torch.zeros(1)}, path, metadata={"regionnorm": json.dumps(header)})
    with pytest.raises(ValueError, match=re.escape(message)) as caught:
        load_pretrained(path)
    assert "odd.safetensors" in str(caught.value) and "\n" not in str(caught.value)


def test_a_header_nested_too_deeply_is_refused_in_one_line(tmp_path: Path) -> None:
    path = tmp_path / "deep.safetensors"
    save_file({"x": torch.zeros(1)}, path, metadata={"regionnorm": "[" * 100_000})
    with pytest.raises(ValueError, match="damaged header"):
        load_pretrained(path)


def test_files_of_pytorch_say_what_to_do_with_them(tmp_path: Path) -> None:
    torch.save({"a": torch.zeros(1)}, tmp_path / "theirs.pth")
    with pytest.raises(ValueError, match="regionnorm convert .*theirs.pth"):
        load_pretrained(tmp_path / "theirs.pth")
    torch.save({"a": torch.zeros(1)}, tmp_path / "old.pth", _use_new_zipfile_serialization=False)
    with pytest.raises(ValueError, match="regionnorm convert"):
        load_pretrained(tmp_path / "old.pth")
    torch.save({"a": torch.zeros(1)}, tmp_path / "checkpoint.pt")
    with pytest.raises(ValueError, match="give the run's folder"):
        load_pretrained(tmp_path / "checkpoint.pt")


def test_values_too_large_for_half_precision_are_kept_in_full(tmp_path: Path) -> None:
    model = create_model("rn", width=4, blocks=0)
    model.output.weight.data[0, 0, 0, 0] = 7e4
    save_weights(model, tmp_path / "model.safetensors", half=True)
    again = load_weights(tmp_path / "model.safetensors").state_dict()
    assert again["output.weight"][0, 0, 0, 0] == 7e4
    assert torch.equal(again["output.weight"], model.output.weight)


def test_missing_weights_say_what_would_work() -> None:
    with pytest.raises(ValueError, match="expected a weights file"):
        load_pretrained("no/such/file.safetensors")
    with pytest.raises(FileNotFoundError, match="does not exist"):
        load_weights("nowhere.safetensors")


def test_a_runs_folder_gives_its_best_weights(tmp_path: Path) -> None:
    for name, width in (("weights", 4), ("best", 8)):
        save_weights(create_model("rn", width=width, blocks=0), tmp_path / f"{name}.safetensors")
    model = load_pretrained(tmp_path)
    assert model.options["width"] == 8


@pytest.mark.parametrize(("name", "most"), [("default", 25e6), ("fast", 2e6)])
def test_weights_come_with_the_package_and_fill_a_hole(name: str, most: float) -> None:
    assert packaged_weights()[name].stat().st_size < most
    model = load_pretrained(name)
    image = torch.linspace(0, 1, 64).expand(1, 3, 64, 64)
    mask = torch.zeros(1, 1, 64, 64)
    mask[..., 24:40, 24:40] = 1
    output = model(image, mask)
    assert ((output - image) * mask).abs().mean() / mask.mean() < 0.05


def test_a_compiled_network_is_saved_as_the_network(tmp_path: Path) -> None:
    network = create_model("rn", width=8)
    save_weights(torch.compile(network, backend="eager"), tmp_path / "compiled.safetensors")
    save_weights(network, tmp_path / "plain.safetensors")
    saved = [(tmp_path / f"{name}.safetensors").read_bytes() for name in ("compiled", "plain")]
    assert saved[0] == saved[1]
