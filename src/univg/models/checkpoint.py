"""Where a checkpoint is and whether its files are whole: everything about it that needs no torch.

A name is one of `EMBEDDED`, a folder, or a hub name. Weights are accepted as safetensors only: pickled
weights can run code when they are read. Every refusal is a `CheckpointError`, one line with what, which and
what to do.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NoReturn

from univg.errors import UnivgError, one_line
from univg.files import ASSETS

EMBEDDED: Mapping[str, str] = {
    "embedded": "tiny-r1",
    "embedded-think": "tiny-think",
    "embedded-base": "tiny-base",
}
"""Names of the checkpoints in the package, and their folders under `assets`."""

CONFIG_FILE = "config.json"
ADAPTER_CONFIG_FILE, ADAPTER_WEIGHTS_FILE = "adapter_config.json", "adapter_model.safetensors"
WEIGHTS_FILE, WEIGHTS_INDEX_FILE = "model.safetensors", "model.safetensors.index.json"

COPY_AGAIN = "copy or download the checkpoint again"

_PICKLES = ("*.bin", "*.pt", "*.pth", "*.ckpt", "*.pkl")
_SETTINGS_PATTERNS = ("*.json", "*.txt", "*.jinja")


class CheckpointError(UnivgError):
    """A checkpoint that cannot be used.

    >>> print(CheckpointError("models/a", "no config.json in the folder", "give a checkpoint's folder"))
    no config.json in the folder: models/a: give a checkpoint's folder
    """

    def __init__(self, name: str | Path, cause: str, remedy: str) -> None:
        super().__init__(one_line(cause), one_line(name), one_line(remedy))
        self.name = str(name)

    def __reduce__(self) -> tuple[object, ...]:
        return type(self), (self.name, self.cause, self.remedy)  # crosses process borders


@dataclass(frozen=True)
class Source:
    """A checkpoint's folder on this machine.

    One from the hub has its `repository` and `revision` (a commit), and at first only its settings, so that a
    model that cannot be used is refused before gigabytes are fetched.
    """

    folder: Path
    repository: str | None = None
    revision: str | None = None

    def fetch(self, pattern: str) -> Path:
        """The folder, with the files of this pattern in it."""
        if self.repository is None:
            return self.folder
        return _download(f"{self.repository}@{self.revision}", (*_SETTINGS_PATTERNS, pattern)).folder


def locate(name: str | Path) -> Source:
    """Find a checkpoint: one of `EMBEDDED`, a folder, or `org/name` or `org/name@revision` on the hub.

    Offline, the hub's local cache is used. A folder wins over a hub name. Errors: CheckpointError.
    """
    if str(name) in EMBEDDED:
        folder = ASSETS / EMBEDDED[str(name)]
        if not folder.is_dir():
            raise CheckpointError(
                name, "the embedded checkpoint is not in this installation", "reinstall univg"
            )
        return Source(folder)
    path = Path(name).expanduser()
    if path.is_dir():
        return Source(path)
    if path.exists():
        raise CheckpointError(
            name, "this is a file, not a checkpoint", "give the folder that holds config.json"
        )
    if not isinstance(name, str) or not _could_be_hub_name(name):
        remedy = f"check the path, or give a hub name such as GD-ML/UniVG-R1, or {' or '.join(EMBEDDED)}"
        raise CheckpointError(name, "no such folder", remedy)
    return _download(name, _SETTINGS_PATTERNS)


def _could_be_hub_name(name: str) -> bool:
    owner, _, repository = name.partition("@")[0].partition("/")
    return bool(owner.strip(".~") and repository) and not set("/\\") & set(repository)


def _download(name: str, patterns: Sequence[str]) -> Source:
    """Fetch files of a hub repository into the local cache; offline, whatever the cache holds of it."""
    from huggingface_hub import errors, snapshot_download

    repository, _, revision = name.partition("@")
    try:
        folder = snapshot_download(repository, revision=revision or None, allow_patterns=list(patterns))
    except errors.GatedRepoError as error:
        raise CheckpointError(
            name, "this hub model is gated", "accept its terms on the hub and log in"
        ) from error
    except (errors.RepositoryNotFoundError, errors.RevisionNotFoundError) as error:
        raise CheckpointError(
            name, "no folder of this name, and no such model or revision on the hub", "check the spelling"
        ) from error
    except errors.HFValidationError as error:
        raise CheckpointError(name, "no such folder, and no valid hub name", "check the path") from error
    except (OSError, errors.EntryNotFoundError, errors.XetDownloadError) as error:
        raise CheckpointError(
            name,
            "no folder of this name, and the hub cannot be reached",
            "connect to the internet, or give the folder of a downloaded checkpoint",
        ) from error
    return Source(
        Path(folder), repository, Path(folder).name
    )  # the cache names a snapshot's folder by its commit


def read_json(path: Path) -> dict[str, Any]:
    """The object in a checkpoint's JSON file. Errors: CheckpointError."""
    try:
        value = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:  # undecodable bytes are a ValueError too
        raise CheckpointError(path, f"not readable as JSON ({brief(error)})", COPY_AGAIN) from error
    if not isinstance(value, dict):
        raise CheckpointError(path, "the file holds no JSON object", COPY_AGAIN)
    return value


def model_type(folder: Path) -> str:
    """What `config.json` says the model is. Errors: CheckpointError for a folder that is no checkpoint."""
    remedy = "give the folder that save_pretrained wrote"
    if not (folder / CONFIG_FILE).is_file():
        raise CheckpointError(folder, f"not a checkpoint (no {CONFIG_FILE})", remedy)
    stated = read_json(folder / CONFIG_FILE).get("model_type")
    if not isinstance(stated, str):
        raise CheckpointError(folder / CONFIG_FILE, "not a model's configuration (no model_type)", remedy)
    return stated


def is_adapter(folder: Path) -> bool:
    """Whether the folder holds a LoRA adapter rather than a whole model."""
    return (folder / ADAPTER_CONFIG_FILE).is_file() and not (folder / CONFIG_FILE).is_file()


def adapter_folder(name: str | Path) -> Path:
    """The folder of a LoRA adapter, with its weights checked. Errors: CheckpointError."""
    source = locate(name)
    if not (source.folder / ADAPTER_CONFIG_FILE).is_file():
        raise CheckpointError(
            name, f"not a LoRA adapter (no {ADAPTER_CONFIG_FILE})", "give the adapter's folder"
        )
    folder = source.fetch(ADAPTER_WEIGHTS_FILE)
    if not (folder / ADAPTER_WEIGHTS_FILE).is_file():
        _refuse_weightless(folder, ADAPTER_WEIGHTS_FILE)
    _check_whole(folder / ADAPTER_WEIGHTS_FILE)
    return folder


def base_of(adapter: Path) -> Source:
    """The checkpoint an adapter was trained on, as its configuration names it. Errors: CheckpointError."""
    remedy = "name the base as the model and give the adapter as lora"
    base = read_json(adapter / ADAPTER_CONFIG_FILE).get("base_model_name_or_path")
    if not isinstance(base, str) or not base:
        raise CheckpointError(adapter, "the adapter does not say which model it belongs to", remedy)
    beside = adapter / base  # relative to the adapter, when both moved together
    try:
        return locate(beside if beside.is_dir() else base)
    except CheckpointError as error:
        cause = f"the adapter's base {base!r} is not there ({error.cause})"
        raise CheckpointError(adapter, cause, remedy) from error


def weight_files(source: Source) -> list[Path]:
    """The safetensors files of a checkpoint, each checked to be whole. Errors: CheckpointError."""
    folder = source.fetch("*.safetensors")
    index = folder / WEIGHTS_INDEX_FILE
    if index.is_file():
        shards = read_json(index).get("weight_map")
        if not isinstance(shards, dict) or not shards:
            raise CheckpointError(index, "the index names no weights", COPY_AGAIN)
        files = [folder / str(name) for name in sorted(set(shards.values()))]
    elif (folder / WEIGHTS_FILE).is_file():
        files = [folder / WEIGHTS_FILE]
    else:
        _refuse_weightless(folder, WEIGHTS_FILE)
    for file in files:
        _check_whole(file)
    return files


def _refuse_weightless(folder: Path, expected: str) -> NoReturn:
    pickles = sorted(path.name for pattern in _PICKLES for path in folder.glob(pattern))
    if pickles:
        raise CheckpointError(
            folder,
            f"only pickled weights ({pickles[0]}), which can run code when read",
            "where you trust them, load and save_pretrained them with transformers: that writes safetensors",
        )
    raise CheckpointError(folder, f"the checkpoint has no weights (no {expected})", COPY_AGAIN)


def _check_whole(file: Path) -> None:
    """A safetensors header states every tensor's extent, so reading it alone shows a file cut short."""
    from safetensors import SafetensorError, safe_open

    if not file.is_file():
        raise CheckpointError(file, "a part of the weights is missing", COPY_AGAIN)
    try:
        with safe_open(file, framework="np"):
            pass
    except (SafetensorError, OSError) as error:
        raise CheckpointError(
            file, f"the weights are damaged or cut off ({brief(error)})", COPY_AGAIN
        ) from error


def brief(error: BaseException) -> str:
    """The first line of an error's text, for use within one line of ours."""
    lines = str(error).strip().splitlines()
    return (one_line(lines[0]) if lines else type(error).__name__)[:120]


_CHUNK, _CHUNKS = 1 << 16, 64


def weights_digest(name: str | Path) -> str:
    """A checkpoint folder's content in 16 hexadecimal digits: its settings, and of each weight file the size,
    the header and 64 evenly spaced pieces. Training moves every weight, so pieces tell checkpoints apart
    without reading 15 GB at each start; where the folder lies does not matter."""
    folder = locate(name).folder
    digest = hashlib.sha256()
    for path in sorted(folder.iterdir()):
        if path.suffix == ".safetensors":
            _digest_pieces(digest, path)
        elif path.suffix in (".json", ".jinja", ".txt"):
            digest.update(path.name.encode() + b"\0" + path.read_bytes())
    if is_adapter(folder):
        base = base_of(folder)
        digest.update((base.revision or weights_digest(base.folder)).encode())
    return digest.hexdigest()[:16]


def _digest_pieces(digest: hashlib._Hash, path: Path) -> None:
    size = path.stat().st_size
    digest.update(f"{path.name}\0{size}\0".encode())
    with open(path, "rb") as file:
        for number in range(_CHUNKS + 1):
            file.seek(max(0, size - _CHUNK) * number // _CHUNKS)
            digest.update(file.read(_CHUNK))
