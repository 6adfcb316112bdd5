"""univg: ground language in images. Several images and a question in; a chain of thought and a box out.

    from univg import Grounder

    grounding = Grounder.from_pretrained().ground(["left.png", "right.png"], "Which object differs?")
    print(grounding.thought, grounding.boxes)

Every public name below is loaded at its first use: ``import univg`` costs nothing and never imports torch.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from univg.boxes import iou as iou
    from univg.models.grounder import GroundedBox as GroundedBox
    from univg.models.grounder import Grounder as Grounder
    from univg.models.grounder import Grounding as Grounding
    from univg.response import Response as Response
    from univg.response import parse as parse
    from univg.response import render_prompt as render_prompt
    from univg.response import render_response as render_response
    from univg.samples import GroundingSample as GroundingSample
    from univg.samples import read_jsonl as read_jsonl
    from univg.samples import write_jsonl as write_jsonl
    from univg.scoring import Score as Score
    from univg.scoring import score as score

__version__ = "0.1.0"

_HOMES = {
    "iou": "univg.boxes",
    "GroundedBox": "univg.models.grounder",
    "Grounder": "univg.models.grounder",
    "Grounding": "univg.models.grounder",
    "Response": "univg.response",
    "parse": "univg.response",
    "render_prompt": "univg.response",
    "render_response": "univg.response",
    "GroundingSample": "univg.samples",
    "read_jsonl": "univg.samples",
    "write_jsonl": "univg.samples",
    "Score": "univg.scoring",
    "score": "univg.scoring",
}

__all__ = ["__version__", *_HOMES]


def __getattr__(name: str) -> object:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = getattr(importlib.import_module(_HOMES[name]), name)
    globals()[name] = value  # the next access finds it without asking here
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *_HOMES})
