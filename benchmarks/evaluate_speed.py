"""Measure samples a second of `univg evaluate` and of one-at-a-time generation, as a plain evaluation script does it.

    python benchmarks/evaluate_speed.py --model embedded --n 8

Both answer the same samples of the world with the same model, prompts and limits, in one process and one run,
in turn, on the same number of threads. The texts must be equal; the ratio is printed. What the plain script does
for each sample: render the chat, process the images, `model.generate` greedily, decode.
"""

from __future__ import annotations

import argparse
import os
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--model", default="embedded")
    parser.add_argument("--n", type=int, default=8, help="samples of each of the world's task families")
    parser.add_argument("--batch-size", type=int, default=32)
    parser.add_argument("--max-new-tokens", type=int, default=256)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--rounds", type=int, default=2, help="both ways are timed so often; the best counts")
    options = parser.parse_args()
    os.environ.setdefault("TRANSFORMERS_VERBOSITY", "error")

    import torch

    from univg.evaluate.benchmarks import open_world
    from univg.evaluate.engines import load_local
    from univg.models.answering import Decoding

    torch.set_num_threads(options.threads)
    cases = list(open_world("world", options.n).items())
    engine = load_local(options.model, "world", batch_size=options.batch_size, device="cpu")
    decoding = Decoding(max_new_tokens=options.max_new_tokens)
    generate_plainly(engine, cases[:2], decoding)  # the first calls of a process are slower than the rest
    evaluate_all(engine, cases[:2], decoding)
    slow, fast = [], []
    for _ in range(options.rounds):
        texts, seconds = generate_plainly(engine, cases, decoding)
        slow.append(seconds)
        answers, seconds = evaluate_all(engine, cases, decoding)
        fast.append(seconds)
        differing = [key for key in texts if texts[key] != answers[key]]
        assert not differing, f"{len(differing)} of {len(texts)} texts differ, first {differing[0]}"
    tokens = sum(len(engine.loaded.processor.tokenizer(text)["input_ids"]) for text in texts.values())
    print(
        f"{len(cases)} samples, {tokens / len(cases):.0f} tokens a response, {options.threads} threads, same texts"
    )
    print(f"one at a time     {len(cases) / min(slow):7.2f} samples/s")
    print(f"univg evaluate    {len(cases) / min(fast):7.2f} samples/s  (batches of {options.batch_size})")
    print(f"ratio             {min(slow) / min(fast):7.2f}")


def evaluate_all(engine, cases: Sequence, decoding) -> tuple[dict[str, str], float]:
    """Evaluate as `univg evaluate` does: opening, batching, generation, scoring, rows on disk."""
    from univg.data.dataset import Dataset
    from univg.evaluate.runner import evaluate

    with tempfile.TemporaryDirectory() as folder:
        started = time.perf_counter()
        outcome = evaluate(Dataset("world", len(cases), cases.__getitem__), engine, Path(folder), decoding)
        seconds = time.perf_counter() - started
    return {key: row["text"] for key, row in outcome.rows.items()}, seconds


def generate_plainly(engine, cases: Sequence, decoding) -> tuple[dict[str, str], float]:
    """Generate with transformers as its documentation shows it, one sample after the other."""
    import torch

    from univg.grounding.prompts import render_chat
    from univg.models.generation.generate import forbidden_ids, stop_ids

    model, processor = engine.loaded.model, engine.loaded.processor
    stops = stop_ids(model, processor.tokenizer)
    vocabulary = model.get_output_embeddings().weight.shape[0]
    forbidden = forbidden_ids(processor.tokenizer, vocabulary, stops)
    texts, started = {}, time.perf_counter()
    for case in cases:
        images = case.pictures()
        chat = render_chat(len(images), case.sample.query, engine.style)
        prompt = processor.apply_chat_template(chat, tokenize=False, add_generation_prompt=True)
        inputs = processor(images=images, text=[prompt], padding=True, return_tensors="pt")
        with torch.no_grad():
            tokens = model.generate(
                **inputs,
                max_new_tokens=decoding.max_new_tokens,
                do_sample=False,
                suppress_tokens=forbidden,  # vision and padding marks, which univg never lets a model write
            )
        written = tokens[0, inputs["input_ids"].shape[1] :].tolist()
        end = next((at for at, token in enumerate(written) if token in stops), None)
        texts[case.key] = processor.tokenizer.decode(
            written[:end], skip_special_tokens=False, clean_up_tokenization_spaces=False
        )
    return texts, time.perf_counter() - started


if __name__ == "__main__":
    main()
