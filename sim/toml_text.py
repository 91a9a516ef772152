"""Values as TOML writes them."""

from __future__ import annotations

import json
import re
from typing import Any


def key(name: str) -> str:
    """A key, in quotes where it needs them."""
    return name if re.fullmatch(r"[A-Za-z0-9_-]+", name) else text(name)


def value(of: Any) -> str:
    """Text, a number, a boolean, a list or an inline table."""
    if isinstance(of, bool):
        return "true" if of else "false"
    if isinstance(of, str):
        return text(of)
    if isinstance(of, list | tuple):
        return "[" + ", ".join(map(value, of)) + "]"
    if isinstance(of, dict):
        return "{ " + ", ".join(f"{key(name)} = {value(entry)}" for name, entry in of.items()) + " }"
    return str(of)


def text(words: str) -> str:
    """A basic string of TOML: JSON's escapes, and the delete character, which TOML does not take as it is."""
    return json.dumps(words, ensure_ascii=False).replace("\x7f", "\\u007f")
