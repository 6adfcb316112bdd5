"""What the words of an answer mean for a box: keys, names of coordinates, fillers, and what names no coordinate."""

from __future__ import annotations

import re
from functools import lru_cache

__all__ = ["FILLERS", "JOINERS", "NOUNS", "ONLY_FIRM", "WORDS", "classify"]

_BOX_KEYS = {
    *("bbox", "bboxes", "bbox2d", "bboxes2d", "bbox2ds", "box", "boxes", "boundingbox", "boundingboxes"),
    *("boundingbox2d", "bndbox", "bbx", "rect", "rectangle", "boundingrect", "det", "boxstart", "beginofbox"),
    *("边界框", "边框", "检测框", "包围盒", "包围框", "目标框", "矩形框", "坐标框"),
}
_Y_FIRST = {"box2d", "boxes2d", "box2ds"}
_POLYGONS = {
    *("quad", "quads", "quadstart", "poly", "polygon", "polygons", "quadrilateral", "vertices"),
    *("corners",),
}
_POINTS = re.compile(
    r"(?:key|positive|negative|click)?(?:points?|coords?points?)(?:2d)?\d{0,2}|click|segmentation|mask"
)
_PASSED_OVER = {
    *("label", "labels", "name", "text", "textcontent", "content", "category", "categoryid", "class"),
    *("classid", "classname", "description", "desc", "caption", "phrase", "ref", "objectrefstart"),
    *("title", "score", "scores", "conf", "confidence", "prob", "probability", "id", "objectid"),
    *("trackid", "reason", "explanation", "color", "ocr", "imagewidth", "imageheight", "imagesize"),
    *("resolution", "area", "object", "thought", "alt", "type", "inputwidth", "inputheight", "size"),
    *("count",),
}
_IMAGE_FROM_0 = re.compile(
    r"(?:image|img|picture|pic|photo|frame)(?:idx|index)|(?:idx|index)(?:of)?(?:image|img|frame)"
)
_IMAGE_FROM_1 = re.compile(
    r"(?:source)?(?:image|img|picture|pic|photo|frame)(?:no|num|number|nr)?|图片?|图像"
)
_IMAGE_BY_ID = re.compile(r"(?:image|img|picture|photo|frame)id")
_LAYOUTS = {
    **dict.fromkeys(("xyxy", "ltrb", "tlbr", "x1y1x2y2"), "x1 y1 x2 y2"),
    **dict.fromkeys(("yxyx", "y1x1y2x2"), "y1 x1 y2 x2"),
    **dict.fromkeys(("xywh", "ltwh", "tlwh"), "x1 y1 w h"),
    **dict.fromkeys(("cxcywh", "ccwh", "xcycwh"), "cx cy w h"),
}
_SLOTS = {
    "x0": "x0", "y0": "y0",
    **dict.fromkeys(("x1", "1x"), "x1"), **dict.fromkeys(("y1", "1y"), "y1"),
    **dict.fromkeys(("x2", "2x"), "x2"), **dict.fromkeys(("y2", "2y"), "y2"),
    **dict.fromkeys(("x3", "3x"), "x3"), **dict.fromkeys(("y3", "3y"), "y3"), "x4": "x4", "y4": "y4",
    **dict.fromkeys(("xmin", "minx", "left", "leftx", "xleft", "startx", "xstart", "tlx", "topleftx", "xtl"), "left"),
    **dict.fromkeys(("ymin", "miny", "top", "topy", "ytop", "starty", "ystart", "tly", "toplefty", "ytl"), "top"),
    **dict.fromkeys(("xmax", "maxx", "right", "rightx", "xright", "endx", "xend", "brx", "bottomrightx", "xbr"),
                    "right"),
    **dict.fromkeys(("ymax", "maxy", "bottom", "bottomy", "ybottom", "endy", "yend", "bry", "bottomrighty", "ybr"),
                    "bottom"),
    **dict.fromkeys(("w", "width", "wide", "宽", "宽度"), "w"), **dict.fromkeys(("h", "height", "高", "高度"), "h"),
    **dict.fromkeys(("cx", "xc", "xcenter", "centerx", "xcentre", "centrex", "xmid", "midx"), "cx"),
    **dict.fromkeys(("cy", "yc", "ycenter", "centery", "ycentre", "centrey", "ymid", "midy"), "cy"),
    **dict.fromkeys(("center", "centre", "centered", "centred", "中心"), "center"),
    **dict.fromkeys(("tl", "lt", "ul", "topleft", "upperleft", "lefttop", "leftupper", "左上", "上左"), "topleft"),
    **dict.fromkeys(("start", "begin", "min"), "topleft"), **dict.fromkeys(("end", "max"), "bottomright"),
    **dict.fromkeys(("tr", "rt", "topright", "upperright", "righttop", "rightupper", "右上", "上右"), "topright"),
    **dict.fromkeys(("bl", "lb", "bottomleft", "lowerleft", "leftbottom", "leftlower", "左下", "下左"), "bottomleft"),
    **dict.fromkeys(("br", "rb", "lr", "bottomright", "lowerright", "rightbottom", "rightlower", "右下", "下右"),
                    "bottomright"),
    **dict.fromkeys(("x", "xs", "xaxis", "xrange", "horizontal", "horizontally", "横坐标", "水平方向", "横向"), "x"),
    **dict.fromkeys(("y", "ys", "yaxis", "yrange", "vertical", "vertically", "纵坐标", "垂直方向", "纵向"), "y"),
    "起点": "topleft", "终点": "bottomright",
    "左": "left", "右": "right", "上": "top", "下": "bottom",
    **dict.fromkeys(("左边界", "左界", "左侧", "左边", "左缘"), "left"),
    **dict.fromkeys(("右边界", "右界", "右侧", "右边", "右缘"), "right"),
    **dict.fromkeys(("上边界", "上界", "上侧", "上边", "上缘"), "top"),
    **dict.fromkeys(("下边界", "下界", "下侧", "下边", "下缘"), "bottom"),
}  # fmt: skip
ONLY_FIRM = {
    *("左", "右", "上", "下", "start", "begin", "end", "min", "max", "tl", "ul", "lr", "lt", "tr"),
    *("rt", "bl", "lb", "br", "rb", "xs", "ys", "wide"),
}
JOINERS = {"to", "and", "到", "至", "和", "与", "以及", "through", "until"}
FILLERS = {"the", "lower", "corner", "box_start", "box_end"}
WORDS = {
    *("位于", "处于", "其", "且", "而", "则", "is", "are", "at", "of", "a", "an", "its", "it"),
    *("coordinate", "coordinates", "coords", "point", "vertex", "edge", "side", "boundary", "border"),
    *("located", "lies", "about", "approximately", "around", "roughly", "from", "between", "value"),
    *("values", "position", "positions", "range", "ranges", "ranging", "span", "spans", "spanning"),
    *("axis", "extends", "extending", "runs", "goes", "starts", "ends", "starting", "ending", "with"),
    *("by", "in", "on", "as", "bounding", "box", "bbox", "respectively", "direction", "then", "was"),
    *("be", "pixel", "pixels", "while", "along", "circa", "ca", "px", "start", "end", "min", "max"),
    *("for", "has", "have", "here", "i", "e", "where", "corners", "whose", "that", "this", "also"),
    *("corresponding", "opposite", "which", "so", "there", "next", "extent", "从", "坐标", "位置"),
    *("范围", "区间", "顶点", "角", "点", "大约", "约", "约为", "分别", "为", "是", "在", "于", "的"),
    *("轴", "值", "边", "处"),
}
NOUNS = {*("image", "images", "picture", "photo", "frame", "img", "图", "图片", "图像", "照片", "画面")}
_PARTS = re.compile(r"[A-Z]?[a-z]+|[A-Z]+(?![a-z])|\d+|[一-鿿]+")
_DECORATION = {
    *("bbox", "box", "coord", "coords", "coordinate", "coordinates", "corner", "point", "px"),
    *("pixel", "edge"),
}


@lru_cache(maxsize=4096)
def classify(word: str) -> tuple[str, str]:
    """Return what a word names when it is a key (box, box_2d, polygon, points, pass, image0, image1, image?, layout,
    or nothing), and the slot it stands for as a coordinate's name."""
    if len(word) > 32:
        return "", ""
    plain = re.sub(r"[_\- ]", "", word.lower()).replace("most", "").replace("hand", "")
    parts = [part.lower() for part in _PARTS.findall(word)]
    bare = "".join(part for part in parts if part not in _DECORATION)
    slot = _SLOTS.get(plain, "") or ("" if bare in ONLY_FIRM else _SLOTS.get(bare, ""))
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
