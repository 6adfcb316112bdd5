"""Run `univg web`: a page to try a model in."""

from __future__ import annotations

from univg.cli.verbs import Command, make_verb
from univg.serve.config import WebConfig


class WebCommand(Command, WebConfig):
    """What `univg web` takes."""


def open_page(command: WebCommand) -> None:
    """Try a model in the browser: images, a question, its thought and its box."""
    from univg.serve import web

    web.open_page(command)


app = make_verb("web", WebCommand, open_page)
