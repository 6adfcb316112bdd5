"""The words, numbers and brackets of an answer, and what each word can mean for a box.

Tokens are found in one pass. Values that never are a box (labels, points, scores, ids) are passed over here, so that
no number of theirs is taken for a coordinate.
"""

from __future__ import annotations

import html
import re
from collections.abc import Iterator
from typing import Literal, NamedTuple, TypeAlias, cast

from univg.grounding.image_names import ORDINALS
from univg.grounding.vocabulary import FILLERS, JOINERS, NOUNS, ONLY_FIRM, WORDS, classify

__all__ = ["Kind", "Lexed", "Token", "lex", "straighten"]

Kind: TypeAlias = Literal[
    "number",
    "open",
    "close",
    "key",
    "slot",
    "template",
    "image",
    "loc",
    "separator",
    "dash",
    "joiner",
    "filler",
    "word",
    "end",
    "noun",
    "thing",
]
"""``slot``: a coordinate's name; ``template``: an order of four ("xywh"); ``loc``: a location token; ``joiner``: "to",
"and"; ``filler``: may stand between the corners of a box; ``word``: may stand between a name and its number; ``end``: a
closing tag; ``noun``: an image; ``thing``: any other word, which parts what is around it."""


class Token(NamedTuple):
    """One token: ``text`` is a number as written, a bracket, or what a word means; ``firm``: named as in JSON, by a
    colon, an equals sign or a tag; ``mark``: "%" or "px" behind a number ("bad": too long for a coordinate); where an
    image's key counts from, "0", "1" or "?" (not known)."""

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


_STRAIGHT = {
    **{0xFF01 + place: 0x21 + place for place in range(94)},  # the full-width forms of ASCII
    **str.maketrans("₀₁₂₃₄₅₆₇₈₉", "0123456789"),
    **str.maketrans("【】〔〕〈〉《》、。−‘’“”「」～〜≤≦\u00a0\u3000", '[][]<><>,.-\'\'""""~~<<  '),
}


def straighten(text: str) -> str:
    r"""Return the text with full-width digits, signs and brackets, HTML's entities and LaTeX's ways as plain ones.

    >>> straighten("（１０，２０）"), straighten(r"&quot;$x_{\min}$&quot;=\left(1, 2\right)")
    ('(10,20)', '" x_min "= (1, 2 )')
    """
    text = (html.unescape(text) if "&" in text else text).translate(_STRAIGHT)
    if "\\" in text or "$" in text:
        if "\\" in text:
            text = text.replace("$", " ")
        for pattern, plain in _LATEX:
            text = pattern.sub(plain, text)
    return _TABLE.sub(_name_rows, text) if "|" in text else text


_TABLE = re.compile(
    r"^\s?(?:\|?\s?(?P<image>(?:image|picture|photo|frame|图[片像]?)\s?(?:#|no\.?|number|编号)?)\s?\|"
    r"|\|(?!\s?(?:[xy]|left|top|c[xy]\b))[^|\n]{1,20}\|\s?\W{0,2}(?:[xy]|left|top))"
    r".*\n(?:.*\|.*(?:\n|\Z)){1,40}",
    re.IGNORECASE | re.MULTILINE,
)
_ROW = re.compile(r"^(\s?\|?\s?)(\d{1,2})\s?(?=\|)", re.MULTILINE)


def _name_rows(table: re.Match[str]) -> str:
    """Write the images of a table, whose first column numbers them, as names: "| 2 |" as "| image 2: |"; other numbers
    before coordinates are left out."""
    return _ROW.sub(r"\1image \2:" if table["image"] else r"\1", table[0])


_LATEX = [
    (re.compile(pattern), plain)
    for pattern, plain in (
        (r"\\(?:text|math)(?:bf|it|rm|tt)?\s?\{([^{}\\]{0,40})\}", r"\1"),
        (r"(?<![A-Za-z])([A-Za-z])_(?:\{\s?\\?|\\)([A-Za-z]{1,8}|\d)(?:\s?\})?", r"\1_\2"),
        (r"\\(?:left|right|[bB]igg?[lr]?|[,;! ]|q?quad)(?![A-Za-z])", " "),
        (r"\\(?:[lL]ong)?rightarrow(?![A-Za-z])", "→"),
        (r"\\leq?(?![A-Za-z])", "<"),
        (r"\\[nrt](?![a-z])", "\n"),  # escaped twice
        (r"\\(?:begin|end)\{[a-z]{1,9}\*?\}", " "),
        (r"(?<=\d)\s?(?:&|\\\\)\s?(?=\d)", ", "),
        (r"\$(?=\s?[(\[])|(?<=[)\]])\s?\$", " "),
    )
]


# Every repetition is followed by something it cannot itself match, or bounded: linear on any text.
_TOKEN = re.compile(
    r"""
      (?P<loc><\s?(?:loc_?|(?P<patch>patch_index_))(?P<bin>\d{1,4})\s?>)
    | (?P<special><\|(?P<which>/?\w{1,24})\|>)
    | (?P<end></\s{0,2}\w{1,24}\s{0,2}>)
    | (?P<blur>(?<!\d)[~≈](?=\d))
    | (?P<measure>(?<![A-Za-z])(?:(?:sizes?|resolutions?)(?:[ ](?:is|are|of))?[ ]?[:=]?[ ]?
        (?:[(\[]\s?\d{1,5}\s?,\s?\d{1,5}\s?[)\]](?:[ ]?(?:,|and)[ ]?)?){1,8}
      |(?:rgba?|hs[lv]|colou?r)[ ]?[:=]?[ ]?[(\[][\d\s.,%]{1,40}[)\]]))
    | (?P<bullet>(?:(?<=\n)|\A)[ \t]{0,8}[-*+•][ \t]{1,3}(?=[+-]?\.?\d))
    | (?P<number>(?<![A-Za-z\d])(?<!(?<!\.)\.)[+-]?(?:\d+(?:\.\d+|\.(?=\s{0,8}[,;)\]}]))?|\.\d+)(?:[eE][+-]?\d+)?)
      [ ]?(?P<mark>%|(?:px|pixels?)(?![A-Za-z])|像素)?(?![A-Za-z\d])
    | (?P<corner>(?<![A-Za-z])(?:top|upper|bottom|lower|left|right)(?:most)?[ -](?:hand[ -])?
      (?:left|right|top|upper|bottom|lower)(?:most)?(?![A-Za-z]))
    | (?P<nth>(?:(?<![A-Za-z])(?:p|pt|corner|vertex)[ _-]?|顶点[ ]?|角点?[ ]?)[1-4](?![\w.,])[*"'`]{0,3}
      (?:[ ]?(?:is[ ](?:located[ ])?at|is|at|为|是|在)\b[ ]?)?(?=\s?[:=]?\s?[*"'`]{0,3}\s?(?:[(\[{]|x\s?[:=])))
    | (?P<extreme>(?<![A-Za-z])(?:(?:min|max)(?:imum)?[ -][xy]|[xy][ -](?:min|max)(?:imum)?)(?![A-Za-z\d])
      |最[小大]的?[xy](?:坐标|值)?|(?<![A-Za-z])[xy](?:轴|坐标)?的?最[小大]值?)
    | (?P<image>(?<![A-Za-z])(?:image|img|picture|photo|frame)[ ](?:number|num|no|index|idx|id)(?=["'*]{0,3}\s?[:=]))
    | (?P<named>(?:(?<![A-Za-z])(?:image|img|picture|photo|frame|figure)[ ]|图[片像]?[ ]?)\d{1,2}(?![\w.%]|\s{0,4}[,;]))
    | (?P<word>[A-Za-z][A-Za-z0-9_]*)
    | (?P<chinese>左上|右下|右上|左下|上左|下右|上右|下左|中心
      |左边?界|右边?界|上边?界|下边?界|左[侧边缘]|右[侧边缘]|上[侧边缘]|下[侧边缘]|横坐标|纵坐标|水平方向|垂直方向|横向|纵向|宽度?|高度?|边界框|边框|检测框|包围盒|包围框|目标框|矩形框|坐标框
      |起点|终点|位于|处于|其|且|而|则|从|到|至|和|与|以及|坐标|位置|范围|区间|顶点|角|点|大约|约为?|分别|为|是|在|于|的|轴|值|边|处|图片?|图像|照片|画面|[左右上下])
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
_OPENS_VALUE = re.compile(
    r"\\?(?P<quote>[\"'])|(?P<number>[+-]?\d+(?:\.\d*)?%?)(?![\w.])|(?P<list>[\[{])|null|true|false"
)
_IMAGE_VALUE = re.compile(
    r"(?:\s(?:id|no|number|index)\s?=\s?)?(?P<list>\[\s?)?\\?[\"']?"
    rf"(?:(?P<digits>-?\d{{1,4}})(?:\.0)?|(?P<word>{'|'.join(ORDINALS)})|(?P<side>left|right|last|final|other))"
    r"(?![\w.]|\s?,\s?\d|[\"']?\s\w)(?(list)[\"']?\s?\])",
    re.IGNORECASE,
)


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
                yield Token(
                    "number",
                    start,
                    self.at,
                    match["number"] if sound else "0",
                    mark=_MARKS[mark[:1]] if sound else "bad",
                )
            elif match["loc"]:
                yield Token("loc", start, self.at, match["bin"], mark="patch" if match["patch"] else "")
            elif match["special"]:
                yield from self._name(match["which"], start, tag=True)
            elif group == "measure":
                yield Token("thing", start, self.at)
            elif group == "nth":  # the order says as much
                yield Token("filler", start, self.at, " ")
            elif group == "extreme":
                low = match[0].lower()
                end = "max" if "max" in low or "大" in low else "min"
                yield from self._name(("x" if "x" in low.replace("max", "") else "y") + end, start, tag=False)
            elif group == "image":
                yield from self._name(match[0].replace(" ", ""), start, tag=False)
            elif group == "named":
                yield Token("noun", start, self.at, "image")
                yield Token("word", self.at, self.at)  # what follows is not led by the noun
            elif group in ("word", "corner", "chinese"):
                yield from self._name(match[group], start, tag=self.text[max(0, start - 1) : start] == "<")
            elif group == "quiet":
                yield Token("dash" if match[0][0] in "-–—~→." else "filler", start, self.at, match[0])
            elif group == "stop":
                yield Token("word", start, self.at, ".")
            elif group in ("open", "close", "separator", "end"):
                yield Token(cast(Kind, group), start, self.at, match[0])

    def _name(self, word: str, start: int, tag: bool) -> Iterator[Token]:
        end, low = self.at, word.lower()
        if tag and (low.startswith("/") or low.endswith(("_end", "end_of_box"))):
            yield Token("end", start, end, low)
            return
        sign = None if tag else _KEYED.match(self.text, end)
        firm = tag or sign is not None
        quoted = self.text[max(0, start - 1) : start] in ("'", '"')
        value_at = sign.end() if sign else end
        key, slot = classify(word)
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
        elif slot and (firm or low not in ONLY_FIRM):
            yield Token("slot", start, end, slot, firm)
        elif low in JOINERS:
            yield Token("joiner", start, end, low)
        elif low in FILLERS:
            yield Token("filler", start, end, low)
        elif firm and not tag and (quoted or low not in WORDS):
            yield Token("key", start, end, "other", True)
        elif low in NOUNS:
            yield Token("noun", start, end, low)
        else:
            yield Token("word" if low in WORDS or tag else "thing", start, end, low)

    def _pass_over(self, value_at: int, tag: bool, key: str, quoted: bool) -> bool:
        """Move behind a value that is no box; False where there is none of that kind."""
        if tag:
            if (
                key == "pass"
                and self.text[value_at - 1] != ">"
                and self.text[value_at : value_at + 1].isspace()
            ):
                return False  # attributes
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
        """Return the number beside an image's key (-1: it cannot be told), and move behind it; "": there is none."""
        if tag and self.text[value_at : value_at + 1] == ">":
            value_at += 1
        match = _IMAGE_VALUE.match(self.text, value_at)
        if match is None:
            return ""
        self.at = match.end()
        if match["word"]:
            return str(ORDINALS.index(match["word"].lower()) + 1)
        return match["digits"] or "-1"


_BRACKET = re.compile(r"[\[\](){}]")
_SOUND = re.compile(r"[+-]?(?:\d{1,9}(?:\.\d{0,40})?|\.\d{1,40})(?:[eE][+-]?\d{1,2})?")
_MARKS = {"": "", "%": "%", "p": "px", "P": "px", "像": "px"}
