"""What the plot, the card and the live view draw alike: colours, and what is too far off to be drawn."""

from __future__ import annotations

from typing import Final

# Okabe and Ito's: told apart by colour-blind people, and seen on white and on black.
BLUE, VERMILLION, GREEN, ORANGE = "#0072B2", "#D55E00", "#009E73", "#E69F00"
OFF_SCALE: Final = 10
"""A memory limit this many times what is used is named, not drawn: the curve would lie on the floor."""
SERIES: Final = (BLUE, VERMILLION, GREEN, ORANGE, "#CC79A7", "#56B4E9")
"""For several runs in one picture."""
