"""Push files to a hub: a model's or a data set's own, once they are whole, and never half a folder of something else.

A repository is made, or found, before anything is done for it; what cannot be pushed stays where it is, and the error
says the command that pushes it by hand.
"""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from univg.errors import UnivgError, one_line
from univg.terminal import waiting

if TYPE_CHECKING:
    from rich.console import Console

__all__ = ["HubTarget", "find_splits", "make_repository", "push_files"]


@dataclass(frozen=True)
class HubTarget:
    """Where files go: a repository, its kind, and a branch of it (None: the main one)."""

    repository: str
    branch: str | None = None
    kind: Literal["model", "dataset"] = "model"


def make_repository(target: HubTarget, what: str, private: bool | None = None) -> HubTarget:
    """Make the repository and the branch, if they are not there; return the target with the repository's full name.

    `what` begins the error where the hub does not let us. With `private`, one that is there and public is refused.
    """
    from huggingface_hub import HfApi

    remedy = "check the network, log in with hf auth login (or HF_TOKEN), check the name"
    with _asking_hub(f"{what}: {target.repository} cannot be made", remedy):
        made = (
            HfApi()
            .create_repo(target.repository, private=private, exist_ok=True, repo_type=target.kind)
            .repo_id
        )
        if target.branch is not None:
            HfApi().create_branch(made, branch=target.branch, exist_ok=True, repo_type=target.kind)
        public = private and HfApi().repo_info(made, repo_type=target.kind).private is False
    if public:
        raise UnivgError(
            f"{what}: {made} is there already, and public",
            remedy="name another, or make it private on the hub first",
        )
    return HubTarget(made, target.branch, target.kind)


def find_splits(target: HubTarget) -> list[str]:
    """Return the names of a data set's splits that are in the repository, by its files `data/SPLIT-…`."""
    from huggingface_hub import HfApi

    with _asking_hub(f"{target.repository} cannot be listed", "check the network and the name"):
        there = HfApi().list_repo_files(target.repository, revision=target.branch, repo_type=target.kind)
    found = (re.fullmatch(r"data/([^/-]+)-[^/]*\.parquet", name) for name in there)
    return sorted({match[1] for match in found if match})


def push_files(
    target: HubTarget,
    folder: Path,
    names: Sequence[str],
    message: str,
    what: str,
    console: Console,
    replaced: Sequence[str] = (),
) -> None:
    """Push the files `names` of `folder` in one commit, in which other files go that a pattern of `replaced` names.
    Raises UnivgError, with the command that does it by hand; `what` says what is finished all the same."""
    from huggingface_hub import HfApi

    by_hand = ["hf", "upload", target.repository, str(folder), "."]
    by_hand += [word for name in names for word in ("--include", name)]
    by_hand += [word for pattern in replaced for word in ("--delete", pattern)]
    by_hand += ["--revision", target.branch] if target.branch else []
    by_hand += ["--repo-type", target.kind] if target.kind != "model" else []
    with (
        _asking_hub(f"{what}, but was not pushed", f"push it by hand: {shlex.join(by_hand)}"),
        waiting(console, f"pushing to {target.repository}"),
    ):
        commit = HfApi().upload_folder(
            repo_id=target.repository,
            repo_type=target.kind,
            folder_path=folder,
            allow_patterns=list(names),
            delete_patterns=list(replaced) or None,
            commit_message=message,
            revision=target.branch,
        )
    console.print(f"pushed: {commit.commit_url}")


@contextmanager
def _asking_hub(what: str, remedy: str) -> Iterator[None]:
    """Turn what the hub's client raises into one line."""
    from huggingface_hub.errors import HTTPError  # type: ignore[attr-defined]  # of the client that it uses

    try:
        yield
    except (OSError, ValueError, RuntimeError, HTTPError) as error:
        reason = one_line(" ".join(str(error).split()))[:200]
        raise UnivgError(f"{what} ({reason})", remedy=remedy) from error
