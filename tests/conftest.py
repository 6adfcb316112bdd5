"""For every test: two threads, no network, no deadlines; set here without importing torch."""

from __future__ import annotations

import os

from hypothesis import settings

# Read by torch, tokenizers and huggingface_hub when they are first imported, which is after this file.
os.environ.setdefault("OMP_NUM_THREADS", "2")
os.environ["TOKENIZERS_PARALLELISM"] = "false"
os.environ["HF_HUB_OFFLINE"] = "1"

# A deadline fails on a busy machine, not on a wrong program. In CI the same examples are drawn every time.
settings.register_profile("univg", deadline=None, derandomize="CI" in os.environ, print_blob=True)
settings.load_profile("univg")
