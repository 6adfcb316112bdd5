"""What one request, and all of them together, may take."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Limits:
    """`held`: requests at a time, from the first byte of their body to the answer; more are refused (429), as are
    bodies of more than `buffered_bytes` in all that are being read at a time. `timeout_s` is for one request as a
    whole, `body_s` for its body to arrive, `fetch_s` for all its images on the network. `body_bytes` holds for a
    body and for the images fetched in its place; `megapixels` for all its images together, before they are
    resized. `rows` is the largest `n`."""

    held: int = 128
    body_bytes: int = 64 << 20
    body_s: float = 60.0
    buffered_bytes: int = 512 << 20
    timeout_s: float = 300.0
    images: int = 16
    megapixels: float = 100.0
    new_tokens: int = 2048
    rows: int = 16
    messages: int = 64
    characters: int = 200_000
    stops: int = 4
    fetch_s: float = 10.0
    redirects: int = 3
