"""Images with their annotated objects, as every detection set gives them, whatever file it was kept in."""

from __future__ import annotations

from dataclasses import dataclass

from univg.grounding.boxes import Box, SizeWH

__all__ = ["DetectionImage", "Instance"]


@dataclass(frozen=True, slots=True)
class Instance:
    """An annotated object: its category, box (unit frame, clipped), and whose track it belongs to, if any.

    `alone` is False for what marks a crowd, or is called difficult: there, but no target.
    """

    category: str
    box: Box
    alone: bool = True
    track: str | None = None


@dataclass(frozen=True, slots=True)
class DetectionImage:
    """An image with its instances. `video` and `frame` place it in an ordered sequence, if it is in one."""

    name: str
    """The image's path, relative to the image root."""
    record: str
    size_wh: SizeWH
    instances: tuple[Instance, ...]
    video: str | None = None
    frame: int = 0
