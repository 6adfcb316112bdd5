"""Give the pictures of a question their looks: version 2 of the world, where the same scenes are drawn in many ways.

A plain look (flat things on a plain ground, nothing else) is the most frequent: it is what a person draws first.
"""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import replace
from typing import TypeAlias

from univg.world.grounds import TEXTURED, list_tones
from univg.world.looks import FINISHES, RGB, Look, contrast, draw_palette, shade, tint
from univg.world.painting import CLEAR, MARK
from univg.world.scene import Background, Crop, Scene, Studio
from univg.world.wider import WideStudio
from univg.world.wordings.names import names_solid_or_ring

Shots: TypeAlias = tuple[Scene | Crop, ...]
ONE_LOOK = frozenset({"diff", "view_diff", "object_tracking", "multi_view", "video", "region"})
"""Families that ask what is different, or where something went, between pictures of one scene."""
ONE_PALETTE = frozenset({"reasoning"})
PLAIN = {True: 0.6, False: 0.3}
"""The share of plain looks, of simple questions and of the others."""


def dress(shots: Shots, studio: WideStudio, family: str, query: str, most: int) -> Shots:
    """Return the shots with a ground and a look for every scene; crops stay as they are.

    `most`: the largest longer side that an image with a size of its own may have.
    """
    rng = studio.rng
    scenes = [shot for shot in shots if isinstance(shot, Scene)]
    shared = family in ONE_LOOK or rng.random() < 0.5
    one_ground = family in ONE_LOOK or (shared and rng.random() < 0.5)
    may_hollow = not names_solid_or_ring(query) and not any(
        t.identity.shape == "ring" for s in scenes for t in s.things
    )
    look = draw_look(rng, studio.longest, may_hollow, PLAIN[studio.simple])
    keeps_palette = shared or family in ONE_PALETTE or rng.random() < 0.5
    ground = draw_ground(studio, scenes, look)
    dressed: list[Scene | Crop] = []
    for shot in shots:
        if not isinstance(shot, Scene):
            dressed.append(shot)
            continue
        mine = look
        if not shared:
            longest = min(most, round(studio.longest * rng.choice((1, 1, 1, 1.3, 1.6))))
            mine = draw_look(rng, longest, may_hollow, PLAIN[studio.simple])
            if keeps_palette:
                mine = replace(mine, palette=look.palette)
        if dressed and not one_ground:
            ground = draw_ground(studio, [shot], mine)
        mine = replace(mine, grain=rng.getrandbits(31))
        dressed.append(shot.in_look(ground, mine))
    return tuple(dressed)


def draw_look(rng: random.Random, longest: int, may_hollow: bool = True, plain: float = 0.4) -> Look:
    """Draw a look, its ground aside. `may_hollow`: whether things may be lines alone, as a ring would be then;
    `plain`: the share of plain looks."""
    palette, seed = draw_palette(rng), rng.getrandbits(31)
    smooth = rng.random() < 0.75
    if rng.random() < plain:
        quality = rng.randint(60, 95) if rng.random() < 0.3 else 0
        look = Look(longest, palette, smooth=smooth, seed=seed, quality=quality)
        return replace(look, rim_share=rng.uniform(0.03, 0.07))
    finish = rng.choices(FINISHES, (3, 3, 3, 2, 2))[0]
    if finish == "lines" and not may_hollow:
        finish = "outlined"
    rim = rng.choice(((0, 0, 0), (20, 20, 20), (255, 255, 255), None, None))
    look = Look(longest, palette, finish, smooth, rim, rng.uniform(0.03, 0.1), seed=seed)
    if rng.random() < 0.35:
        look = replace(look, scribbles=rng.randint(1, 6))
    if rng.random() < 0.3:
        look = replace(look, labels=rng.randint(1, 4))
    return _wear(rng, look)


def _wear(rng: random.Random, look: Look) -> Look:
    """Draw what lens, sensor and file do; less to small pictures, whose things have few pixels."""
    if rng.random() < 0.25:
        look = replace(look, blur=round(rng.uniform(0.2, 0.35 + look.longest / 600), 2))
    if rng.random() < 0.3:
        look = replace(look, noise=rng.randint(4, 28))
    if rng.random() < 0.4:
        return replace(look, quality=rng.randint(30, 95))
    return replace(look, tones=rng.choice((24, 64)) if rng.random() < 0.08 else 0)


# ---- grounds -----------------------------------------------------------------------------------------------------


def draw_ground(studio: Studio, scenes: Sequence[Scene], look: Look) -> Background:
    """Draw a ground on which a mark can be seen and whose colour is none of the things', for images of the split."""
    rng = studio.rng
    wanted = {"test": 0, "unseen": 1}.get(studio.split, rng.choice((2, 3)))
    worn = {thing.identity.colour for scene in scenes for thing in scene.things}
    marked = any(scene.marks for scene in scenes)
    ground = None
    for _ in range(12):
        ground = _draw_ground(rng, wanted, 0.85 if look.is_plain else 0.4)
        tones = list_tones(ground)
        if marked and min(contrast(MARK, tone) for tone in tones) < 200:
            continue
        lost = {name for name in worn if min(contrast(look.palette[name], tone) for tone in tones) < CLEAR}
        # With a rim they are seen on grey; but black with a white rim on black is a white line to most people.
        greyish = all(max(tone) - min(tone) < 12 for tone in tones)
        if not lost or (greyish and "black" not in lost and not ("white" in lost and rng.random() < 0.5)):
            return ground
    return _fit_split((200, 200, 200), None, "flat", rng, wanted)


def _draw_ground(rng: random.Random, wanted: int, flat: float) -> Background:
    if rng.random() < flat:
        kind = rng.choices(("white", "black", "grey", "coloured"), (4, 1.3, 1.5, 3.2))[0]
        if kind == "coloured":
            return _fit_split(_draw_tone(rng), None, "flat", rng, wanted)
        grey = {
            "white": rng.choice((255, 255, 246)),
            "black": rng.choice((0, 0, 18)),
            "grey": rng.randint(60, 225),
        }
        return _fit_split((grey[kind],) * 3, None, "flat", rng, wanted)
    tone = _draw_tone(rng) if rng.random() < 0.7 else tint(rng.randint(40, 235), rng, 3)
    second = shade(tone, rng.uniform(0.6, 0.9) if sum(tone) > 384 else rng.uniform(1.08, 1.4))
    if rng.random() < 0.3:
        second = tint(sum(second) // 3, rng, 20)
    return _fit_split(tone, second, rng.choice(TEXTURED), rng, wanted)


def _draw_tone(rng: random.Random) -> RGB:
    """Draw a ground's colour: pale, deep, or dull; now and then bright."""
    grey = rng.choice(
        (rng.randint(190, 240), rng.randint(35, 80), rng.randint(96, 176), rng.randint(100, 160))
    )
    return tint(grey, rng, rng.choice((15, 22, 40, 90)))


def _fit_split(tone: RGB, second: RGB | None, kind: str, rng: random.Random, wanted: int) -> Background:
    """Return the ground whose first tone's sum, modulo 4, is `wanted`: see `Studio`."""
    red, green, blue = tone
    step = (wanted - sum(tone)) % 4
    blue = blue + step if blue + step <= 255 else blue + step - 4
    return Background((red, green, blue), second or (red, green, blue), kind, rng.getrandbits(31))
