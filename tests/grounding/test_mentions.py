"""Which image a text speaks of: every question of MIG-Bench, and what people and models write besides."""

from __future__ import annotations

import json
import re
import time
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from univg.grounding.mentions import decide_image

ORDINALS = ["first", "second", "third", "fourth", "fifth", "sixth"]

QUESTIONS = [  # images, question, the image meant (from 0) or None if none is named
    # how MIG-Bench asks
    (4, "These images share one object in common. Recognize and locate this object in the 3th image. ", 2),
    (4, "Recognize and locate this object in the 1th image. ", 0),
    (2, "Find and locate where does the object in image-1 locate in the image-2.", 1),
    (
        3,
        "You are given a source image followed by its several regions. Please locate the 2th "
        "region picture in the source image. ",
        0,
    ),
    (2, "Compare these two images carefully and give me the coordinates of their difference. ", None),
    (
        2,
        "Compare these two images carefully and give me the coordinates of their real difference "
        "in the second image.  Find it and locate it in the second image. ",
        1,
    ),
    (
        6,
        "For the object in the first image marked with red bounding "
        "box(<|box_start|>(139,305),(495,743)<|box_end|>), please locate it in the 5th image. ",
        4,
    ),
    (
        3,
        "Give the bounding box of the region that this sentence refers to: <|object_ref_start|>the "
        "second image on the wall, image 1 beside it<|object_ref_end|>.",
        None,
    ),
    # asked without saying it again at the end
    (2, "Locate the object in Image-2 that is mostly related to Image-1.", 1),
    (2, "Which object in Image-2 can be used in the scene presented in Image-1?", 1),
    (2, "As the saying goes, eat which object of image-2 everyday can keep the people of image-1 away?", 1),
    (
        2,
        "Which object on the white table of Image-2 can add to the diversity of the dishes on "
        "Image-1's table?",
        1,
    ),
    (2, "Which stuff of Image2 can the object-A in Image-1 be applied to?", 1),
    # the other way round
    (2, "Locate the object in Image-1 that is mostly related to Image-2.", 0),
    (2, "Find and locate where does the object in image-2 locate in the image-1.", 0),
    (3, "Which item in the first image goes with the lamp shown in the third image?", 0),
    (3, "Locate in the second image the object marked in the first image.", 1),
    (3, "In the second image, locate the person who appears in the third image.", 1),
    (3, "Locate the person from the third image in the first image.", 0),
    (3, "What is different in the second image compared to the third image?", 1),
    (3, "Find what the second image shows, unlike the third image.", 1),
    (3, "Find the dog that is in the first image but not in the second image.", 0),
    # ways to name one
    (4, "Where is it in image 3?", 2),
    (4, "Where is it in Image #3?", 2),
    (4, "Where is it in image_3?", 2),
    (4, "Where is it in (image 3)?", 2),
    (4, "Where is it in image no. 3?", 2),
    (4, "Where is it in Picture 3?", 2),
    (4, "Where is it in photo three?", 2),
    (4, "Where is it in the 3rd photo?", 2),
    (4, "Where is it in the third of the images?", 2),
    (4, "Where is it in the third of these four images?", 2),
    (4, "Where is it in the third given image?", 2),
    (4, "Where is it in frame 3?", 2),
    (4, "Where is it in the third video frame?", 2),
    (4, "Where is it in the LAST IMAGE?", 3),
    (4, "Where is it in the final frame?", 3),
    (12, "Where is it in the twelfth image?", 11),
    (12, "Where is it in the 11th image?", 10),
    (2, "Where is Image2's cup?", 1),
    (2, "Where is it in Fig. 1?", 0),
    (4, "Where is it in figure 3?", 2),
    (4, "Where is it in image A?", 0),
    (4, "Which object of image C fits image A?", 2),
    (4, "Where is it in picture #3?", 2),
    (4, "Locate it in the first one.", 0),
    (4, "Locate it in the last one.", 3),
    (2, "Find the cup in the left image.", 0),
    (2, "Find the cup in the image on the right.", 1),
    # in Chinese
    (3, "请在第一张图中找到红色的五角星。", 0),
    (3, "请在第二幅图像里框出图1中的物体", 1),
    (3, "找出图1中的红色星星在图2中的位置", 1),
    (3, "在第二张图中找到第一张图中的红色星星", 1),
    (3, "第一张图中的猫在第二张图的什么位置？", 1),
    (3, "定位第二张图中与第一张图中相同的物体", 1),
    (3, "参考第一张图，在第三张图中定位同一个人", 2),
    (3, "与图3相比，图2有什么不同？", 1),
    (3, "图片1里的狗", 0),
    (3, "第2张照片里的狗", 1),
    (4, "最后一张图里的狗", 3),
    (3, "图二里的狗在哪里？", 1),
    (3, "图A中的狗在图B的哪里", 1),
    (2, "左图中多了什么？", 0),
    (2, "左边那张图里的杯子", 0),
    (2, "找出右图里的杯子", 1),
    # what names none
    (3, "第二个人在哪里？", None),
    (3, "第二张桌子在哪里？", None),
    (3, "这三张图片的共同物体是什么？", None),
    (3, "图中的狗在哪张图里？", None),
    (3, "左图里的杯子", None),
    (3, "Find the cup in the left image.", None),
    (3, "Where is the second one from the left?", None),
    (2, "Find the left picture frame.", None),
    (3, "Find in image a cat.", None),
    (4, "Where is the second dog?", None),
    (4, "Where is the bicycle with a pink frame?", None),
    (4, "Where are the 2 images alike?", None),
    (4, "Where is it in the first two rows?", None),
    (4, "Find the object shared by these 4 images.", None),
    (2, "Where is it in image 3?", None),
    (2, "Where is it in image 0?", None),
    (2, "Where is it in the fifth image?", None),
    (4, "Find a screen at image 2.5 or 50% of image 2%", None),
    (4, "", None),
]


@pytest.mark.parametrize(("n", "question", "image"), QUESTIONS)
def test_questions(n, question, image):
    assert decide_image(n, None, question) == ((n - 1, "last") if image is None else (image, "question"))


THOUGHTS = [
    (4, "It is in the fourth image. <|box_start|>(530,282),(608,605)<|box_end|>. ", 3),
    (3, "It's in the first image. Image 2 and image 3 show only grass.", 0),
    (3, "The first image shows a dog. The second image shows a truck. So it must be the second image.", 1),
    (
        3,
        "The second image has a crane. Therefore, the answer is in the second image. The third "
        "image is empty.",
        1,
    ),
    (3, "In image-1 there is a lake, in image-2 a road, in image-3 a truck.", 2),
    (3, "The truck appears in the second image, not in the third image.", 1),
    (3, "First, I look at all the images. Nothing stands out.", None),
    (3, "So it is in image 1. Wait, image 1 has no crane. So it is in image 2.", 1),
    (3, "第一张图是一只狗，第二张图是一只猫。因此目标在第二张图中。", 1),
    (3, "图二中的猫在左边。", 1),
    (3, "", None),
    (3, None, None),
]


@pytest.mark.parametrize(("n", "thought", "image"), THOUGHTS)
def test_thoughts(n, thought, image):
    assert decide_image(n, None, "Where is the truck?", thought) == (
        (n - 1, "last") if image is None else (image, "thought")
    )


def test_the_rules_come_in_their_order():
    question, thought = "Locate it in the second image.", "It is in the third image."
    assert decide_image(4, 0, question, thought) == (0, "target")
    assert decide_image(4, None, question, thought) == (1, "question")
    assert decide_image(4, None, "Locate it.", thought) == (2, "thought")
    assert decide_image(4, None, "Locate it.", "It is there.") == (3, "last")
    assert decide_image(1, None, "Locate it in the second image.", thought) == (0, "last")


@pytest.mark.parametrize(("n", "target"), [(0, None), (-1, None), (2, 2), (2, -1)])
def test_an_impossible_image_is_an_error(n, target):
    with pytest.raises(ValueError, match="image"):
        decide_image(n, target, "q")


@given(st.integers(1, 9), st.text(), st.none() | st.text())
def test_any_text_gives_an_image_that_exists(n, query, thought):
    image, rule = decide_image(n, None, query, thought)
    assert 0 <= image < n
    assert rule in ("question", "thought", "last")


@pytest.mark.parametrize(
    "unit",
    ["image 1 ", "the ", "a" * 50, " ", "locate it in ", "1", "first ", "<|object_ref_start|>", ".", "so "],
)
def test_long_texts_take_linear_time(unit):
    def seconds(size):
        text = unit * (size // len(unit)) + " in image 2"
        start = time.process_time()
        decide_image(2, None, text, text)
        return time.process_time() - start

    # Quadratic time would be 16 times as long; a busy machine makes any one try unfair.
    assert any(seconds(1_000_000) < 12 * seconds(250_000) + 0.02 for _ in range(6))


def meant(record):
    """What a person reads in a question of MIG-Bench, by its task: the image from 0, or None."""
    task, question = record["task"], record["question"]
    if task in ("diff", "group_grounding"):
        return None
    if task == "region":
        return 0  # the source image comes first, its regions after it
    if task in ("common_object", "multi_view", "object_tracking"):
        return int(re.search(r"in the (\d)th image\. $", question)[1]) - 1
    return 1  # two images, of which the first is the reference


def test_every_question_of_mig_bench():
    path = Path(__file__).parents[2].parent / "shared" / "data" / "mig_bench_original.json"
    if not path.exists():
        pytest.skip("the MIG-Bench annotations are not beside the repository")
    records = json.loads(path.read_text("utf-8"))
    assert len(records) == 4295
    for record in records:
        n, image = len(record["images"]), meant(record)
        expected = (n - 1, "last") if image is None else (image, "question")
        assert decide_image(n, None, record["question"]) == expected, record["question"]
        if record["task"] == "group_grounding":  # the gold sentence says where
            said = ORDINALS.index(re.search(r"in the (\w+) image", record["additional_info"])[1])
            assert decide_image(n, None, record["question"], record["additional_info"]) == (said, "thought")


def test_mig_benchs_reasoning_questions_without_their_closing_sentence():
    path = Path(__file__).parents[2].parent / "shared" / "data" / "mig_bench_original.json"
    if not path.exists():
        pytest.skip("the MIG-Bench annotations are not beside the repository")
    bare = [r["additional_info"] for r in json.loads(path.read_text("utf-8")) if r["task"] == "reasoning"]
    wrong = [question for question in bare if decide_image(2, None, question)[0] != 1]
    assert len(bare) == 101
    # One names only image 1, by a slip of its author, where image 2 is meant.
    assert [question[:40] for question in wrong] == ["Assume you get the chance to let the wom"]
