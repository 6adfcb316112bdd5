"""Pictures drawn by other programs, with questions as a person asks them."""

from univg.world.drawn.asking import DRAWN, DRAWN_FAMILIES, DrawnQuestion, compose_drawn
from univg.world.drawn.pages import Page
from univg.world.drawn.programs import INSTALL, PROGRAMS, draw_page, list_programs, tell_missing

__all__ = [
    "DRAWN",
    "DRAWN_FAMILIES",
    "INSTALL",
    "PROGRAMS",
    "DrawnQuestion",
    "Page",
    "compose_drawn",
    "draw_page",
    "list_programs",
    "tell_missing",
]
