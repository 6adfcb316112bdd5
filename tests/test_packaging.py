"""What a wheel holds of the assets, and what a clone ignores: by patterns that nothing else fits."""

from __future__ import annotations

import re
import tomllib
from fnmatch import fnmatch
from pathlib import Path

REPO = Path(__file__).parents[1]


def test_a_wheel_holds_the_assets_and_nothing_that_runs_leave_there() -> None:
    wheel = tomllib.loads((REPO / "pyproject.toml").read_text("utf-8"))["tool"]["hatch"]["build"]["targets"][
        "wheel"
    ]
    assert wheel["exclude"] == ["src/univg/assets/**"]
    packed = {path for pattern in wheel["artifacts"] for path in REPO.glob(pattern)}
    there = {path for path in (REPO / "src/univg/assets").rglob("*") if path.is_file()}
    assert packed == there and len(packed) > 50
    stray = REPO / "src/univg/assets/examples/images/univg-out/a.png"
    assert not any(stray.match(f"{REPO}/{pattern}") for pattern in wheel["artifacts"])


def test_a_clone_ignores_what_the_documented_commands_write() -> None:
    ignored = (REPO / ".gitignore").read_text("utf-8").splitlines()
    pages = [REPO / "README.md", *(REPO / "docs").glob("*.md")]
    named = {name for page in pages for name in re.findall(r"--out ([\w.-]+)", page.read_text("utf-8"))}
    assert len(named) > 10
    for name in named - {"OUT"}:
        assert any(fnmatch(name, pattern.strip("/")) for pattern in ignored), name
