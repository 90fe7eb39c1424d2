"""Networks on the Hugging Face Hub, laid out as its client's model mixins lay out theirs.

A repository holds ``model.safetensors``, whose header says how to build the network, the same as
``config.json`` for whoever reads no headers, and a model card, ``README.md``.
"""

from __future__ import annotations

import json
import os
import tempfile
from pathlib import Path
from typing import Any

from regionnorm._extras import require
from regionnorm.checkpoints.weights import HUB_FILE, download, load_weights, save_weights
from regionnorm.files.whole import atomic_path
from regionnorm.models import InpaintingModel
from regionnorm.models.registry import describe_model

__all__ = ["from_pretrained", "push_to_hub", "save_pretrained"]

CONFIG, CARD = "config.json", "README.md"


def save_pretrained(
    model: InpaintingModel, folder: str | os.PathLike[str], *, half: bool = False
) -> Path:
    """Write a network as a folder that can be a repository of the hub.

    Args:
        model: A network made by :func:`regionnorm.create_model`.
        folder: Made if it is not there. A model card that is there already is kept.
        half: Store weights in half precision.

    Returns:
        The folder.

    Raises:
        ValueError: As for :func:`regionnorm.checkpoints.save_weights`.
        OSError: The place cannot be written to.
    """
    folder = Path(folder)
    save_weights(model, folder / HUB_FILE, half=half)
    config = {"library_name": "regionnorm", "model": model.name, "options": model.options}
    texts = {CONFIG: json.dumps(config, indent=2, sort_keys=True) + "\n", CARD: _card(model)}
    for name, text in texts.items():
        if name == CARD and (folder / name).exists():
            continue
        with atomic_path(folder / name) as temporary:
            temporary.write_text(text, encoding="utf-8")
    return folder


def push_to_hub(
    model: InpaintingModel,
    repo_id: str,
    *,
    commit_message: str = "Push model using regionnorm",
    private: bool | None = None,
    token: str | None = None,
    branch: str | None = None,
    create_pr: bool | None = None,
    half: bool = False,
) -> str:
    """Put a network into a repository of the Hugging Face Hub, which is made if need be.

    Args:
        model: A network made by :func:`regionnorm.create_model`.
        repo_id: ``"owner/name"``, or ``"name"`` for the owner of the token.
        commit_message: Of the commit.
        private: Whether a new repository is for its owner alone; None takes the owner's default.
        token: None takes the one that the hub's client was logged in with.
        branch: Where to commit; None is the main one.
        create_pr: Propose the change instead of making it.
        half: Store weights in half precision.

    Returns:
        The commit's address.

    Raises:
        ValueError: The hub refuses, or the network cannot be saved.
        ImportError: huggingface_hub is missing.
    """
    hub = require("huggingface_hub", extra="hub")
    with tempfile.TemporaryDirectory() as folder:
        save_pretrained(model, folder, half=half)
        try:
            client = hub.HfApi(token=token)
            repo_id = client.create_repo(repo_id, private=private, exist_ok=True).repo_id
            # A card that somebody wrote by hand stays.
            kept = [CARD] if client.file_exists(repo_id, CARD, revision=branch) else None
            commit = client.upload_folder(
                repo_id=repo_id,
                repo_type="model",
                folder_path=folder,
                commit_message=commit_message,
                revision=branch,
                create_pr=create_pr,
                ignore_patterns=kept,
            )
        except Exception as error:  # the client's errors are of many kinds; a user needs one line
            reason = str(error).strip().splitlines()[0] if str(error).strip() else repr(error)
            raise ValueError(f"could not push to {repo_id!r}: {reason}") from error
    return str(commit)


def from_pretrained(
    pretrained_model_name_or_path: str | os.PathLike[str],
    *,
    revision: str | None = None,
    cache_dir: str | os.PathLike[str] | None = None,
    force_download: bool = False,
    local_files_only: bool = False,
    token: str | bool | None = None,
    device: Any = "cpu",
) -> InpaintingModel:
    """Load a network from a repository of the hub, or from a folder laid out like one.

    Args:
        pretrained_model_name_or_path: ``"owner/name"``, or a folder of :func:`save_pretrained`.
        revision: Branch, tag or commit.
        cache_dir: Where the hub's client keeps what it fetched.
        force_download: Fetch even what is there.
        local_files_only: Fetch nothing.
        token: For private repositories.
        device: Where the network goes; None picks the best device.

    Returns:
        The network, in float32, for inference.

    Raises:
        FileNotFoundError: The folder holds no ``model.safetensors``.
        ValueError: It cannot be fetched, or is no network of this package.
        ImportError: huggingface_hub is missing.
    """
    folder = Path(pretrained_model_name_or_path)
    if folder.is_dir():
        return load_weights(folder / HUB_FILE, device=device)
    file = download(
        os.fspath(pretrained_model_name_or_path),
        revision=revision,
        cache_dir=cache_dir,
        force_download=force_download,
        local_files_only=local_files_only,
        token=token,
    )
    return load_weights(file, device=device)


def _card(model: InpaintingModel) -> str:
    count = sum(parameter.numel() for parameter in model.parameters())
    options = ", ".join(f"{key}={value!r}" for key, value in sorted(model.options.items()))
    return f"""---
library_name: regionnorm
license: mit
pipeline_tag: image-to-image
tags:
- inpainting
- region-normalization
---

# {model.name}

Fills holes in photos. {describe_model(model.name)[0].upper()}{describe_model(model.name)[1:]}.

| | |
| --- | --- |
| network | `{model.name}`, {options or "default options"} |
| parameters | {count / 1e6:.1f} M |

```python
import regionnorm as rn

inpainter = rn.Inpainter(rn.from_pretrained("OWNER/NAME"))
filled = inpainter(photo, mask)  # white = hole
```

What it was trained on, and how good it is, is for its author to say here.
"""
