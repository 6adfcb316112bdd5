"""Find texts that a model would take for something else: marks of the chat, and tags of the answer's form."""

from __future__ import annotations

import re

from univg.grounding.samples import GroundingSample

__all__ = ["mark_fault"]

_CHAT = re.compile(r"<\|(?:im_start|im_end|endoftext|image_pad|video_pad|vision_(?:start|end|pad))\|>")
_FORM = re.compile(r"<\s{0,2}/?\s{0,2}(?:think|answer)\s{0,2}>", re.IGNORECASE)


def mark_fault(sample: GroundingSample, taught: bool = True) -> tuple[str, str] | None:
    """Return `(kind, cause)` of what must not stand in a sample's question, or in its thought where that is taught.

    >>> mark_fault(GroundingSample(["a.jpg"], "Where is it?", "t", thought="Left. <answer>(1,2),(3,4)</answer>"))
    ('reserved_text', "its thought spells '<answer>', which has a meaning of its own")
    """
    thought = (sample.thought or "") if taught else ""
    for what, text, pattern in (
        ("question", sample.query, _CHAT),
        ("thought", thought, _CHAT),
        ("thought", thought, _FORM),
    ):
        if match := pattern.search(text):
            return "reserved_text", f"its {what} spells {match[0]!r}, which has a meaning of its own"
    return None
