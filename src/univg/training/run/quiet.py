"""Keep the libraries' own bars and notes out of univg's."""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from contextlib import contextmanager

from transformers.utils import logging

__all__ = ["silence_libraries"]


@contextmanager
def silence_libraries() -> Iterator[None]:
    """Hold back the libraries' bar for each checkpoint, and their notes to one another on names that will change."""
    shown = logging.is_progress_bar_enabled()
    logging.disable_progress_bar()
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", FutureWarning)
            yield
    finally:
        if shown:
            logging.enable_progress_bar()
