"""Run `univg serve`: a checkpoint behind OpenAI's chat interface, in this process or by vLLM."""

from __future__ import annotations

from collections.abc import Mapping
from typing import ClassVar

from univg.cli.verbs import Command, Parameter, make_verb
from univg.serve.config import ServeConfig


class ServeCommand(Command, ServeConfig):
    """What `univg serve` takes."""

    positional: ClassVar[str | None] = "vllm_arguments"
    flags: ClassVar[Mapping[str, Parameter]] = {
        "api_key_env": Parameter(metavar="NAME"),
        "vllm_arguments": Parameter(metavar="VLLM_ARGUMENT"),
    }


def serve(command: ServeCommand) -> None:
    """Serve a checkpoint behind OpenAI's chat interface. SIGTERM or Ctrl-C: what was asked is answered first.

    With --engine vllm, arguments after -- are passed on to vLLM.
    """
    from univg.serve import server

    server.serve(command)


app = make_verb("serve", ServeCommand, serve, example="univg serve --model GD-ML/UniVG-R1 --port 8000")
