"""What a shipped checkpoint says of itself: recipe, seed, data digest, measured scores."""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Mapping, Sequence
from pathlib import Path

import yaml

from univg.config import PretrainConfig
from univg.grounding.prompts import PromptStyle
from univg.grounding.reading import Asked, Reading, read
from univg.grounding.scoring import Score, score
from univg.models.generation.generate import Chat, generate
from univg.models.loading import Loaded
from univg.training.pretrain.batches import draw_samples
from univg.world import FAMILIES, Split, make_sample

DIGEST_STEPS = 4


def held_out_scores(
    loaded: Loaded, style: PromptStyle, n: int, image_px: int, split: Split = "test"
) -> dict[str, list[tuple[Score, Reading]]]:
    """Score greedy answers to `n` samples of every family of a split, at the world's default difficulty."""
    results = {}
    for name in FAMILIES:
        drawn = [make_sample(name, split, 0, index, size=image_px) for index in range(n)]
        chats = [Chat.ask(d.images, d.sample.query, style) for d in drawn]
        answers = generate(loaded, chats, max_new_tokens=256 if style == "think" else 24, batch_size=32)
        asked = [Asked(len(d.images), d.sample.query, style) for d in drawn]
        readings = [read(answer.text, what) for what, (answer,) in zip(asked, answers, strict=True)]
        results[name] = [(score(d.sample, each), each) for d, each in zip(drawn, readings, strict=True)]
    return results


def interval(hits: int, n: int) -> tuple[float, float]:
    """Wilson's 95 % interval of a share.

    >>> [round(bound, 3) for bound in interval(80, 100)]
    [0.711, 0.867]
    """
    z, share = 1.96, hits / n
    middle = (share + z * z / (2 * n)) / (1 + z * z / n)
    reach = z * math.sqrt(share * (1 - share) / n + z * z / (4 * n * n)) / (1 + z * z / n)
    return middle - reach, middle + reach


def data_digest(config: PretrainConfig) -> str:
    """sha256 over pixels and texts of the first steps' samples: equal where the world is the same."""
    sha = hashlib.sha256()
    for step in range(DIGEST_STEPS):
        for made, style in draw_samples(config, step):
            sha.update(json.dumps([style, made.sample.to_json()], sort_keys=True).encode())
            for image in made.images:
                sha.update(image.tobytes())
    return sha.hexdigest()


def write_card(
    folder: Path,
    config: PretrainConfig,
    loaded: Loaded,
    scores: Mapping[str, Sequence[tuple[Score, Reading]]],
) -> None:
    """Write `README.md` beside a checkpoint's weights; `scores` as `held_out_scores` gives them."""
    n = min(len(family) for family in scores.values())
    parameters = sum(p.numel() for p in loaded.model.parameters())
    recipe = yaml.safe_dump(config.model_dump(mode="json"), sort_keys=False, allow_unicode=True)
    thinks = (
        "It thinks before it answers." if config.prompt_style == "think" else "It answers without thinking."
    )
    start = "random weights" if config.start is None else f"`{config.start}`"
    text = f"""---
license: apache-2.0
library_name: transformers
pipeline_tag: image-text-to-text
tags: [visual-grounding, qwen2_vl, univg]
---

# {folder.name}

A Qwen2-VL of {parameters / 1e6:.2f} million parameters, trained from {start} on univg's procedural world. {thinks}
It knows that world of drawn shapes and nothing else: no photographs, no other words.

```python
from univg import Grounder

Grounder.from_pretrained("path/of/this/folder").ground(["a.png", "b.png"], "…")
```

## Scores

Acc@0.5 on the world's test split (images of {config.image_px} pixels, difficulty 0.5): seed 0,
{n} samples a family, greedy, 95 % intervals (Wilson).
No image or sample of that split was trained on.

{_table(scores)}

## Recipe

`univg pretrain` with the config below (seed {config.seed}, {sum(p.steps for p in config.phases)} steps of
{config.batch} samples); sha256 of the first {DIGEST_STEPS} steps' pixels and texts:
`{data_digest(config)}`.

```yaml
{recipe}```
"""
    (folder / "README.md").write_text(text, encoding="utf-8")


def _table(scores: Mapping[str, Sequence[tuple[Score, Reading]]]) -> str:
    lines = ["| family | Acc@0.5 | 95 % interval | mean IoU | faults |", "|---|---|---|---|---|"]
    for name, family in scores.items():
        lines.append(_row(name, family))
    lines.append(_row("all", [each for family in scores.values() for each in family]))
    return "\n".join(lines)


def _row(name: str, scores: Sequence[tuple[Score, Reading]]) -> str:
    n, hits = len(scores), sum(s.hit_50 for s, _ in scores)
    low, high = interval(hits, n)
    faults = sum(reading.fault is not None for _, reading in scores) / n
    mean = sum(s.iou for s, _ in scores) / n
    return f"| {name} | {hits / n:.3f} | {low:.3f}–{high:.3f} | {mean:.3f} | {faults:.3f} |"
