"""What says that nothing is there, and what does not."""

from __future__ import annotations

import pytest

from univg.grounding.refusals import says_none

ABSENT = [
    *("none", "None.", "**None**", "No", "Nothing", "nothing.", "N/A", "null", "[]", "{}", "no boxes"),
    *("```json\n[]\n```", '{"boxes": []}', '[{"bbox_2d": null}]', '{"objects": [], "count": 0}'),
    "There are no dogs in the images.",
    "There isn't any dog.",
    "There is not any dog.",
    "No red circle is visible in either image.",
    "No such object.",
    "None of the images contain a dog.",
    "Nothing in the images fits.",
    "I cannot find a dog in the picture.",
    "I do not see any red circle.",
    "I see no red circle.",
    "Unable to locate the described object.",
    "The dog is not present in the image.",
    "The requested object isn't here.",
    "The image does not contain a dog.",
    "It doesn't appear in any of these pictures.",
    "Image 1 shows no cat.",
    *("没有", "无", "图中没有狗。", "未找到目标", "两张图片中都不存在红色的圆。", "找不到符合描述的物体"),
]
SAYS_NOTHING_OF_IT = [
    *("", " ", "(", "Image-1", "1", "A red circle on the left.", "The dog is at the left.", "图中的狗在左边"),
    "There is no doubt that it is the dog at the left.",
    "I cannot help with that.",
    "I'm sorry, but I can't assist with that request.",
    "None the less it is the left one.",
    "Nothingness",
    "Not the left but the right one.",
]


@pytest.mark.parametrize("text", ABSENT)
def test_absence(text):
    assert says_none(text)


@pytest.mark.parametrize("text", SAYS_NOTHING_OF_IT)
def test_no_word_of_absence(text):
    assert not says_none(text)
