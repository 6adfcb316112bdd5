"""Let torchvision and torchaudio load where their compiled parts were built for another torch.

Where PyTorch comes as a build for processors and these only as builds for GPUs, their libraries cannot load, and
importing them fails. No neighbour needs a library of theirs for pictures. What works is left alone.
"""

from __future__ import annotations

import importlib.util
import re
from pathlib import Path


def loads(name: str) -> bool:
    """Whether a package can be imported, or is not there at all."""
    try:
        __import__(name)
    except ModuleNotFoundError:
        return True
    except (OSError, RuntimeError):
        return False
    return True


def folder_of(name: str) -> Path:
    spec = importlib.util.find_spec("torch")
    assert spec is not None and spec.origin is not None
    return Path(spec.origin).parents[1] / name


def fit() -> None:
    if not loads("torchvision"):  # two of its modules speak of operators; without them it does as it would
        path = folder_of("torchvision") / "__init__.py"
        source = path.read_text(encoding="utf-8")
        text = re.sub(r"^ *_(?:autograd|meta)_registrations,\n", "", source, flags=re.MULTILINE)
        path.write_text(text, encoding="utf-8")
    if not loads("torchaudio"):  # it does without a library that is not there
        for path in (folder_of("torchaudio") / "lib").glob("*.so"):
            path.unlink()


if __name__ == "__main__":
    fit()
