"""Answer a list of questions greedily by an engine that is not univg's, and write the texts as JSON.

Run by `vllm_engine.answer_jobs` in an environment that has the engine and needs no univg: `python answer.py ENGINE JOBS
TEXTS CHECKPOINT …`, where JOBS is a JSON file of `{"images": [paths], "text": question, "tokens": limit}` and TEXTS is
written: a list of texts for each checkpoint. With `"greedy": true` vLLM leaves the checkpoint's own sampling defaults
out. Ends with code 5 where the engine is not installed.
"""

from __future__ import annotations

import gc
import importlib.util
import json
import os
import sys
from pathlib import Path
from typing import Any

LONGEST = 2048
"""Tokens of a prompt and its answer."""


def answer_by_transformers(checkpoint: str, jobs: list[dict[str, Any]]) -> list[str]:
    """With nothing but transformers' own classes: processor (it needs torchvision), model, `generate`."""
    import torch
    from PIL import Image
    from transformers import AutoModelForImageTextToText, AutoProcessor

    processor = AutoProcessor.from_pretrained(checkpoint)
    model = AutoModelForImageTextToText.from_pretrained(checkpoint, dtype=torch.float32).eval()
    texts = []
    for job in jobs:
        images = [Image.open(path).convert("RGB") for path in job["images"]]
        prompt = processor.apply_chat_template(_chat(job), tokenize=False, add_generation_prompt=True)
        inputs = processor(text=[prompt], images=images, return_tensors="pt")
        with torch.no_grad():
            tokens = model.generate(**inputs, do_sample=False, max_new_tokens=job["tokens"])
        answer = tokens[0, inputs["input_ids"].shape[1] :]
        texts.append(processor.tokenizer.decode(answer, skip_special_tokens=True))
    return texts


def answer_by_vllm(checkpoint: str, jobs: list[dict[str, Any]]) -> list[str]:
    """Through vLLM's chat, with the checkpoint's own template, processor and sampling defaults."""
    os.environ["VLLM_ENABLE_V1_MULTIPROCESSING"] = "0"  # another process would read all of vLLM once more
    from PIL import Image
    from vllm import LLM, SamplingParams
    from vllm.distributed import cleanup_dist_env_and_memory

    most = max(len(job["images"]) for job in jobs)
    engine = LLM(
        checkpoint,
        dtype="float32",
        enforce_eager=True,
        max_model_len=LONGEST,
        limit_mm_per_prompt={"image": most, "video": 0},
    )
    settings = [
        SamplingParams(temperature=0.0) if job.get("greedy") else engine.get_default_sampling_params()
        for job in jobs
    ]
    for setting, job in zip(settings, jobs, strict=True):
        setting.max_tokens = job["tokens"]
    chats = [_chat(job) for job in jobs]
    for chat, job in zip(chats, jobs, strict=True):
        for part, path in zip(chat[0]["content"], job["images"], strict=False):
            part |= {"type": "image_pil", "image_pil": Image.open(path).convert("RGB")}
    texts = [reply.outputs[0].text for reply in engine.chat(chats, settings, use_tqdm=False)]
    del engine
    gc.collect()
    cleanup_dist_env_and_memory()
    return texts


def _chat(job: dict[str, Any]) -> list[dict[str, Any]]:
    images = [{"type": "image"} for _ in job["images"]]
    return [{"role": "user", "content": [*images, {"type": "text", "text": job["text"]}]}]


ENGINES = {"transformers": answer_by_transformers, "vllm": answer_by_vllm}
NEEDS = {"transformers": "torchvision", "vllm": "vllm"}

if __name__ == "__main__":
    name, asked, written, *folders = sys.argv[1:]
    if importlib.util.find_spec(NEEDS[name]) is None:
        print(f"{NEEDS[name]} is not installed", file=sys.stderr)
        sys.exit(5)
    questions = json.loads(Path(asked).read_text(encoding="utf-8"))
    answered = [ENGINES[name](folder, questions) for folder in folders]
    Path(written).write_text(json.dumps(answered), encoding="utf-8")
    os._exit(0)  # vLLM's processes may take minutes to let this one go
