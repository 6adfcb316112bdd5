"""What an image is called: "the second image", "Image-2", "Fig. 1", "image A", "the left image", 第二张图, 图2."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import NamedTuple

__all__ = ["NAME", "NOUN", "ORDINALS", "ImageName", "find_names", "names_all"]


class ImageName(NamedTuple):
    """Where a text names an image, and which, from 0; -1: none that there is, or none that can be told."""

    start: int
    end: int
    image: int


ORDINALS = (
    *("first", "second", "third", "fourth", "fifth", "sixth"),
    *("seventh", "eighth", "ninth", "tenth", "eleventh", "twelfth"),
)
_CARDINALS = (
    *("one", "two", "three", "four", "five", "six"),
    *("seven", "eight", "nine", "ten", "eleven", "twelve"),
)
_ROMAN = ("I", "II", "III", "IV", "V", "VI", "VII", "VIII")
_CHINESE = ("一", "二", "三", "四", "五", "六", "七", "八", "九", "十", "十一", "十二")
NOUN = r"(?:images?|imgs?|pictures?|pics?|photos?|photographs?|frames?|screenshots?|fig(?:ure)?s?\b\.?)"
_HAN_NOUN = r"(?:图片|图像|图|照片|相片|画面|影像|截图|帧)"
_MEASURE = r"(?:张|幅|个|副|帧|枚)"
# 第二张 alone is an image where no other thing is counted (第二张桌子, 第二个人).
_ALONE = r"(?:张|幅|帧)(?=[中里内上的,.:;!?()\[\]\s，。：；！？（）、]|\Z|有|是|显示|展示|没)"
_HAN_NUMBER = r"十[一二]?|[一二两三四五六七八九]"
NAME = re.compile(
    rf"""
      \b(?P<ordinal>{"|".join(ORDINALS)}|last|final|(?P<nth>\d{{1,3}})[ -]?(?:st|nd|rd|th))
      [ _-]{{1,2}}
      (?:(?:given|input|provided|video|target|query|of[ ](?:the|these|those)(?:[ ]\w{{1,9}})?)[ ]){{0,2}}
      (?:{NOUN}\b|(?<=[ ])one\b(?=[ ]?(?:[.,;:!?)(\[<]|$|is\b|has\b|shows?\b)))
    | \b(?:{NOUN})[ ]?[-_#(:]{{0,2}}[ ]?(?:no\.?[ ]?|number[ ])?
      (?:(?P<number>\d{{1,3}})(?!\w|[.,]\d|[ ]?(?:%|times\b|st\b|nd\b|rd\b|th\b))
       |(?P<cardinal>{"|".join(_CARDINALS[1:])}|one(?=\s*(?:[.,;:!?)]|$|is\b|has\b|shows?\b|and\b|contains?\b)))\b
       |(?P<letter>(?-i:[A-H]))(?![\w’'-](?!s\b)|(?<=(?-i:A))[ ](?-i:[a-z])(?!s\b|n?d?\b(?:is|and|or|has|to|but))))
    | \b(?:{NOUN})[ ]?\(?(?:(?P<small>(?-i:[a-h]))|(?P<roman>(?-i:I{{1,3}}|IV|VI{{0,3}})))(?=[ ]?\)?:|[ ]?[)\]])
    | \bthe[ ](?P<bare>{"|".join(ORDINALS)}|last)(?=[ ](?:has|shows|contains|one[ ](?:has|shows))\b)
    | (?<=\bin[ ]the[ ])(?P<within>{"|".join(ORDINALS)}|last)(?=[ ]?(?:[.,;:)]|$|(?:and|while|but|has|shows)\b))
    | \b(?P<stacked>top|bottom|upper|lower|middle)[ ](?:{NOUN})\b(?![ ]frames?\b)
    | \b(?P<source>source)[ -](?:{NOUN})\b
    | \b(?P<side>left|right)(?:-?hand)?(?:[ ]side)?[ _-](?:{NOUN})\b(?![ ]frames?\b)
    | \b(?:{NOUN})[ ](?:on|at|to)[ ](?:the|your)[ ](?P<on>left|right)(?:[ -]hand[ ]side)?\b
    | 第[ ]?(?:(?P<han_nth>{_HAN_NUMBER})|(?P<han_digit>\d{{1,3}}))[ ]?
      (?:{_MEASURE}?{_HAN_NOUN}|{_ALONE})
    | {_HAN_NOUN}[ ]?[-_#(（:：]?[ ]?(?:(?P<han_number>\d{{1,3}})(?![\d.,]\d|\d|[张幅个只%])
      |(?P<han_cardinal>{_HAN_NUMBER})(?![张幅个只样致起点些条块些定半直共切])|(?P<han_letter>(?-i:[A-H]))(?![A-Za-z]))
    | (?P<han_last>(?:最后一?|末)(?:{_MEASURE}?{_HAN_NOUN}|{_ALONE}))
    | (?P<han_first>首(?:{_MEASURE}?{_HAN_NOUN}|{_ALONE}))
    | (?P<han_side>[左右])(?:边|侧|面|方)?的?(?:那|这)?一?{_MEASURE}?{_HAN_NOUN}(?!案|形|标)
    """,
    re.IGNORECASE | re.VERBOSE,
)
_ONE_AFTER = re.compile(r"\b(?:in|on|from|of|within|to)\W{1,3}(?:the\W{1,2})?\Z", re.IGNORECASE)
_TOGETHER = re.compile(
    rf"\b(?:both|all|each|every|these|either|across|between|(?:the|of) (?:{'|'.join(_CARDINALS[1:])}))"
    rf"(?: (?:of|the|these|those|given|other|{'|'.join(_CARDINALS[1:])})){{0,3}} (?:{NOUN})\b"
    r"|\bin both\b|\b(?:all|each|both) of (?:them|these)\b"
    rf"|(?:两|二|三|四|所有|全部|每|各|这些|几)的?{_MEASURE}?{_HAN_NOUN}",
    re.IGNORECASE,
)
_OTHERS = re.compile(
    rf"\b(?:other|remaining)(?: \w{{1,20}})? (?:{NOUN})\b|\bthe others\b"
    rf"|(?:另一?|其他|其它|其余){_MEASURE}?{_HAN_NOUN}?",
    re.IGNORECASE,
)


def find_names(n_images: int, text: str, first: int = 1) -> Iterator[ImageName]:
    """Yield the images that a text names, in its order. ``first`` is the number of the first image: 1, or 0.

    Left and right are those of two images; of more, it cannot be told.

    >>> [name.image for name in find_names(3, "第二张图, Fig. 1, image C, the last photo, image 7")]
    [1, 0, 2, 2, -1]
    """
    for match in NAME.finditer(text):
        image = _read_name(match, n_images, first)
        if match[0][-3:].lower() == "one" and not _is_one(match, text):
            continue
        yield ImageName(match.start(), match.end(), image if 0 <= image < n_images else -1)


def _is_one(match: re.Match[str], text: str) -> bool:
    """Tell whether "the second one" is an image: "in the second one", but not "Where is the second one?"."""
    if match["cardinal"]:
        return True
    return _ONE_AFTER.search(text, max(0, match.start() - 12), match.start()) is not None


def names_all(text: str, named: bool) -> bool:
    """Tell whether a text speaks of all images ("both images"), or of "the others" beside one that is ``named``."""
    return bool(_TOGETHER.search(text) or (named and _OTHERS.search(text)))


def _read_name(match: re.Match[str], n_images: int, first: int) -> int:
    if match["source"] or match["han_first"]:
        return 0
    if number := match["number"] or match["han_number"]:
        return int(number) - first
    if number := match["nth"] or match["han_digit"]:
        return int(number) - 1
    if match["cardinal"]:
        return _CARDINALS.index(match["cardinal"].lower())
    if number := match["han_nth"] or match["han_cardinal"]:
        return _CHINESE.index(number.replace("两", "二"))
    if letter := match["letter"] or match["han_letter"] or match["small"]:
        return ord(letter.upper()) - ord("A")
    if match["roman"]:
        return _ROMAN.index(match["roman"])
    if match["stacked"]:
        return -1
    if side := match["side"] or match["on"] or match["han_side"]:
        return (0 if side.lower() in ("left", "左") else 1) if n_images == 2 else -1
    word = (match["ordinal"] or match["bare"] or match["within"] or "last").lower()
    return n_images - 1 if word in ("last", "final") else ORDINALS.index(word)
