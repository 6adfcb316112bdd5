"""Say from which temperature on drawing is choosing the likeliest token."""

from __future__ import annotations

__all__ = ["GREEDY_BELOW", "settle_temperature"]

GREEDY_BELOW = 1e-5
"""Below this temperature responses are greedy. What then keeps two tokens apart is less than float32 tells apart in
logits of their usual size (2⁻¹⁶ at 128), and a division by less would in the end overflow. vLLM draws the same line."""


def settle_temperature(temperature: float) -> float:
    """Return the temperature that is drawn with: 0, which is greedy, for those below `GREEDY_BELOW`.

    >>> settle_temperature(1e-38), settle_temperature(0.7)
    (0.0, 0.7)
    """
    return 0.0 if 0 <= temperature < GREEDY_BELOW else temperature
