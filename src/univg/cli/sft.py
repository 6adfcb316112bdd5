"""Run `univg sft`: stage 1, supervised fine-tuning on samples with thoughts."""

from __future__ import annotations

from univg.cli.stages import StageCommand, needing_packages, print_result
from univg.cli.verbs import make_verb
from univg.training.config import SftConfig


class SftCommand(StageCommand, SftConfig):
    """What `univg sft` takes."""


def train(command: SftCommand) -> None:
    """Stage 1: fine-tune a checkpoint on samples with thoughts."""
    folder = command.folder()
    config = command.part(SftConfig)
    from univg.terminal import notes, waiting
    from univg.training.sft.prechecks import check_sft

    check_sft(config, command.resume)  # before torch is imported, which takes seconds
    with needing_packages("sft"):
        with waiting(notes(), "loading libraries"):
            from univg.training.run.processes import ending_together
            from univg.training.sft.stage import train_sft

        with ending_together(folder):
            train_sft(config, folder, resume=command.resume)
    print_result("model", folder)


app = make_verb("sft", SftCommand, train, example="univg sft --config tiny-sft --out runs/sft max_steps=200")
