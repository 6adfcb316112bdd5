"""Let verl's data loader read its own kind of file, and tell what its rollouts and rewards would be given.

`python in_verl.py MODEL FILE CACHE`. Pictures go through the class's own `process_vision_info`, as in its agent loop.
"""

from __future__ import annotations

import asyncio
import sys
from typing import Any

from seen import describe, tell


def read_rows(model: str, file: str, cache: str) -> list[dict[str, Any]]:
    from omegaconf import OmegaConf
    from torch.utils.data import DataLoader
    from verl.utils import hf_processor, hf_tokenizer
    from verl.utils.dataset.rl_dataset import RLHFDataset, collate_fn
    from verl.utils.tokenizer import build_multimodal_processor_inputs

    processor = hf_processor(model)
    given = {"cache_dir": cache, "max_prompt_length": 8192, "filter_overlong_prompts_workers": 1}
    data = RLHFDataset(file, hf_tokenizer(model), OmegaConf.create(given), processor=processor)
    found = []
    for batch in DataLoader(data, batch_size=1, collate_fn=collate_fn):
        messages = batch["raw_prompt"][0]
        seen = RLHFDataset.process_vision_info(messages, data.image_patch_size, data.config)
        images, _ = asyncio.run(seen)
        text = processor.apply_chat_template(messages, add_generation_prompt=True, tokenize=False)
        made = build_multimodal_processor_inputs(processor, text=[text], images=images)
        grids = made["image_grid_thw"].tolist()
        row = describe(made["input_ids"][0].tolist(), [], made["pixel_values"], grids, processor)
        given_back = {"truth": batch["reward_model"][0]["ground_truth"], "source": batch["data_source"][0]}
        found.append({**row, **given_back, "index": batch["index"][0]})
    return found


if __name__ == "__main__":
    tell(rows=read_rows(*sys.argv[1:]))
