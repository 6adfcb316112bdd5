"""The words, numbers and brackets of an answer, and what each word can mean for a box.

Tokens are found in one pass. Values that never are a box (labels, points, scores, ids) are passed over here, so that
no number of theirs is taken for a coordinate.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from functools import lru_cache
from typing import Literal, NamedTuple, TypeAlias

__all__ = ["Kind", "Lexed", "Token", "lex", "straighten"]

Kind: TypeAlias = Literal[
    *("number", "open", "close", "key", "slot", "template", "image", "loc"),
    *("separator", "dash", "joiner", "filler", "word", "end", "noun", "thing"),
]
"""``joiner``: "to", "and"; ``filler``: may stand between the corners of a box; ``word``: may stand between a name and its
number; ``noun``: an image; ``thing``: any other word, which parts what is around it; ``end``: a closing tag."""


class Token(NamedTuple):
    """One token: ``text`` is a number as written, a bracket, or what a word means; ``firm``: named as in JSON, by a
    colon, an equals sign or a tag; ``mark``: "%" or "px" behind a number ("bad": it is too long to be a coordinate), "0" or "1" of an image's key."""

    kind: Kind
    start: int
    end: int
    text: str = ""
    firm: bool = False
    mark: str = ""


class Lexed(NamedTuple):
    """An answer's tokens, and its text with what was passed over blanked out, position by position."""

    tokens: list[Token]
    text: str


_WIDE = "（）［］｛｝【】〔〕〈〉《》，；：−＜＞％＝＂＋－．／｜＿、。０１２３４５６７８９‘’“”「」～〜≤≦\u00a0\u3000"
_PLAIN = "()[]{}[]()<><>,;:-<>%=\"+-./|_,.0123456789''\"\"\"\"~~<<  "
_STRAIGHT = str.maketrans(_WIDE, _PLAIN)


def straighten(text: str) -> str:
    """Return the text with full-width digits, signs and brackets as plain ones, every position kept.

    >>> straighten("（１０，２０）")
    '(10,20)'
    """
    return text.translate(_STRAIGHT)


# Every repetition is followed by something it cannot itself match, or bounded: linear on any text.
_TOKEN = re.compile(
    r"""
      (?P<loc><\s?loc_?(?P<bin>\d{1,4})\s?>)
    | (?P<special><\|(?P<which>/?\w{1,24})\|>)
    | (?P<end></\s{0,2}\w{1,24}\s{0,2}>)
    | (?P<number>(?<![A-Za-z\d])(?<!(?<!\.)\.)[+-]?(?:\d+(?:\.(?!\.)\d*)?|\.\d+)(?:[eE][+-]?\d+)?)
      [ ]?(?P<mark>%|(?:px|pixels?)(?![A-Za-z])|像素)?(?![A-Za-z\d])
    | (?P<corner>(?<![A-Za-z])(?:top|upper|bottom|lower|left|right)(?:most)?[ -](?:hand[ -])?
      (?:left|right|top|upper|bottom|lower)(?:most)?(?![A-Za-z]))
    | (?P<word>[A-Za-z][A-Za-z0-9_]*)
    | (?P<chinese>左上|右下|右上|左下|上左|下右|上右|下左|中心|左边?界|右边?界|上边?界|下边?界|左[侧边缘]|右[侧边缘]|上[侧边缘]
      |下[侧边缘]|横坐标|纵坐标|水平方向|垂直方向|横向|纵向|宽度?|高度?|边界框|边框|检测框|包围盒|包围框|目标框|矩形框|坐标框
      |从|到|至|和|与|以及|坐标|位置|范围|区间|顶点|角|点|大约|约为?|分别|为|是|在|于|的|轴|值|边|处|图片?|图像|照片|画面)
    | (?P<open>[(\[{])
    | (?P<close>[)\]}])
    | (?P<separator>[,;\n])
    | (?P<blank>[ \t\r\f\v]+)
    | (?P<quiet>\.{2,3}|[_:=\"'*<>|`\\∈~≈→–—-])
    | (?P<stop>[.!?](?=\s|$))
    """,
    re.VERBOSE | re.IGNORECASE,
)
_KEYED = re.compile(r"[\"'*`\\]{0,3}\s{0,3}(?P<sign>:|=>|=)\s{0,3}")
_OPENS_VALUE = re.compile(r"\\?(?P<quote>[\"'])|(?P<number>[+-]?\d+(?:\.\d*)?%?)(?![\w.])|(?P<list>[\[{])|null|true|false")
_FILE_OR_WORDS = re.compile(r"\\?[\"']?(?P<digits>\d{1,4})(?![\w.])")

_BOX_KEYS = {
    *("bbox", "bboxes", "bbox2d", "bboxes2d", "bbox2ds", "box", "boxes", "boundingbox", "boundingboxes"),
    *("boundingbox2d", "bndbox", "bbx", "rect", "rectangle", "boundingrect", "det", "boxstart", "beginofbox"),
    *("边界框", "边框", "检测框", "包围盒", "包围框", "目标框", "矩形框", "坐标框"),
}
_Y_FIRST = {"box2d", "boxes2d", "box2ds"}
_POLYGONS = {"quad", "quads", "quadstart", "poly", "polygon", "polygons", "quadrilateral", "vertices", "corners"}
_POINTS = re.compile(r"(?:key|positive|negative|click)?(?:points?|coords?points?)(?:2d)?\d{0,2}|click|segmentation|mask")
_PASSED_OVER = {
    *("label", "labels", "name", "text", "textcontent", "content", "category", "categoryid", "class", "classid"),
    *("classname", "description", "desc", "caption", "phrase", "ref", "objectrefstart", "title", "score", "scores"),
    *("conf", "confidence", "prob", "probability", "id", "objectid", "trackid", "reason", "explanation", "color"),
    *("ocr", "imagewidth", "imageheight", "imagesize", "resolution", "area", "object", "thought", "alt", "type"),
    *("inputwidth", "inputheight", "size", "count"),
}
_IMAGE_FROM_0 = re.compile(r"(?:image|img|picture|pic|photo|frame)(?:idx|index)|(?:idx|index)(?:of)?(?:image|img|frame)")
_IMAGE_FROM_1 = re.compile(r"(?:image|img|picture|pic|photo|frame)(?:no|num|number|nr)?|source(?:image|img)|图片?|图像")
_IMAGE_BY_ID = re.compile(r"(?:image|img|picture|photo|frame)id")
_LAYOUTS = {
    **{"xyxy": "x1 y1 x2 y2", "ltrb": "x1 y1 x2 y2", "tlbr": "x1 y1 x2 y2", "x1y1x2y2": "x1 y1 x2 y2"},
    **{"yxyx": "y1 x1 y2 x2", "y1x1y2x2": "y1 x1 y2 x2", "xywh": "x1 y1 w h", "ltwh": "x1 y1 w h"},
    **{"tlwh": "x1 y1 w h", "cxcywh": "cx cy w h", "ccwh": "cx cy w h", "xcycwh": "cx cy w h"},
}
_SLOTS = {
    **dict.fromkeys(("x0",), "x0"), **dict.fromkeys(("y0",), "y0"),
    **dict.fromkeys(("x1", "1x"), "x1"), **dict.fromkeys(("y1", "1y"), "y1"),
    **dict.fromkeys(("x2", "2x"), "x2"), **dict.fromkeys(("y2", "2y"), "y2"),
    **dict.fromkeys(("xmin", "minx", "left", "leftx", "xleft", "startx", "xstart", "tlx", "topleftx", "xtl"), "left"),
    **dict.fromkeys(("ymin", "miny", "top", "topy", "ytop", "starty", "ystart", "tly", "toplefty", "ytl"), "top"),
    **dict.fromkeys(("xmax", "maxx", "right", "rightx", "xright", "endx", "xend", "brx", "bottomrightx", "xbr"), "right"),
    **dict.fromkeys(("ymax", "maxy", "bottom", "bottomy", "ybottom", "endy", "yend", "bry", "bottomrighty", "ybr"),
                    "bottom"),
    **dict.fromkeys(("w", "width", "wide", "宽", "宽度"), "w"), **dict.fromkeys(("h", "height", "高", "高度"), "h"),
    **dict.fromkeys(("cx", "xc", "xcenter", "centerx", "xcentre", "centrex", "centrex", "xmid", "midx"), "cx"),
    **dict.fromkeys(("cy", "yc", "ycenter", "centery", "ycentre", "centrey", "ymid", "midy"), "cy"),
    **dict.fromkeys(("center", "centre", "中心"), "center"),
    **dict.fromkeys(("tl", "lt", "topleft", "upperleft", "lefttop", "leftupper", "左上", "上左"), "topleft"),
    **dict.fromkeys(("start", "begin", "min", "p1"), "topleft"), **dict.fromkeys(("end", "max", "p2"), "bottomright"),
    **dict.fromkeys(("tr", "rt", "topright", "upperright", "righttop", "rightupper", "右上", "上右"), "topright"),
    **dict.fromkeys(("bl", "lb", "bottomleft", "lowerleft", "leftbottom", "leftlower", "左下", "下左"), "bottomleft"),
    **dict.fromkeys(("br", "rb", "bottomright", "lowerright", "rightbottom", "rightlower", "右下", "下右"), "bottomright"),
    **dict.fromkeys(("x", "xs", "xaxis", "xrange", "horizontal", "horizontally", "横坐标", "水平方向", "横向"), "x"),
    **dict.fromkeys(("y", "ys", "yaxis", "yrange", "vertical", "vertically", "纵坐标", "垂直方向", "纵向"), "y"),
    **dict.fromkeys(("左边界", "左界", "左侧", "左边", "左缘"), "left"),
    **dict.fromkeys(("右边界", "右界", "右侧", "右边", "右缘"), "right"),
    **dict.fromkeys(("上边界", "上界", "上侧", "上边", "上缘"), "top"),
    **dict.fromkeys(("下边界", "下界", "下侧", "下边", "下缘"), "bottom"),
}  # fmt: skip
_ONLY_FIRM = {"start", "begin", "end", "min", "max", "p1", "p2", "tl", "lt", "tr", "rt", "bl", "lb", "br", "rb", "xs", "ys", "wide"}
_JOINERS = {"to", "and", "到", "至", "和", "与", "以及", "through", "until"}
_FILLERS = {"the", "lower", "corner", "box_start", "box_end"}
_WORDS = {
    *("is", "are", "at", "of", "a", "an", "its", "it", "coordinate", "coordinates", "coords", "point", "vertex", "edge"),
    *("side", "boundary", "border", "located", "lies", "about", "approximately", "around", "roughly", "from", "between"),
    *("value", "values", "position", "positions", "range", "ranges", "ranging", "span", "spans", "spanning", "axis"),
    *("extends", "extending", "runs", "goes", "starts", "ends", "starting", "ending", "with", "by", "in", "on", "as"),
    *("bounding", "box", "bbox", "respectively", "direction", "then", "was", "be", "pixel", "pixels", "while", "along"),
    *("circa", "ca", "px", "start", "end", "min", "max", "for", "has", "have", "here", "i", "e", "where", "corners"),
    *("whose", "that", "this", "also", "corresponding", "opposite", "which", "so", "there", "next", "extent"),
    *("从", "坐标", "位置", "范围", "区间", "顶点", "角", "点", "大约", "约", "约为", "分别", "为", "是", "在", "于", "的"),
    *("轴", "值", "边", "处"),
}
_NOUNS = {*("image", "images", "picture", "photo", "frame", "img", "图", "图片", "图像", "照片", "画面")}
_PARTS = re.compile(r"[A-Z]?[a-z]+|[A-Z]+(?![a-z])|\d+|[一-鿿]+")
_DECORATION = {"bbox", "box", "coord", "coords", "coordinate", "coordinates", "corner", "point", "px", "pixel", "edge"}


@lru_cache(maxsize=4096)
def _classify(word: str) -> tuple[str, str]:
    """Return what a word names when it is a key (box, box_2d, polygon, points, pass, image0, image1, image?, layout,
    or nothing), and the slot it stands for as a coordinate's name."""
    if len(word) > 32:
        return "", ""
    plain = re.sub(r"[_\- ]", "", word.lower()).replace("most", "").replace("hand", "")
    parts = [part.lower() for part in _PARTS.findall(word)]
    bare = "".join(part for part in parts if part not in _DECORATION)
    slot = _SLOTS.get(plain, "") or ("" if bare in _ONLY_FIRM else _SLOTS.get(bare, ""))
    key = ""
    if plain in _BOX_KEYS:
        key = "box"
    elif plain in _Y_FIRST:
        key = "box_2d"
    elif plain in _POLYGONS:
        key = "polygon"
    elif _POINTS.fullmatch(plain):
        key = "points"
    elif plain in _PASSED_OVER:
        key = "pass"
    elif _IMAGE_FROM_0.fullmatch(plain):
        key = "image0"
    elif _IMAGE_BY_ID.fullmatch(plain):
        key = "image?"
    elif _IMAGE_FROM_1.fullmatch(plain):
        key = "image1"
    layout = _LAYOUTS.get("".join(part for part in parts if part not in _DECORATION and part != "2"), "")
    return (key, slot) if not layout else ("layout", layout)


def lex(text: str) -> Lexed:
    """Find the tokens of a text that :func:`straighten` has straightened."""
    scan = _Scan(text)
    tokens = list(scan.run())
    return Lexed(tokens, scan.masked())


class _Scan:
    """One pass over a text: where it stands, and what it has passed over."""

    def __init__(self, text: str) -> None:
        self.text = text
        self.at = 0
        self.blanked: list[tuple[int, int]] = []
        self.unclosed: set[str] = set()

    def masked(self) -> str:
        parts, done = [], 0
        for start, end in self.blanked:
            parts += [self.text[done:start], " " * (end - start)]
            done = end
        return "".join([*parts, self.text[done:]])

    def run(self) -> Iterator[Token]:
        while self.at < len(self.text):
            match = _TOKEN.match(self.text, self.at)
            start = self.at
            if match is None:
                self.at += 1
                if not self.text[start].isspace():
                    yield Token("thing", start, self.at)
                continue
            self.at = match.end()
            group = match.lastgroup or ""
            if match["number"] is not None:
                sound = _SOUND.fullmatch(match["number"]) is not None
                mark = match["mark"] or ""
                yield Token("number", start, self.at, match["number"] if sound else "0", mark=_MARKS[mark[:1]] if sound else "bad")
            elif match["loc"]:
                yield Token("loc", start, self.at, match["bin"])
            elif match["special"]:
                yield from self._name(match["which"], start, tag=True)
            elif group in ("word", "corner", "chinese"):
                yield from self._name(match[group], start, tag=self.text[max(0, start - 1) : start] == "<")
            elif group == "quiet":
                yield Token("dash" if match[0][0] in "-–—~→." else "filler", start, self.at, match[0])
            elif group == "stop":
                yield Token("word", start, self.at, ".")
            elif group in ("open", "close", "separator", "end"):
                yield Token(group, start, self.at, match[0])  # type: ignore[arg-type]  # they are kinds

    def _name(self, word: str, start: int, tag: bool) -> Iterator[Token]:
        end, low = self.at, word.lower()
        if tag and (low.startswith("/") or low.endswith(("_end", "end_of_box"))):
            yield Token("end", start, end, low)
            return
        sign = None if tag else _KEYED.match(self.text, end)
        firm = tag or sign is not None
        quoted = self.text[max(0, start - 1) : start] in ("'", '"')
        value_at = sign.end() if sign else end
        key, slot = _classify(word)
        if key == "layout":
            yield Token("template", start, end, slot, firm)
            if firm:
                yield Token("key", start, end, "box", True)
        elif firm and key in ("pass", "points"):
            if self._pass_over(value_at, tag, key, quoted):
                yield Token("separator", start, end, ",")
            else:
                yield Token("key", start, end, "other", True)
        elif firm and key.startswith("image") and (number := self._read_image(value_at, tag)):
            yield Token("image", start, self.at, number, True, key[5:])
        elif firm and key in ("box", "box_2d", "polygon"):
            yield Token("key", start, end, key, True)
        elif slot and (firm or low not in _ONLY_FIRM):
            yield Token("slot", start, end, slot, firm)
        elif low in _JOINERS:
            yield Token("joiner", start, end, low)
        elif low in _FILLERS:
            yield Token("filler", start, end, low)
        elif firm and not tag and (quoted or low not in _WORDS):
            yield Token("key", start, end, "other", True)
        elif low in _NOUNS:
            yield Token("noun", start, end, low)
        else:
            yield Token("word" if low in _WORDS or tag else "thing", start, end, low)

    def _pass_over(self, value_at: int, tag: bool, key: str, quoted: bool) -> bool:
        """Move behind a value that is no box; False where there is none of that kind."""
        if tag:
            end = self.text.find("<", value_at)
            self._blank(value_at, len(self.text) if end < 0 else end)
            return True
        value = _OPENS_VALUE.match(self.text, value_at)
        if value is None:
            return False
        if value["quote"]:
            self._blank(value_at, self._find_quote(value.end(), value[0]))
        elif value["list"]:
            if key != "points" and (not quoted or value["list"] == "{"):
                return False
            self._blank(value_at, self._find_close(value.start()))
        else:
            self._blank(value_at, value.end())
        return True

    def _blank(self, start: int, end: int) -> None:
        self.blanked.append((start, end))
        self.at = end

    def _find_quote(self, at: int, quote: str) -> int:
        """Find the end of a string; one that is never closed was broken off."""
        while quote not in self.unclosed:
            end = self.text.find(quote, at)
            if end < 0:
                self.unclosed.add(quote)
            elif len(quote) == 1 and self.text[end - 1] == "\\":
                at = end + 1
            else:
                return end + len(quote)
        return len(self.text)

    def _find_close(self, at: int) -> int:
        depth = 0
        for match in _BRACKET.finditer(self.text, at):
            depth += 1 if match[0] in "[{(" else -1
            if depth == 0:
                return match.end()
        return len(self.text)

    def _read_image(self, value_at: int, tag: bool) -> str:
        """Return the number beside an image's key, and move behind it; "" if there is none."""
        while tag and self.text[value_at : value_at + 1] in (">", " "):
            value_at += 1
        match = _FILE_OR_WORDS.match(self.text, value_at)
        if match is None:
            return ""
        self.at = match.end()
        return match["digits"]


_BRACKET = re.compile(r"[\[\](){}]")
_SOUND = re.compile(r"[+-]?(?:\d{1,9}(?:\.\d{0,40})?|\.\d{1,40})(?:[eE][+-]?\d{1,2})?")
_MARKS = {"": "", "%": "%", "p": "px", "P": "px", "像": "px"}
