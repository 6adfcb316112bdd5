"""Which image a box is on, where an answer of another program names a file or counts from 0."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

import pytest

from univg.cli.main import main
from univg.evaluate.image_names import counts_from_zero, number_images

IMAGES = ("in/a.png", "in/b.png", "other/b.png")


def box(image: object) -> str:
    return json.dumps({"bbox_2d": [1, 2, 3, 4], "image": image})


@pytest.mark.parametrize(
    ("said", "number", "why"),
    [
        ("a.png", 0, None),
        ("A.PNG", 0, None),
        ("a", 0, None),
        ("in/b.png", 1, None),
        ("C:\\data\\other\\b.png", 2, None),
        ("b.png", 3, "'b.png' is the name of in/b.png and of other/b.png: give its folder too"),
        ("c.png", 3, "'c.png' is none of in/a.png, in/b.png, other/b.png"),
    ],
)
def test_a_file_is_the_image_of_that_name(said: str, number: int, why: str | None) -> None:
    told: list[str] = []
    assert json.loads(number_images(box(said), IMAGES, on_unknown=told.append))["image_index"] == number
    assert told == ([why] if why else [])


@pytest.mark.parametrize("said", ["the second one", 2])
def test_words_and_numbers_stay(said: object) -> None:
    assert number_images(box(said), IMAGES) == box(said)


@pytest.mark.parametrize(
    ("numbers", "counts", "zero"),
    [
        ([0, 1], [2, 2], True),
        ([1, 2], [2, 2], False),
        ([0, 2], [2, 2], False),
        ([0, 2], [2, 3], True),
        ([], [], False),
    ],
)
def test_a_file_counts_its_images_in_one_way(
    numbers: Sequence[int], counts: Sequence[int], zero: bool
) -> None:
    assert counts_from_zero([box(number) for number in numbers], counts) is zero


def test_score_says_what_it_made_of_images(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    sample = {"images": ["a.png", "b.png"], "query": "Every dog.", "task": "t", "complete": True}
    truth = {"boxes": [[0.1, 0.1, 0.4, 0.4]], "box_images": [1]}
    data, answers = tmp_path / "data.jsonl", tmp_path / "answers.jsonl"
    data.write_text(
        "".join(json.dumps(sample | truth | {"query": query}) + "\n" for query in ("1", "2", "3"))
    )

    def score(*images: object) -> str:
        rows = [
            {"id": n, "text": [{"bbox_2d": [100, 100, 400, 400], "image": image}]}
            for n, image in enumerate(images)
        ]
        answers.write_text("".join(json.dumps(row) + "\n" for row in rows))
        main(["score", str(answers), "--data", str(data), "--style", "direct"])
        return capsys.readouterr().out

    assert "NOTE: the answers say `image` 0" in (said := score(0, 1, 1)) and "66.7" in said
    assert (
        "line 2: 'c.png' is none of a.png, b.png." in (said := score("b", "c.png", "B.png"))
        and "66.7" in said
    )
    assert "--samples" not in said
