"""Reads what is typed after a subcommand: every unreadable value is reported, each in one sentence."""

from __future__ import annotations

import argparse
import math
import re
from collections.abc import Callable
from typing import Any, NoReturn

from sim import durations
from sim.bounds import LARGEST_COUNT, LEAST_USD, MOST_USD
from sim.errors import RoofcastError, clipped, did_you_mean, sentence
from sim.units import TOKENS


class Bad(str):
    """Why a value could not be read. Kept in its place until all of them can be reported at once."""


class Parser(argparse.ArgumentParser):
    """An argument parser that raises RoofcastError, with the nearest known option as a hint, and never exits."""

    def __init__(self, command: str, summary: str):
        super().__init__(
            prog=f"roofcast {command}",
            description=summary,
            allow_abbrev=False,
            formatter_class=argparse.RawDescriptionHelpFormatter,
        )
        self.command = command

    def help_text(self) -> str:
        """Help whose usage line names the positional arguments only."""
        places = [str(action.metavar) for action in self._actions if not action.option_strings]
        self.usage = " ".join([self.prog, *places, "[options]"])
        return self.format_help()

    def error(self, message: str) -> NoReturn:
        """Raise argparse's own complaint as one sentence."""
        text = message.removeprefix("argument ")
        raise RoofcastError(sentence(text, self.command, f"see roofcast {self.command} --help"))

    def read(self, argv: list[str]) -> argparse.Namespace:
        """The arguments, or a RoofcastError that names every unknown option and every unreadable value."""
        args, unknown = self.parse_known_args(_join_negative(argv))
        problems = self._unknown(unknown)
        for action in self._actions:
            value = getattr(args, action.dest, None)
            if isinstance(value, Bad):
                name = action.option_strings[0] if action.option_strings else str(action.metavar)
                problems.append(sentence(value, f"{self.command} {name}"))
        if problems:
            raise RoofcastError(*problems)
        return args

    def _unknown(self, words: list[str]) -> list[str]:
        options = [word.partition("=")[0] for word in words if word.startswith("-")]
        if not options:
            return [sentence(f"unexpected argument '{clipped(word)}'", self.command) for word in words]
        known = [option for action in self._actions for option in action.option_strings]
        near = {name: did_you_mean(name, known) for name in options}
        return [sentence(f"unknown option {clipped(name)}", self.command, hint) for name, hint in near.items()]


def call_arguments(args: argparse.Namespace, names: dict[str, str]) -> dict[str, Any]:
    """Keyword arguments for a verb: option -> keyword, leaving out what was not given so that defaults live there."""
    return {keyword: value for name, keyword in names.items() if (value := getattr(args, name)) is not None}


def count(least: int = 1) -> Callable[[str], int | Bad]:
    """Reads a whole number from `least` up; 4k is 4096 and 1m is 1048576, as engines count tokens."""

    def read(text: str) -> int | Bad:
        match = re.fullmatch(r"(\d+(?:\.\d+)?)([km]?)", text.strip().lower(), re.ASCII)
        value = float(match[1]) * TOKENS[match[2]] if match else math.nan
        if value.is_integer() and least <= value <= LARGEST_COUNT:
            return int(value)
        return Bad(f"expected a whole number from {least} to {LARGEST_COUNT} (4k means 4096), got '{clipped(text)}'")

    return read


def counts(text: str) -> list[int] | Bad:
    """Reads whole numbers of at least 1 separated by commas: "1,8,32" or "4k,128k"."""
    read = [count()(part) for part in text.split(",")]
    values = [value for value in read if isinstance(value, int)]
    if len(values) < len(read):
        expected = f"whole numbers from 1 to {LARGEST_COUNT} separated by commas, as in 1,8,32"
        return Bad(f"expected {expected}, got '{clipped(text)}'")
    return values


def names(text: str) -> list[str] | Bad:
    """Reads names separated by commas."""
    values = [part.strip() for part in text.split(",")]
    return values if all(values) else Bad(f"expected names separated by commas, got '{clipped(text)}'")


def amount(text: str) -> float | Bad:
    """Reads a sum of money in USD, with or without the sign."""
    value = _number(text.strip().removeprefix("$"))
    expected = f"an amount of USD above 0, as in 2.49 ({LEAST_USD:.6f} to {MOST_USD:.0f})"
    return value if LEAST_USD <= value <= MOST_USD else Bad(f"expected {expected}, got '{clipped(text)}'")


def fraction(text: str) -> float | Bad:
    """Reads a share from 0 to 1, or from 0% to 100%."""
    bare = text.strip().removesuffix("%")
    value = _number(bare) / (100 if bare != text.strip() else 1)
    return value if 0 <= value <= 1 else Bad(f"expected a fraction from 0 to 1, as in 0.9, got '{clipped(text)}'")


def positive_fraction(text: str) -> float | Bad:
    """Reads a share above 0, up to 1 or 100%."""
    value = fraction(text)
    return value if value != 0 else Bad(f"expected a fraction above 0, as in 0.9, got '{clipped(text)}'")


def level(text: str) -> float | Bad:
    """Reads the share of measurements that an interval is to hold, above 0 and below 1."""
    value = fraction(text)
    inside = not isinstance(value, Bad) and 0 < value < 1
    return value if inside else Bad(f"expected a level between 0 and 1, as in 0.8, got '{clipped(text)}'")


def seconds(text: str) -> float | Bad:
    """Reads a duration with its unit: 200ms, 2s, 50us, 1h."""
    value = durations.seconds(text)
    if value and math.isfinite(value):
        return value
    return Bad(f"expected a duration with its unit, as in 200ms or 2s, got '{clipped(text)}'")


def one_of(*known: str) -> Callable[[str], str | Bad]:
    """Reads one of a few words."""

    def read(text: str) -> str | Bad:
        expected = f"expected {', '.join(known)}, got '{clipped(text)}'"
        return text if text in known else Bad(sentence(expected, hint=did_you_mean(text, known)))

    return read


def _number(text: str) -> float:
    try:
        return float(text)
    except ValueError:
        return math.nan


def _join_negative(argv: list[str]) -> list[str]:
    """`--tp -1,2` as `--tp=-1,2`: argparse would take the number for an option and say that a value is missing."""
    joined: list[str] = []
    for word in argv:
        if re.match(r"-\.?\d", word) and joined and re.fullmatch(r"--[a-z-]+|-ngl", joined[-1]):
            joined[-1] += f"={word}"
        else:
            joined.append(word)
    return joined
