"""Run `univg grpo`: stage 2, reinforcement learning by the boxes' overlap."""

from __future__ import annotations

from univg.cli.stages import StageCommand, needing_packages, print_result
from univg.cli.verbs import make_verb
from univg.training.config import GrpoConfig


class GrpoCommand(StageCommand, GrpoConfig):
    """What `univg grpo` takes."""


def train(command: GrpoCommand) -> None:
    """Stage 2: reinforcement learning by the boxes' overlap, with difficulty weights."""
    folder = command.folder()
    config = command.part(GrpoConfig)
    from univg.terminal import notes, waiting
    from univg.training.grpo.prechecks import check_grpo

    check_grpo(config, command.resume)  # before torch is imported, which takes seconds
    with needing_packages("grpo"):
        with waiting(notes(), "loading libraries"):
            from univg.training.grpo.stage import train_grpo
            from univg.training.run.processes import ending_together

        with ending_together(folder):
            train_grpo(config, folder, resume=command.resume)
    print_result("model", folder)


app = make_verb(
    "grpo", GrpoCommand, train, example="univg grpo --config tiny-grpo --out runs/grpo model=runs/sft"
)
