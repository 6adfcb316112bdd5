"""Every extra installs with constraints.txt: what its packages ask of one another, as far as they are installed here.

The installer itself is asked by `make extras`.
"""

from __future__ import annotations

import re
import tomllib
from collections.abc import Iterator
from importlib.metadata import PackageNotFoundError, requires
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

REPO = Path(__file__).parents[1]
PROJECT = tomllib.loads((REPO / "pyproject.toml").read_text(encoding="utf-8"))["project"]
EXTRAS: dict[str, list[str]] = PROJECT["optional-dependencies"]
PINS = {
    canonicalize_name(name): version
    for name, version in re.findall(
        r"^([\w.-]+)==(\S+)$", (REPO / "constraints.txt").read_text(encoding="utf-8"), re.M
    )
}


def find_requirements(extra: str) -> Iterator[tuple[str, Requirement]]:
    """(who asks, for what), from the extra down to packages that are not installed or ask for nothing."""
    wanted = [("univg", Requirement(line)) for line in [*PROJECT["dependencies"], *EXTRAS[extra]]]
    seen = set()
    while wanted:
        asker, requirement = wanted.pop()
        name, extras = canonicalize_name(requirement.name), requirement.extras
        if requirement.marker and not requirement.marker.evaluate({"extra": ""}):
            continue
        if name == "univg":
            wanted += [("univg", Requirement(line)) for one in extras for line in EXTRAS[one]]
            continue
        yield asker, requirement
        if (name, extras := frozenset(extras)) in seen:
            continue
        seen.add((name, extras))
        try:
            lines = requires(name) or []
        except PackageNotFoundError:
            continue
        for line in lines:
            further = Requirement(line)
            marker = further.marker
            if marker is None or any(marker.evaluate({"extra": one}) for one in ("", *extras)):
                further.marker = None
                wanted.append((name, further))


@pytest.mark.parametrize("extra", EXTRAS)
def test_an_extra_goes_with_the_constraints(extra: str) -> None:
    asked = list(find_requirements(extra))
    assert len(asked) > len(PROJECT["dependencies"])
    missing = {f"{asker} asks for {one}" for asker, one in asked if canonicalize_name(one.name) not in PINS}
    assert not missing, "constraints.txt says no version"
    refused = {
        f"{asker} asks for {one}, constraints.txt says {PINS[canonicalize_name(one.name)]}"
        for asker, one in asked
        if not one.specifier.contains(PINS[canonicalize_name(one.name)], prereleases=True)
    }
    assert not refused
