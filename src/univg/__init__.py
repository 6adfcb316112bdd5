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
    from univg.errors import UnivgError as UnivgError
    from univg.grounding.boxes import iou as iou
    from univg.grounding.prompts import render_prompt as render_prompt
    from univg.grounding.prompts import render_response as render_response
    from univg.grounding.reading import Asked as Asked
    from univg.grounding.reading import Reading as Reading
    from univg.grounding.reading import read as read
    from univg.grounding.samples import GroundingSample as GroundingSample
    from univg.grounding.samples import read_jsonl as read_jsonl
    from univg.grounding.samples import write_jsonl as write_jsonl
    from univg.grounding.scoring import Score as Score
    from univg.grounding.scoring import score as score
    from univg.models.grounder import GroundedBox as GroundedBox
    from univg.models.grounder import Grounder as Grounder
    from univg.models.grounder import Grounding as Grounding

__version__ = "0.1.0"

_HOMES = {
    "iou": "univg.grounding.boxes",
    "Asked": "univg.grounding.reading",
    "Reading": "univg.grounding.reading",
    "read": "univg.grounding.reading",
    "render_prompt": "univg.grounding.prompts",
    "render_response": "univg.grounding.prompts",
    "GroundingSample": "univg.grounding.samples",
    "read_jsonl": "univg.grounding.samples",
    "write_jsonl": "univg.grounding.samples",
    "Score": "univg.grounding.scoring",
    "score": "univg.grounding.scoring",
    "UnivgError": "univg.errors",
    "GroundedBox": "univg.models.grounder",
    "Grounder": "univg.models.grounder",
    "Grounding": "univg.models.grounder",
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
