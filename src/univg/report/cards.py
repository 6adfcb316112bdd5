"""Write model cards as the hub reads them."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from univg.files import write_whole

__all__ = ["write_card"]


def write_card(
    folder: Path, body: str, tags: Sequence[str], library: str = "transformers", base: str | None = None
) -> None:
    """Write a model's `README.md`: the hub's header for a grounding model, then `body` in Markdown.

    `base` is the hub name or folder that the model was made from; `library` is what loads it.
    """
    from huggingface_hub import ModelCardData

    header = ModelCardData(
        base_model=base,
        library_name=library,
        license="apache-2.0",
        pipeline_tag="image-text-to-text",
        tags=["visual-grounding", "univg", *tags],
    )
    write_whole(folder / "README.md", f"---\n{header.to_yaml()}\n---\n\n{body.strip()}\n")
