"""The model card of a base checkpoint: recipe, seed, data digest, measured scores."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from pathlib import Path

import yaml

from univg.grounding.prompts import PromptStyle
from univg.grounding.reading import Asked, Reading, read
from univg.grounding.scoring import Score, score
from univg.models.generation.generate import Chat, generate
from univg.models.loading import Loaded
from univg.report.cards import write_card
from univg.report.markdown import table
from univg.report.statistics import wilson_interval
from univg.training.config import PretrainConfig
from univg.training.pretrain.batches import draw_samples
from univg.training.sources import ImagePx
from univg.world import FAMILIES, WORLD_VERSION, Split, make_sample, settle_size

DIGEST_STEPS = 4


def score_held_out(
    loaded: Loaded,
    style: PromptStyle,
    n: int,
    image_px: ImagePx,
    split: Split = "test",
    version: int = WORLD_VERSION,
) -> dict[str, list[tuple[Score, Reading]]]:
    """Score greedy answers to `n` samples of every family of a split, at the world's default difficulty."""
    results = {}
    for name in FAMILIES:
        drawn = [make_sample(name, split, 0, index, size=image_px, version=version) for index in range(n)]
        chats = [Chat.ask(d.images, d.sample.query, style) for d in drawn]
        answers = generate(loaded, chats, max_new_tokens=256 if style == "think" else 24, batch_size=32)
        asked = [Asked(len(d.images), d.sample.query, style) for d in drawn]
        readings = [read(answer.text, what) for what, (answer,) in zip(asked, answers, strict=True)]
        results[name] = [(score(d.sample, each), each) for d, each in zip(drawn, readings, strict=True)]
    return results


def _tell_size(config: PretrainConfig) -> str:
    size = settle_size(config.image_px, config.world_version)
    return f"{size} pixels" if isinstance(size, int) else f"{size[0]} to {size[1]} pixels"


def digest_data(config: PretrainConfig) -> str:
    """Return the SHA-256 over pixels and texts of the first steps' samples: equal where the world is the same."""
    sha = hashlib.sha256()
    for step in range(DIGEST_STEPS):
        for made, style in draw_samples(config, step):
            sha.update(json.dumps([style, made.sample.to_json()], sort_keys=True).encode())
            for image in made.images:
                sha.update(image.tobytes())
    return sha.hexdigest()


def write_pretrain_card(
    folder: Path,
    config: PretrainConfig,
    loaded: Loaded,
    scores: Mapping[str, Sequence[tuple[Score, Reading]]],
) -> None:
    """Write `README.md` beside a checkpoint's weights; `scores` as `score_held_out` gives them."""
    n = min(len(family) for family in scores.values())
    parameters = sum(p.numel() for p in loaded.model.parameters())
    recipe = yaml.safe_dump(config.model_dump(mode="json"), sort_keys=False, allow_unicode=True)
    thinks = (
        "It thinks before it answers." if config.prompt_style == "think" else "It answers without thinking."
    )
    start = "random weights" if config.start is None else f"`{config.start}`"
    body = f"""# {folder.name}

A Qwen2-VL of {parameters / 1e6:.2f} million parameters, trained from {start} on univg's procedural world. {thinks}
It knows that world of drawn shapes and nothing else: no photographs, no other words.

```python
from univg import Grounder

Grounder.from_pretrained("path/of/this/folder").ground(["a.png", "b.png"], "…")
```

## Scores

Acc@0.5 on the world's test split (version {config.world_version}, images of {_tell_size(config)}, difficulty 0.5):
seed 0, {n} samples a family, greedy, 95 % intervals (Wilson).
No image or sample of that split was trained on.

{_tabulate(scores)}

## Recipe

`univg pretrain` with the config below (seed {config.seed}, {sum(p.steps for p in config.phases)} steps of
{config.batch} samples); sha256 of the first {DIGEST_STEPS} steps' pixels and texts:
`{digest_data(config)}`.

```yaml
{recipe}```
"""
    write_card(folder, body, ["qwen2_vl"])


def _tabulate(scores: Mapping[str, Sequence[tuple[Score, Reading]]]) -> str:
    named = {**scores, "all": [each for family in scores.values() for each in family]}
    header = ("family", "Acc@0.5", "95 % interval", "mean IoU", "faults")
    return table(header, [(name, *_summarise(found)) for name, found in named.items()])


def _summarise(scores: Sequence[tuple[Score, Reading]]) -> tuple[str, ...]:
    n, hits = len(scores), sum(one.hit_50 for one, _ in scores)
    low, high = wilson_interval(hits, n)
    mean = sum(one.iou for one, _ in scores) / n
    faults = sum(reading.fault is not None for _, reading in scores) / n
    return f"{hits / n:.3f}", f"{low:.3f}–{high:.3f}", f"{mean:.3f}", f"{faults:.3f}"
