"""Where yes turns into no along an axis of loads: bracketing by octaves, then refinement, a grid of values a round."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

TOLERANCE_FRAC = 0.01  # between the last yes and the first no
FIRST = np.arange(-4, 4) / 2  # octaves from the start
FARTHER = np.arange(1, 5)  # octaves from all that was tried
INSIDE = 7  # values between a yes and a no, at the most
NEAR = np.array([-0.12, -0.06, 0.0, 0.06])  # octaves from a start that is nearly the answer
NEAR_OCTAVE = 0.25  # by which steps are shorter there


@dataclass(frozen=True)
class Axis:
    """Values from least to most. rising: yes below and no above; else the other way round. whole: they are counts.

    near: the start is about where yes turns into no, so that little around it is tried.
    """

    start: float
    least: float
    most: float
    whole: bool = False
    rising: bool = True
    near: bool = False

    def ends(self, tried: Mapping[float, bool]) -> tuple[float | None, float | None]:
        """The last yes before the first no, and the first no; in an answer that is not monotone, the safer one."""
        order = sorted(tried, reverse=not self.rising)
        first_no = next((i for i, value in enumerate(order) if not tried[value]), len(order))
        return order[first_no - 1] if first_no else None, order[first_no] if first_no < len(order) else None

    def next_values(self, tried: Mapping[float, bool]) -> list[float]:
        """What to try next; nothing where yes and no are close enough, or an end of the axis is reached."""
        yes, no = self.ends(tried)
        sign, octave = 1 if self.rising else -1, NEAR_OCTAVE if self.near else 1.0
        if yes is not None and no is not None:
            steps = abs(np.log(no / yes)) / np.log1p(TOLERANCE_FRAC)
            if steps <= 1:
                return []
            wanted = np.geomspace(yes, no, min(INSIDE + 1, int(np.ceil(steps))) + 1)[1:-1]
        elif yes is not None:
            wanted = yes * 2.0 ** (sign * octave * FARTHER)
        elif no is not None:
            wanted = no * 2.0 ** (-2 * sign * octave * FARTHER)
        else:
            wanted = self.start * 2.0 ** (sign * NEAR if self.near else FIRST)
        return sorted({self._rounded(value) for value in wanted.tolist()} - set(tried))

    def _rounded(self, value: float) -> float:
        """Within the axis; four digits are enough."""
        value = min(max(value, self.least), self.most)
        return float(round(value)) if self.whole else float(f"{value:.4g}")
