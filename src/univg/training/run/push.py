"""Push a finished model to the hub: its own files alone, once they are whole.

transformers would push the run's folder while it trains: pages of rollouts, logs, and weights that are half written.
"""

from __future__ import annotations

from pathlib import Path

from transformers import TrainingArguments

from univg.data.pushing import HubTarget, make_repository
from univg.terminal import is_first_process

__all__ = ["take_push"]


def take_push(arguments: TrainingArguments, out: Path) -> HubTarget | None:
    """Take `push_to_hub` out of a trainer's arguments, and make the repository; None where nothing is to be pushed.

    Raises UnivgError, before anything is trained, where the hub does not let us.
    """
    if not arguments.push_to_hub:
        return None
    arguments.push_to_hub = False
    target = HubTarget(arguments.hub_model_id or out.absolute().name, arguments.hub_revision)
    if not is_first_process():
        return target
    return make_repository(target, "trainer.push_to_hub", arguments.hub_private_repo)
