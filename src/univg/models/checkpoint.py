"""Find a checkpoint and check that its files are whole: everything about it that needs no torch.

A name is one of `EMBEDDED`, a folder, or a hub name. Weights are accepted as safetensors only: pickled
weights can run code when they are read. Every refusal is a `UnivgError`: one line with the cause, the place and
the remedy.
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
    "embedded": "tiny-think",  # until GRPO adds something to it: see docs/experiments.md, section 18
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


@dataclass(frozen=True)
class Source:
    """A checkpoint's folder on this machine.

    A checkpoint from the hub has its `repository` and `revision` (a commit), and at first only its settings, so that a
    model that cannot be used is refused before gigabytes are fetched.
    """

    folder: Path
    repository: str | None = None
    revision: str | None = None

    def fetch(self, pattern: str) -> Path:
        """Return the folder, with the files of this pattern in it."""
        if self.repository is None:
            return self.folder
        return _download(f"{self.repository}@{self.revision}", (*_SETTINGS_PATTERNS, pattern)).folder


def locate(name: str | Path) -> Source:
    """Find a checkpoint: one of `EMBEDDED`, a folder, or `org/name` or `org/name@revision` on the hub.

    Offline, the hub's local cache is used. A folder wins over a hub name. Errors: UnivgError.
    """
    if str(name) in EMBEDDED:
        folder = ASSETS / EMBEDDED[str(name)]
        if not folder.is_dir():
            raise UnivgError("the embedded checkpoint is not in this installation", name, "reinstall univg")
        return Source(folder)
    path = Path(name).expanduser()
    if path.is_dir():
        return Source(path)
    if path.exists():
        raise UnivgError("this is a file, not a checkpoint", name, "give the folder that holds config.json")
    if not isinstance(name, str) or not _could_be_hub_name(name):
        remedy = f"check the path, or give a hub name such as GD-ML/UniVG-R1, or {' or '.join(EMBEDDED)}"
        raise UnivgError("no such folder", name, remedy)
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
        raise UnivgError("this hub model is gated", name, "accept its terms on the hub and log in") from error
    except (errors.RepositoryNotFoundError, errors.RevisionNotFoundError) as error:
        raise UnivgError(
            "no folder of this name, and no such model or revision on the hub", name, "check the spelling"
        ) from error
    except errors.HFValidationError as error:
        raise UnivgError("no such folder, and no valid hub name", name, "check the path") from error
    except (OSError, errors.EntryNotFoundError, errors.XetDownloadError) as error:
        raise UnivgError(
            "no folder of this name, and the hub cannot be reached",
            name,
            "connect to the internet, or give the folder of a downloaded checkpoint",
        ) from error
    return Source(
        Path(folder), repository, Path(folder).name
    )  # the cache names a snapshot's folder by its commit


def read_json(path: Path) -> dict[str, Any]:
    """Read the object in a checkpoint's JSON file. Errors: UnivgError."""
    try:
        value = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:  # undecodable bytes are a ValueError too
        raise UnivgError(f"not readable as JSON ({brief(error)})", path, COPY_AGAIN) from error
    if not isinstance(value, dict):
        raise UnivgError("the file holds no JSON object", path, COPY_AGAIN)
    return value


def model_type(folder: Path) -> str:
    """Return what `config.json` says the model is. Errors: UnivgError for a folder that is no checkpoint."""
    remedy = "give the folder that save_pretrained wrote"
    if not (folder / CONFIG_FILE).is_file():
        raise UnivgError(f"not a checkpoint (no {CONFIG_FILE})", folder, remedy)
    stated = read_json(folder / CONFIG_FILE).get("model_type")
    if not isinstance(stated, str):
        raise UnivgError("not a model's configuration (no model_type)", folder / CONFIG_FILE, remedy)
    return stated


def is_adapter(folder: Path) -> bool:
    """Tell whether the folder holds a LoRA adapter rather than a whole model."""
    return (folder / ADAPTER_CONFIG_FILE).is_file() and not (folder / CONFIG_FILE).is_file()


def adapter_folder(name: str | Path) -> Path:
    """Find the folder of a LoRA adapter and check its weights. Errors: UnivgError."""
    source = locate(name)
    if not (source.folder / ADAPTER_CONFIG_FILE).is_file():
        raise UnivgError(f"not a LoRA adapter (no {ADAPTER_CONFIG_FILE})", name, "give the adapter's folder")
    folder = source.fetch(ADAPTER_WEIGHTS_FILE)
    if not (folder / ADAPTER_WEIGHTS_FILE).is_file():
        _refuse_weightless(folder, ADAPTER_WEIGHTS_FILE)
    _check_whole(folder / ADAPTER_WEIGHTS_FILE)
    return folder


def base_of(adapter: Path) -> Source:
    """Find the checkpoint that an adapter was trained on, as its configuration names it. Errors: UnivgError."""
    remedy = "name the base as the model and give the adapter as lora"
    settings = read_json(adapter / ADAPTER_CONFIG_FILE)
    base, revision = settings.get("base_model_name_or_path"), settings.get("revision")
    if not isinstance(base, str) or not base:
        raise UnivgError("the adapter does not say which model it belongs to", adapter, remedy)
    beside = adapter / base  # relative to the adapter, when both moved together
    named = f"{base}@{revision}" if revision and not Path(base).is_dir() else base
    try:
        return locate(beside if beside.is_dir() else named)
    except UnivgError as error:
        cause = f"the adapter's base {base!r} is not there ({error.cause})"
        raise UnivgError(cause, adapter, remedy) from error


def weight_files(source: Source) -> list[Path]:
    """List the safetensors files of a checkpoint, each checked to be whole. Errors: UnivgError."""
    folder = source.fetch("*.safetensors")
    index = folder / WEIGHTS_INDEX_FILE
    if index.is_file():
        shards = read_json(index).get("weight_map")
        if not isinstance(shards, dict) or not shards:
            raise UnivgError("the index names no weights", index, COPY_AGAIN)
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
        raise UnivgError(
            f"only pickled weights ({pickles[0]}), which can run code when read",
            folder,
            "where you trust them, load and save_pretrained them with transformers: that writes safetensors",
        )
    raise UnivgError(f"the checkpoint has no weights (no {expected})", folder, COPY_AGAIN)


def _check_whole(file: Path) -> None:
    """Check that a weight file is whole: its header, which states every tensor's extent, shows a cut."""
    from safetensors import SafetensorError, safe_open

    if not file.is_file():
        raise UnivgError("a part of the weights is missing", file, COPY_AGAIN)
    try:
        with safe_open(file, framework="np"):
            pass
    except (SafetensorError, OSError) as error:
        raise UnivgError(f"the weights are damaged or cut off ({brief(error)})", file, COPY_AGAIN) from error


def brief(error: BaseException) -> str:
    """Return the first line of an error's text, for use within one line of ours."""
    lines = str(error).strip().splitlines()
    return (one_line(lines[0]) if lines else type(error).__name__)[:120]


_CHUNK, _CHUNKS = 1 << 16, 64


def weights_digest(name: str | Path) -> str:
    """Return a checkpoint folder's content as 16 hexadecimal digits: its settings, and of each weight file the size,
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
