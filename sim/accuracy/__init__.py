"""How wrong forecasts are, as figures and as the document docs/accuracy.md."""

from __future__ import annotations

from sim.accuracy.document import document
from sim.accuracy.figures import figures, figures_text

__all__ = ["document", "figures", "figures_text"]
