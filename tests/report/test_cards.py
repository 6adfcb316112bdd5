"""Model cards: a header that the hub reads, then the body as it stands."""

from __future__ import annotations

from pathlib import Path

from huggingface_hub import ModelCard

from univg.report.cards import write_card


def test_the_hub_reads_what_is_written(tmp_path: Path) -> None:
    write_card(tmp_path, "# mine\n\nA body – as it stands.\n", ["trl"], "peft", base="org/base: a name")
    card = ModelCard.load(tmp_path / "README.md")
    assert card.text.strip() == "# mine\n\nA body – as it stands."
    assert card.data.to_dict() == {
        "base_model": "org/base: a name",
        "library_name": "peft",
        "license": "apache-2.0",
        "pipeline_tag": "image-text-to-text",
        "tags": ["visual-grounding", "univg", "trl"],
    }


def test_a_model_without_a_base_names_none(tmp_path: Path) -> None:
    write_card(tmp_path, "# mine", [])
    assert "base_model" not in (tmp_path / "README.md").read_text()
