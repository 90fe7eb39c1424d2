"""Networks go to the hub and come back, with a stand-in for the hub's client."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch

import regionnorm as rn
from regionnorm.checkpoints.hub import save_pretrained

hub = pytest.importorskip("huggingface_hub", reason="pip install 'regionnorm[hub]'")


@pytest.fixture
def server(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder that stands for the hub: what is pushed is there, what is there is fetched."""
    root = tmp_path / "hub"

    class Api:
        def __init__(self, token: str | None = None) -> None:
            self.token = token

        def create_repo(self, repo_id: str, *, private: bool | None, exist_ok: bool) -> Any:
            assert exist_ok
            if self.token == "wrong":
                raise RuntimeError("401: the token is not valid\nmore about it")
            full = repo_id if "/" in repo_id else f"me/{repo_id}"
            (root / full).mkdir(parents=True, exist_ok=True)
            return SimpleNamespace(repo_id=full)

        def file_exists(self, repo_id: str, name: str, *, revision: str | None) -> bool:
            return (root / repo_id / name).is_file()

        def upload_folder(self, *, repo_id: str, folder_path: str, **options: Any) -> str:
            for file in Path(folder_path).iterdir():
                if file.name not in (options["ignore_patterns"] or ()):
                    shutil.copy(file, root / repo_id)
            return f"https://hub/{repo_id}/commit/1: {options['commit_message']}"

    def fetch(repo_id: str, filename: str, **options: Any) -> str:
        path = root / repo_id / filename
        if not path.is_file() or options.get("revision") == "none":
            raise RuntimeError(f"404: {repo_id} has no {filename}\nmore about it")
        return str(path)

    monkeypatch.setattr(hub, "HfApi", Api)
    monkeypatch.setattr(hub, "hf_hub_download", fetch)
    return root


def test_a_network_comes_back_as_it_was_pushed(server: Path) -> None:
    model = rn.create_model("rn", width=4, blocks=1)
    url = rn.push_to_hub(model, "mine", commit_message="first")
    assert url == "https://hub/me/mine/commit/1: first"
    again = rn.from_pretrained("me/mine")
    assert (again.name, again.options) == (model.name, model.options)
    for key, value in model.state_dict().items():
        assert torch.equal(again.state_dict()[key], value)
    assert rn.load_pretrained("me/mine").name == "rn"


def test_a_model_card_and_a_configuration_go_along_and_a_card_by_hand_stays(server: Path) -> None:
    model = rn.create_model("rn", width=4, blocks=1)
    rn.push_to_hub(model, "me/mine")
    card, config = server / "me/mine/README.md", server / "me/mine/config.json"
    assert card.read_text().startswith("---\nlibrary_name: regionnorm\nlicense: mit\n")
    assert json.loads(config.read_text())["options"] == {"blocks": 1, "width": 4}
    card.write_text("written by hand")
    rn.push_to_hub(model, "me/mine", half=True)
    assert card.read_text() == "written by hand"


def test_a_folder_takes_the_place_of_a_repository(tmp_path: Path) -> None:
    model = rn.create_model("baseline-in", width=4, blocks=0)
    folder = save_pretrained(model, tmp_path / "model")
    for load in (rn.from_pretrained, rn.load_pretrained):
        assert load(folder).name == "baseline-in"


def test_refusals_are_one_line(server: Path) -> None:
    model = rn.create_model("rn", width=4, blocks=0)
    with pytest.raises(ValueError, match="could not push to 'me/mine': 401") as caught:
        rn.push_to_hub(model, "me/mine", token="wrong")
    assert "\n" not in str(caught.value)
    with pytest.raises(ValueError, match="could not fetch model.safetensors of 'me/none'"):
        rn.from_pretrained("me/none")
    rn.push_to_hub(model, "me/mine")
    with pytest.raises(ValueError, match="could not fetch"):
        rn.from_pretrained("me/mine", revision="none")
