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
        "dog(100,200),(300,400)",
        r"$(100, 200)$ to $(300, 400)$",
        "(~100, ~200) to (~300, ~400)",
        "P1(100,200) P2(300,400)",
        "Corner 1 is (100,200) and corner 2 is (300,400)",
        '{"p1": {"x":100,"y":200}, "p2": {"x":300,"y":400}}',
        "角点1(100,200)，角点2(300,400)",
        "(100,200),(300,400), center: (200,300)",
        "(100,200),(300,400)",
        "[[100,200],[300,400]]",
        "(100, 200) to (300, 400)",
        "（１００，２００），（３００，４００）",
        "(100, 200) - (300, 400)",
        "目标位于(100,200)到(300,400)之间",
    ],
    "four numbers in a bracket": [
        r"\left[100, 200, 300, 400\right]",
        "The red (255, 0, 0) dog: rgb(255, 0, 0), [100, 200, 300, 400]",
        "The image size is [640, 480]. [100, 200, 300, 400]",
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
        "dog 100 200 300 400",
        "The dog is at 100, 200, 300, 400.",
        "10%,20% to 30%,40%",
        "100,200 → 300,400",
        "- 100\n- 200\n- 300\n- 400",
        "| dog | 100 | 200 | 300 | 400 |",
        r"\begin{bmatrix} 100 & 200 \\ 300 & 400 \end{bmatrix}",
        "100, 200, 300, 400",
        "100 200 300 400.",
        "100_200_300_400",
        "坐标：100，200，300，400",
    ],
    "a key such as bbox_2d, before all other brackets": [
        "{&quot;bbox_2d&quot;:&nbsp;[100, 200, 300, 400]}",
        r"[\n  {\n    \"bbox_2d\": [\n100,\n200,\n300,\n400],\n    \"label\": \"dog\"\n  }\n]",
        "bbox:\n  - 100\n  - 200\n  - 300\n  - 400\nscore: 0.9",
        r"\boxed{\{\"bbox_2d\": [100, 200, 300, 400]\}}",
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
        "min x: 100, min y: 200, max x: 300, max y: 400",
        "最小x为100，最小y为200，最大x为300，最大y为400",
        r"$x_{\min}=100$, $y_{\min}=200$, $x_{\text{max}}=300$, $y_\max=400$",
        "left edge at x=100, top edge at y=200, right edge at x=300, bottom edge at y=400",
        "x1 (left): 100, y1 (top): 200, x2 (right): 300, y2 (bottom): 400",
        "Left (x_min): 100\nTop (y_min): 200\nRight (x_max): 300\nBottom (y_max): 400",
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
        "centered at (200, 300) with width 200 and height 200",
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
        "| object | ymin | xmin | ymax | xmax |\n|---|---|---|---|---|\n| dog | 200 | 100 | 400 | 300 |",
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
        r"$100 \leq x \leq 300$, $200 \le y \le 400$",
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
        "<poly>100 200 300 200 300 400 100 400</poly>",
        "<quad>100,200 300,200 300,400 100,400</quad>",
        "P1(100,200), P2(300,200), P3(300,400), P4(100,400)",
        '{"x1":110,"y1":200,"x2":300,"y2":210,"x3":290,"y3":400,"x4":100,"y4":390}',
        "dog<loc_100><loc_200><loc_300><loc_200><loc_300><loc_400><loc_100><loc_400>",
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
        "P1(0.1,0.2) P2(0.3,0.4)",
        "[0.1, 0.2, 0.3, 0.4]",
        '{"bbox_2d": [.1, .2, .3, .4]}',
        '{"x": 0.1, "y": 0.2, "width": 0.2, "height": 0.2}',
    ],
    "XML": [
        '<object label="dog" xmin="100" ymin="200" xmax="300" ymax="400"/>',
        "&lt;bbox&gt;100 200 300 400&lt;/bbox&gt;",
        "<box><xmin>100</xmin><ymin>200</ymin><xmax>300</xmax><ymax>400</ymax></box>",
        '<box x1="100" y1="200" x2="300" y2="400"/>',
        "<name>dog 3</name><bndbox><xmin>100</xmin><ymin>200</ymin><xmax>300</xmax><ymax>400</ymax></bndbox>",
        "<bbox>100, 200, 300, 400</bbox>",
        '<svg width="640" height="480"><rect x="100" y="200" width="200" height="200"/></svg>',
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
        "dog<loc_100><loc_200><loc_300><loc_400><loc_500><loc_600><loc_700><loc_800>",
        "| x1 | y1 | x2 | y2 |\n|---|---|---|---|\n| 100 | 200 | 300 | 400 |\n| 500 | 600 | 700 | 800 |",
        "| # | x1 | y1 | x2 | y2 |\n| 1 | 100 | 200 | 300 | 400 |\n| 2 | 500 | 600 | 700 | 800 |",
        "| | x1 | y1 | x2 | y2 |\n| dog | 100 | 200 | 300 | 400 |\n| cat | 500 | 600 | 700 | 800 |",
    ],
    ("broken off behind a box", "truncated"): [
        "<|ref|>head<|/ref|><|det|>[[100, 200, 300, 400], [0, 5, 533, 17, 9999999999999999999999999999",
        '[{"bbox_2d": [100, 200, 300, 400]}, {"bbox_2d": [500, 600, 70',
    ],
    ("a further box that cannot be read", "unread_box"): [
        '{"bbox_2d": [100, 200, 300, 400]}, {"bbox_2d": [500, 600, 700]}',
        '[{"bbox_2d": [500, 600, 700, 800, 900]}, {"bbox_2d": [100, 200, 300, 400]}]',
        "[[100, 200, 300, 400], [500, 600, 700]]",
        "<box>(100,200),(300,400)</box><box>(500,600)</box>",
        "x1=100, y1=200, x2=300, y2=400; x1=500, y1=600, x2=700",
        "top-left (100,200), bottom-right (300,400); top-left (500,600)",
        "| x1 | y1 | x2 | y2 |\n|---|---|---|---|\n| 100 | 200 | 300 | 400 |\n| 500 | 600 | 700 |",
        "bbox_2d: [100, 200, 300, 400]; bbox_2d: [500, 600]",
        "dog: [100, 200, 300, 400], cat: [5, 6, 7]",
        "<|ref|>cat<|/ref|><|det|>[[220, <|ref|>dog<|/ref|><|det|>[[100, 200, 300, 400]]<|/det|>",
        "<loc_100><loc_200><loc_300><loc_400><loc_500><loc_600>",
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


def test_the_cells_of_kosmos_2() -> None:
    written = "<phrase>a dog</phrase><object><patch_index_{}><patch_index_{}></object>"
    assert read_answer(written.format("0100", "0500")).box == (4.5 / 32, 3.5 / 32, 20.5 / 32, 15.5 / 32)
    assert read_answer(written.format("0032", "0032")).box == (
        0,
        1 / 32,
        1 / 32,
        2 / 32,
    )  # one cell, all of it


@pytest.mark.parametrize("name", ["thinking", "seed:think", "reasoning"])
def test_a_thought_under_other_names_is_no_answer(name: str) -> None:
    reading = read(f"<{name}>Perhaps (1,2),(3,4).</{name}>(100,200),(300,400)", Asked(style="simple"))
    assert (reading.thought, reading.box, reading.fault) == ("Perhaps (1,2),(3,4).", BOX, None)
    kimi = read("◁think▷Perhaps (1,2),(3,4).◁/think▷(100,200),(300,400)", Asked(style="simple"))
    assert (kimi.box, kimi.fault) == (BOX, None)
    escaped = read(
        "&lt;think&gt;(1,2),(3,4)&lt;/think&gt;&lt;answer&gt;(100,200),(300,400)&lt;/answer&gt;", Asked()
    )
    assert (escaped.box, escaped.fault, escaped.formatted) == (BOX, None, False)


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
    ("numbers that a sentence speaks of", "no_box"): [
        "Dogs 1, 2, 3, 4 are brown.",
        "The plate reads 12, 34, 56, 78.",
        "Images 1, 2, 3, 4 show nothing.",
        "图1、2、3、4中都没有。",
        "The sign says '100 200 300 400'.",
        "In 2019, 2020, 2021 and 2022 it rose.",
        "Images of sizes (640, 480) and (800, 600)",
        "rgba(255, 0, 0, 1)",
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
        "(1,2),(3,4),(5,6)",
        "(1,2) (3,4)\n(5,6)",
        "P1(110,200), P2(300,210), P3(290,400)",
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
        (f"{ONE}, image 2", [2]),
        (f"{ONE} belongs to image 2", [2]),
        (f"Image II: {ONE}", [2]),
        (f"Image b: {ONE}", [2]),
        ("Image 2: 100, 200, 300, 400", [2]),
        ("image 2 100 200 300 400", [2]),
        ('{"second_image": [100,200,300,400]}', [2]),
        (f"Both images show it; {ONE} in the second.", [2]),
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
        (f"第二张图片里的狗位于{ONE}", [2]),
        (f"图像2中的目标：{ONE}", [2]),
        (f"图2：{ONE}", [2]),
        (f"第二张图中的坐标为{ONE}", [2]),
        (f"在第二张图中，目标位于{ONE}", [2]),
        (f"{ONE}（第二张图）", [2]),
        (f"最后一张图：{ONE}", [3]),
        ('{"图2": [100,200,300,400]}', [2]),
        (f"{ONE}在图片2中", [2]),
    ],
    "image_idx and image_index, from 0": [
        (f"Image index: 1\n{ONE}", [2]),
        ('{"image_index": [1], "bbox_2d": [100,200,300,400]}', [2]),
        ('{"image_idx": 1, "bbox_2d": [100,200,300,400]}', [2]),
        ('{"bbox_2d": [100,200,300,400], "image_index": 0}', [1]),
        ('{"image_idx": 1, "image_id": 57, "bbox_2d": [100,200,300,400]}', [2]),
    ],
    "image, img and image_number, from 1 unless there is a 0": [
        ('{"image": "second", "bbox_2d": [100,200,300,400]}', [2]),
        ('{"image": 2.0, "bbox_2d": [100,200,300,400]}', [2]),
        (f"Box {ONE}, Image: 2", [2]),
        (f"Image number: 2\n{ONE}", [2]),
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
        (f"| Image | Box |\n|---|---|\n| 1 | {ONE} |\n| 3 | {TWO} |", [1, 3]),
        (
            "| Image | x1 | y1 | x2 | y2 |\n| 1 | 100 | 200 | 300 | 400 |\n| 3 | 500 | 600 | 700 | 800 |",
            [1, 3],
        ),
        ("- bbox: [100,200,300,400]\n  image: 1\n- bbox: [500,600,700,800]\n  image: 3", [1, 3]),
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


def test_an_image_only_named_decides_where_nothing_else_does() -> None:
    for written, images in (
        ('{"bbox_2d": [100,200,300,400], "source": "image 2"}', [1]),
        (f"The first image has it at {ONE}, while the third has it at {TWO}.", [0, 2]),
        (f"{ONE} can be found in the second picture", [1]),
    ):
        assert [placed.image_index for placed in read_answer(written, 3).boxes] == images


NOWHERE = {
    "an image that there is not": [
        '{"image": -1, "bbox_2d": [100,200,300,400]}',
        f"Image 5: {ONE}",
        '{"image": 7, "bbox_2d": [100,200,300,400]}',
        f"{ONE} in the ninth image",
    ],
    "a number that may count from 0 or 1": [
        f"The bottom image: {ONE}",
        '{"image": "left", "bbox_2d": [100,200,300,400]}',
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
        f"Same as the object in image 1: {ONE}",
        f"{ONE}, which is not in image 1",
        f"{ONE}. The first image shows a cat.",
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
