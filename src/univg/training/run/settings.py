"""Put right what the libraries write into the settings of a checkpoint, so that others load it as it was meant."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from univg.files import write_whole
from univg.models import checkpoint

__all__ = ["mend_settings", "name_base"]


def mend_settings(folder: Path, start: str, dtype: str | None = None) -> None:
    """Mend the settings that stand beside weights, or an adapter, which were trained from the model `start`.

    Training switches `use_cache` off, and whoever loads a checkpoint with that would generate slowly. PEFT names an
    adapter's base by the folder that it was read from on this machine, and drafts a card that names it too. `dtype`
    is the weights' own, where they are saved in another one than the model in memory has.
    """
    for name in (checkpoint.CONFIG_FILE, "generation_config.json"):
        path = folder / name
        if path.is_file():
            settings = checkpoint.read_json(path)
            known: dict[str, Any] = {"use_cache": True, "dtype": dtype or settings.get("dtype")}
            _change(path, settings, {key: value for key, value in known.items() if key in settings})
    path = folder / checkpoint.ADAPTER_CONFIG_FILE
    if path.is_file():
        base, revision = name_base(start)
        _change(path, checkpoint.read_json(path), {"base_model_name_or_path": base, "revision": revision})
        (folder / "README.md").unlink(missing_ok=True)


def name_base(start: str) -> tuple[str, str | None]:
    """Return how an adapter names its base, and the revision where one was given: an embedded name, a folder's
    absolute path, or a name on the hub.

    >>> name_base("embedded-think"), name_base("org/name@v2")
    (('embedded-think', None), ('org/name', 'v2'))
    """
    folder = Path(start).expanduser()
    if start in checkpoint.EMBEDDED:
        return start, None
    if folder.is_dir():
        return str(folder.absolute()), None
    repository, _, revision = start.partition("@")
    return repository, revision or None


def _change(path: Path, settings: dict[str, Any], changes: Mapping[str, Any]) -> None:
    if any(settings.get(key) != value for key, value in changes.items()):
        write_whole(path, json.dumps({**settings, **changes}, indent=2) + "\n")
