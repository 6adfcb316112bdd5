"""The table "Answers that are read" of docs/evaluation.md, row by row: what is a box, what is none, on which image."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest

from univg.grounding.reading import Asked, Reading, read

BOX = (0.1, 0.2, 0.3, 0.4)
DOCS = Path(__file__).parents[2] / "docs" / "evaluation.md"


def read_answer(text: str, n_images: int = 1, **asked: object) -> Reading:
    return read(f"<think>Two dogs.</think><answer>{text}</answer>", Asked(n_images, **asked))  # type: ignore[arg-type]


READ = {
    "two corners in brackets": [
        "(100,200),(300,400)",
        "[[100,200],[300,400]]",
        "(100, 200) to (300, 400)",
        "（１００，２００），（３００，４００）",
        "(100, 200) - (300, 400)",
        "目标位于(100,200)到(300,400)之间",
    ],
    "four numbers in a bracket": [
        "[100, 200, 300, 400]",
        "(100, 200, 300, 400)",
        "[[100,200,300,400]]",
        "[245,[100,200,300,400]]",
        "[100,200,300,400,]",
        '["100", "200", "300", "400"]',
        "dog: [100,200,300,400]",
        "【100，200，300，400】",
        r"\boxed{[100, 200, 300, 400]}",
    ],
    "four bare numbers": [
        "100, 200, 300, 400",
        "100 200 300 400.",
        "100_200_300_400",
        "坐标：100，200，300，400",
    ],
    "a key such as bbox_2d, before all other brackets": [
        '{"bbox_2d": [100, 200, 300, 400], "label": "dog 2", "score": 0.9}',
        '{"points": [[130,210],[235,280]], "bbox_2d": [100,200,300,400]}',
        '{"label": "sign (10,20),(30,40)", "bbox_2d": [100, 200, 300, 400]}',
        '{"crop": [0,0,900,900], "bbox": [[100, 200], [300, 400]]}',
        '{"bounding_box": "100,200,300,400", "class_id": 3}',
        r"{\"bbox_2d\": [100, 200, 300, 400], \"label\": \"sign (1,2),(3,4)\"}",
        '{"bbox_2d": [100, 200, 300, 400], "label": "x1: 5, y1: 6, x2: 7, y2: 8"}',
        '{"bbox": {"coordinates": [100, 200, 300, 400]}}',
        "Bounding box: 100, 200, 300, 400",
        "边界框：[100, 200, 300, 400]",
    ],
    "box_2d, y first, 0-1000": [
        '[{"box_2d": [200, 100, 400, 300], "label": "dog"}]',
        '{"box_2d": ["200", "100", "400", "300"]}',
        '{"box_2d": [0.2, 0.1, 0.4, 0.3]}',
        '{"box_2d": {"xmin": 100, "ymin": 200, "xmax": 300, "ymax": 400}}',
    ],
    "x1, xmin, left and the like, in any order": [
        '{"x1": 100, "y1": 200, "x2": 300, "y2": 400}',
        '{"xmax": 300, "xmin": 100, "ymax": 400, "ymin": 200}',
        '{"x0": 100, "y0": 200, "x1": 300, "y1": 400}',
        "left=100, top=200, right=300, bottom=400",
        "左=100，上=200，右=300，下=400",
        '{"top_left_x": 100, "top_left_y": 200, "bottom_right_x": 300, "bottom_right_y": 400}',
        "x1＝100，y1＝200，x2＝300，y2＝400",
        "(x₁, y₁) = (100, 200), (x₂, y₂) = (300, 400)",
        '{"bbox_x1": 100, "bbox_y1": 200, "bbox_x2": 300, "bbox_y2": 400}',
    ],
    "a place with width and height": [
        '{"x": 100, "y": 200, "width": 200, "height": 200}',
        '{"cx": 200, "cy": 300, "w": 200, "h": 200}',
        "center: (200, 300), width: 200, height: 200",
        "top-left corner (100,200), width 200 and height 200",
        "中心点(200,300)，宽200，高200",
        '{"bbox": [100,200,200,200], "format": "xywh"}',
        "[100,200,200,200] (x, y, w, h)",
        '{"bbox": [100,200,200,200], "width": 200, "height": 200}',
        '{"position": {"x":100,"y":200}, "size": {"width":200,"height":200}}',
    ],
    "an order stated besides": [
        "[ymin, xmin, ymax, xmax] = [200, 100, 400, 300]",
        "(y1,x1),(y2,x2) = (200,100),(400,300)",
        "In the format [x, y, width, height], the box of the dog is [100, 200, 200, 200].",
        "x1,y1,x2,y2\n100,200,300,400",
    ],
    "corners told in a sentence": [
        "the top-left corner is at (100, 200) and the bottom-right corner at (300, 400)",
        "The top left corner of the red cup on the table is at (100,200) and its bottom right corner is at (300,400)",
        "Upper left corner: 100, 200. Lower right corner: 300, 400.",
        "bottom-right corner (300,400), top-left corner (100,200)",
        "top-right corner (300, 200), bottom-left corner (100, 400)",
        "(100, 200) is the top-left corner and (300, 400) is the bottom-right corner",
        "The dog is at (100, 200) for the top-left corner and (300, 400) for the bottom-right corner.",
        '{"top_left": [100, 200], "bottom_right": [300, 400]}',
        "top-left (100,200), top-right (300,200), bottom-right (300,400), bottom-left (100,400)",
        '{"min": {"x":100,"y":200}, "max": {"x":300,"y":400}}',
    ],
    "corners told in Chinese": [
        "左上角(100,200)，右下角(300,400)",
        "左上角的坐标大约是(100,200)，右下角的坐标大约是(300,400)",
        "左上角坐标为（100，200），右下角坐标为（300，400）。",
        "右下角(300,400)，左上角(100,200)",
        "左上角坐标是100,200，右下角坐标是300,400",
        "其左上角位于(100,200)，其右下角位于(300,400)",
        "起点(100,200)，终点(300,400)",
        "左边界100，上边界200，右边界300，下边界400",
    ],
    "a range of x and one of y": [
        "x from 100 to 300 and y from 200 to 400",
        "y: 200-400, x: 100-300",
        "x=100..300, y=200..400",
        "100 < x < 300 and 200 < y < 400",
        "x ∈ [100, 300], y ∈ [200, 400]",
        '{"x": [100, 300], "y": [200, 400]}',
        "横坐标从100到300，纵坐标从200到400",
        "horizontally from 100 to 300 and vertically from 200 to 400",
    ],
    "four corners, by their extent": [
        "[[100,200],[300,200],[300,400],[100,400]]",
        "(100,200),(300,200),(300,400),(100,400)",
        "[[100,200],[300,200],[300,400],[100,400],[100,200]]",
        "[100,200,300,200,300,400,100,400]",
        '{"quad": [[110,200],[300,210],[290,400],[100,390]]}',
        "[[110,200],[300,210],[290,400],[100,390]]",
        "<quad>(100,200),(300,200),(300,400),(100,400)</quad>",
        '{"boundingPoly": {"vertices": [{"x":100,"y":200},{"x":300,"y":200},{"x":300,"y":400},{"x":100,"y":400}]}}',
    ],
    "percent": [
        "(10%, 20%), (30%, 40%)",
        "[10 %, 20 %, 30 %, 40 %]",
        "（１０％，２０％），（３０％，４０％）",
        "left: 10%; top: 20%; width: 20%; height: 20%",
    ],
    "fractions": [
        "[0.1, 0.2, 0.3, 0.4]",
        '{"bbox_2d": [.1, .2, .3, .4]}',
        '{"x": 0.1, "y": 0.2, "width": 0.2, "height": 0.2}',
    ],
    "XML": [
        "<box><xmin>100</xmin><ymin>200</ymin><xmax>300</xmax><ymax>400</ymax></box>",
        '<box x1="100" y1="200" x2="300" y2="400"/>',
        "<name>dog 3</name><bndbox><xmin>100</xmin><ymin>200</ymin><xmax>300</xmax><ymax>400</ymax></bndbox>",
        "<bbox>100, 200, 300, 400</bbox>",
        '<bbox x="100" y="200" width="200" height="200" />',
    ],
    "the tokens of model families": [
        "<|object_ref_start|>dog 2<|object_ref_end|><|box_start|>(100,200),(300,400)<|box_end|>",
        "<|ref|>the 2 dogs (5,6),(7,8)<|/ref|><|det|>[[100, 200, 300, 400]]<|/det|>",
        "<|begin_of_box|>[[100,200,300,400]]<|end_of_box|>",
        "<loc_100><loc_200><loc_300><loc_400>",
    ],
}


@pytest.mark.parametrize(
    ("row", "written"),
    [pytest.param(row, text, id=f"{row}: {text}") for row, texts in READ.items() for text in texts],
)
def test_what_is_read(row: str, written: str) -> None:
    reading = read_answer(written)
    assert reading.box == pytest.approx(BOX)
    assert (reading.fault, len(reading.boxes)) == (None, 1)


TOLD = {
    ("several boxes, the first counts", "several_boxes"): [
        "[[100,200,300,400;500,600,700,800]]",
        "100 200 300 400\n500 600 700 800",
        "(100,200),(300,400) and (500,600),(700,800)",
        '{"bbox_2d": [100, 200, 300, 400], "label": "a"}\n{"bbox_2d": [500, 600, 700, 800], "label": "b"}]\n```',
        "左上角(100,200)，右下角(300,400)；左上角(500,600)，右下角(700,800)",
        '{"cat": [100,200,300,400], "dog": [500,600,700,800]}',
        "[[100,200],[300,200],[300,400],[100,400]],[[500,600],[700,600],[700,800],[500,800]]",
        "<box>(100,200),(300,400)</box> near (500,600),(700,800)",
    ],
    ("broken off behind a box", "truncated"): [
        "<|ref|>head<|/ref|><|det|>[[100, 200, 300, 400], [0, 5, 533, 17, 9999999999999999999999999999",
        '[{"bbox_2d": [100, 200, 300, 400]}, {"bbox_2d": [500, 600, 70',
    ],
    ("x2 < x1", "inverted_box"): [
        "[300, 400, 100, 200]",
        '{"xmin": 300, "xmax": 100, "ymin": 200, "ymax": 400}',
    ],
}


@pytest.mark.parametrize(
    ("fault", "written"),
    [pytest.param(row[1], text, id=f"{row[0]}: {text}") for row, texts in TOLD.items() for text in texts],
)
def test_what_is_read_and_told(fault: str, written: str) -> None:
    reading = read_answer(written)
    assert (reading.box, reading.fault) == (pytest.approx(BOX), fault)


def test_fractions_a_little_beyond_1() -> None:
    reading = read_answer("[0.12, 0.2, 0.9, 1.1]")
    assert (reading.box, reading.fault) == ((0.12, 0.2, 0.9, 1.0), "out_of_range")
    both = read_answer("[[0.1,0.2,0.3,0.4],[0,0,1,1]]")  # what one box shows of the scale holds for all
    assert [placed.box for placed in both.boxes] == [BOX, (0.0, 0.0, 1.0, 1.0)]


def test_paligemmas_location_tokens() -> None:
    reading = read_answer("<loc0128><loc0256><loc0512><loc1023> cat")
    assert reading.box == (0.25, 0.125, 1023 / 1024, 0.5)
    assert read_answer("<loc0128><loc0256><loc0512>").fault == "no_box"


def test_a_scale_of_its_own_holds_in_pixels_too() -> None:
    for written in (
        '{"box_2d": [200, 100, 400, 300]}',
        "(10%,20%),(30%,40%)",
        "<loc_100><loc_200><loc_300><loc_400>",
    ):
        text = f"<answer>{written}</answer>"
        assert read(text, Asked(1, "", "think", "pixel"), [(50, 60)]).box == pytest.approx(BOX)


REFUSED = {
    ("two things at two points", "no_box"): [
        "the cat at (1,2), a dog at (3,4)",
        "The cat is at the top left (1,2), the dog at the bottom right (3,4)",
        "The cat sits in the top-left corner at (1,2) and a dog in the bottom-right corner at (3,4).",
        "The top-left corner of the cat is (1,2). The bottom-right corner of the dog is (3,4).",
        '{"cat": [1,2], "dog": [3,4]}',
        "猫在(1,2)，狗在(3,4)",
        "A cat (1,2) is in the top-left corner, a dog (3,4) is in the bottom-right corner",
        "左边的猫在(100,200)，右边的狗在(300,400)",
        "drag(start_box='(100,200)', end_box='(300,400)')",
    ],
    ("points and labels alone", "no_box"): [
        '{"points": [[130,210],[235,280]]}',
        '[{"point_2d": [130,210]}, {"point_2d": [300,410]}]',
        '{"label": "sign (10,20),(30,40)"}',
        '<points x1="10.5" y1="20.2" x2="30" y2="40" alt="dogs">dogs</points>',
        '{"point": {"x": 130, "y": 210}, "width": 640, "height": 480}',
        "The point is x=130, y=210; the image has width 640 and height 480",
    ],
    ("a refusal in words", "no_box"): [
        "我无法在图像中找到该目标。",
        "图中没有找到目标，共有2张图片。",
        "I'm sorry, I cannot find the object in the 2 images.",
        "There are 4 dogs: 1, 2, 3 and 4.",
        "None",
        '{"bbox_2d": []}',
        '{"bbox_2d": null, "image_size": [0, 0, 640, 480]}',
    ],
    ("not four numbers", "no_box"): [
        "[1,2,3,4,5]",
        '{"bbox_2d": [100,200,300]}',
        '{"bbox_2d": [100,200,300,400,500], "crop": [1,2,3,4]}',
        "left: 100, top: 200",
        "bbox: 100 200 300 400 0.95",
        "2024-01-02 10:20:30",
        "(100,200) 200x200",
    ],
    ("broken off within its only box", "truncated"): [
        '{"bbox_2d": [100, 200, 300, 4',
        '{"x1": 100, "y1": 200, "x2": 300, "y2": 4',
        "[[100, 200], [300, 4",
    ],
    ("two boxes for one thing", "ambiguous_box"): [
        '{"bbox_2d": [100,200,300,400], "bbox": [1,2,3,4]}',
        '{"bbox_2d": [100,200,300,400], "bbox_2d": [5,6,7,8]}',
        '{"bbox": [100,200,300,400], "x1": 1, "y1": 2, "x2": 3, "y2": 4}',
    ],
    ("points that make no pairs and no shape", "ambiguous_box"): [
        "[[1,2],[3,4],[5,6]]",
        '{"bbox": [[1,2],[3,4],[5,6]]}',
        "[[1,2],[3,4],[5,6],[7,8]]",
        "[1,2,3,4,5,6,7,8]",
        "(110,200),(300,210),(290,400),(100,390)",
        '{"box_2d": [[100,200],[300,400]]}',
    ],
    ("numbers in several units", "ambiguous_box"): [
        "(10%, 20, 30%, 40)",
        "(100px, 200px), (300px, 400px)",
        "left: 10%, top: 20, right: 30%, bottom: 40",
    ],
    ("centre or corner", "ambiguous_box"): [
        '{"x": 200, "y": 300, "width": 200, "height": 200, "format": "cxcywh"}'
    ],
}


@pytest.mark.parametrize(
    ("fault", "written"),
    [pytest.param(row[1], text, id=f"{row[0]}: {text}") for row, texts in REFUSED.items() for text in texts],
)
def test_what_is_refused(fault: str, written: str) -> None:
    reading = read_answer(written)
    assert (reading.boxes, reading.fault) == ((), fault)


ONE, TWO = "(100,200),(300,400)", "(500,600),(700,800)"
PLACED = {  # of three images, from 1 here as people count
    "an image in words beside the box": [
        (f"Image 2: {ONE}", [2]),
        (f"In the second image, the dog is at {ONE}.", [2]),
        (f"{ONE} in the second image", [2]),
        (f"in the second image ({ONE})", [2]),
        (f"It is in the second image. {ONE}", [2]),
        (f"{ONE} (image 2)", [2]),
        (f"Image B: {ONE}", [2]),
        (f"Fig. 2: {ONE}", [2]),
        (f"{ONE} in the second one", [2]),
        (f"frame 2: {ONE}", [2]),
        (f"The first image shows a cat. It's in the third image. {ONE}", [3]),
        (f"Unlike the first image, image 2: {ONE}", [2]),
        (f"Image 1: no target. Image 2: {ONE}. Image 3: no target.", [2]),
        (f"Image 2 shows it at {ONE}, which is not in image 1.", [2]),
    ],
    "an image in Chinese beside the box": [
        (f"图2：{ONE}", [2]),
        (f"第二张图中的坐标为{ONE}", [2]),
        (f"在第二张图中，目标位于{ONE}", [2]),
        (f"{ONE}（第二张图）", [2]),
        (f"最后一张图：{ONE}", [3]),
        ('{"图2": [100,200,300,400]}', [2]),
        (f"{ONE}在图片2中", [2]),
    ],
    "image_idx and image_index, from 0": [
        ('{"image_idx": 1, "bbox_2d": [100,200,300,400]}', [2]),
        ('{"bbox_2d": [100,200,300,400], "image_index": 0}', [1]),
        ('{"image_idx": 1, "image_id": 57, "bbox_2d": [100,200,300,400]}', [2]),
    ],
    "image, img and image_number, from 1 unless there is a 0": [
        ('[{"image": 1, "bbox_2d": [100,200,300,400]},{"image": 3, "bbox_2d": [500,600,700,800]}]', [1, 3]),
        ('[{"image": 0, "bbox_2d": [100,200,300,400]},{"image": 2, "bbox_2d": [500,600,700,800]}]', [1, 3]),
        ('{"img": 2, "boxes": [[100,200,300,400],[500,600,700,800]]}', [2, 2]),
        (f'<box image="2">{ONE}</box>', [2]),
        ('{"x1":100,"y1":200,"x2":300,"y2":400,"image":2}', [2]),
        ('{"image": "2", "bbox_2d": [100,200,300,400]}', [2]),
        (f"image 0: {ONE}; image 1: {TWO}", [1, 2]),
        ('{"image_id": 3, "bbox_2d": [100,200,300,400]}', [3]),
    ],
    "boxes on several images": [
        (f"Image 2: {ONE}\nImage 3: {TWO}", [2, 3]),
        (f"{ONE} in image 2 and {TWO} in image 3", [2, 3]),
        (f"In the first image {ONE}, and in the third image {TWO}.", [1, 3]),
        (f"Image 1: {ONE}, {TWO}", [1, 1]),
        ('{"image_1": [[100,200,300,400]], "image_2": [[500,600,700,800]]}', [1, 2]),
        (f"1. Image 1: {ONE}\n2. Image 2: {TWO}", [1, 2]),
    ],
}


@pytest.mark.parametrize(
    ("written", "images"),
    [pytest.param(*case, id=f"{row}: {case[0]}") for row, cases in PLACED.items() for case in cases],
)
def test_where_a_box_lies(written: str, images: list[int]) -> None:
    reading = read_answer(written, 3, query="Locate it in the third image.")
    assert [placed.image_index + 1 for placed in reading.boxes] == images
    assert {placed.image_rule for placed in reading.boxes} == {"answer"}
    assert reading.box == pytest.approx(BOX)
    assert reading.fault == (None if len(images) == 1 else "several_boxes")
    assert (reading.image_index, reading.image_rule) == (2, "question")  # what was asked stays what it is


NOWHERE = {
    "an image that there is not": [
        f"Image 5: {ONE}",
        '{"image": 7, "bbox_2d": [100,200,300,400]}',
        f"{ONE} in the ninth image",
    ],
    "a number that may count from 0 or 1": [
        '{"image_id": 1, "bbox_2d": [100,200,300,400]}',
        '{"image": 1, "bbox": [100,200,300,400], "img": 2}',
        f"The left image: {ONE}",
    ],
}


@pytest.mark.parametrize(
    "written", [pytest.param(text, id=f"{row}: {text}") for row, texts in NOWHERE.items() for text in texts]
)
def test_a_box_on_no_image_that_there_is(written: str) -> None:
    reading = read_answer(written, 3)
    assert (reading.boxes, reading.fault) == ((), "unknown_image")
    stated = read_answer(
        written, 3, target_image=1
    )  # a box is scored where the sample states the image, and it is told
    assert [(placed.image_index, placed.image_rule) for placed in stated.boxes] == [(1, "target")]
    assert stated.fault == "unknown_image"
    alone = read_answer(written, 1)  # of one image there is no other
    assert (alone.box, alone.fault) == (pytest.approx(BOX), None)


def test_what_names_no_image() -> None:
    for written in (
        f"Unlike the first image, {ONE}",
        '{"image": "a.png", "bbox_2d": [100,200,300,400]}',
        ONE,
        '{"label": "dog of image 1", "bbox_2d": [100,200,300,400]}',
    ):
        assert read_answer(written, 3).boxes[0].image_rule == "last"


def test_pixels_are_those_of_the_boxs_own_image() -> None:
    box = '"bbox_2d": [50, 50, 100, 100]}'
    text = f'<answer>[{{"image_idx": 0, {box}, {{"image_idx": 1, {box}]</answer>'
    reading = read(text, Asked(2, "", "think", "pixel"), [(100, 100), (200, 400)])
    assert [placed.box for placed in reading.boxes] == [(0.5, 0.5, 1.0, 1.0), (0.25, 0.125, 0.5, 0.25)]


def test_every_row_is_in_the_documentation() -> None:
    rows = [*READ, *(row for row, _ in TOLD), *(row for row, _ in REFUSED), *PLACED, *NOWHERE]
    table = DOCS.read_text(encoding="utf-8").split("## Answers that are read")[1]
    cells = {
        re.sub("`", "", line.split("|")[1].strip()) for line in table.splitlines() if line.startswith("| ")
    }
    assert not [row for row in rows if row not in cells]


def test_the_cases_that_people_reported() -> None:
    path = Path(__file__).parents[2].parent / "shared" / "cases" / "23-score" / "predictions.jsonl"
    if not path.exists():
        pytest.skip("the reported answers are not beside the repository")
    for line in path.read_text("utf-8").splitlines():
        case = json.loads(line)
        reading = read(case["text"])
        expected = (
            None if case["id"].startswith("refusal") else tuple(value / 1000 for value in case["answer"])
        )
        assert reading.box == (pytest.approx(expected) if expected else None), case["id"]
