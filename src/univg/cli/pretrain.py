"""Run `univg pretrain`: the embedded model, trained from random weights on the procedural world."""

from __future__ import annotations

import os

from univg.cli.stages import StageCommand, print_result
from univg.cli.verbs import make_verb
from univg.training.config import PretrainConfig


class PretrainCommand(StageCommand, PretrainConfig):
    """What `univg pretrain` takes."""


def train(command: PretrainCommand) -> None:
    """Train a model from scratch on the procedural world."""
    folder = command.folder()
    # On processors, every number of tokens is a matrix product of its own, and oneDNN keeps a thousand of them: 8.8 GB
    # after 65 steps, where 64 of them take 5.4 after 255, at the same speed.
    os.environ.setdefault("ONEDNN_PRIMITIVE_CACHE_CAPACITY", "64")
    from univg.training.pretrain.stage import pretrain, say_saved
    from univg.training.run.processes import ending_together

    with ending_together(folder, say_saved):
        pretrain(command.part(PretrainConfig), folder, resume=command.resume)
    print_result("checkpoint", folder)


app = make_verb("pretrain", PretrainCommand, train)
