"""Push a finished model to the hub: its own files alone, once they are whole.

transformers would push the run's folder while it trains: pages of rollouts, logs, and weights that are half written.
"""

from __future__ import annotations

import shlex
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from huggingface_hub import HfApi
from huggingface_hub.errors import HTTPError  # type: ignore[attr-defined]  # of the client that it uses
from rich.console import Console
from transformers import TrainingArguments

from univg.errors import UnivgError, one_line
from univg.terminal import is_first_process, waiting

__all__ = ["HubTarget", "push", "take_push"]


@dataclass(frozen=True)
class HubTarget:
    """Where a finished model goes: a repository, and a branch of it (None: the main one)."""

    repository: str
    branch: str | None = None


def take_push(arguments: TrainingArguments, out: Path) -> HubTarget | None:
    """Take `push_to_hub` out of a trainer's arguments, and make the repository; None where nothing is to be pushed.

    Raises UnivgError, before anything is trained, where the hub does not let us.
    """
    if not arguments.push_to_hub:
        return None
    arguments.push_to_hub = False
    name, branch = arguments.hub_model_id or out.absolute().name, arguments.hub_revision
    if not is_first_process():
        return HubTarget(name, branch)
    with _asking_hub(
        f"trainer.push_to_hub: {name} cannot be made",
        "check the network, log in with hf auth login, check hub_model_id",
    ):
        made = HfApi().create_repo(name, private=arguments.hub_private_repo, exist_ok=True).repo_id
        if branch is not None:
            HfApi().create_branch(made, branch=branch, exist_ok=True)
    return HubTarget(made, branch)


def push(target: HubTarget, out: Path, names: Sequence[str], message: str, console: Console) -> None:
    """Push the files `names` of the folder `out`. Raises UnivgError, with the command that does it by hand."""
    by_hand = ["hf", "upload", target.repository, str(out), "."]
    by_hand += [word for name in names for word in ("--include", name)]
    by_hand += ["--revision", target.branch] if target.branch else []
    with (
        _asking_hub("the model is finished, but was not pushed", f"push it by hand: {shlex.join(by_hand)}"),
        waiting(console, f"pushing to {target.repository}"),
    ):
        commit = HfApi().upload_folder(
            repo_id=target.repository,
            folder_path=out,
            allow_patterns=list(names),
            commit_message=message,
            revision=target.branch,
        )
    console.print(f"pushed: {commit.commit_url}")


@contextmanager
def _asking_hub(what: str, remedy: str) -> Iterator[None]:
    """Turn what the hub's client raises into one line."""
    try:
        yield
    except (OSError, ValueError, RuntimeError, HTTPError) as error:
        reason = one_line(" ".join(str(error).split()))[:200]
        raise UnivgError(f"{what} ({reason})", remedy=remedy) from error
