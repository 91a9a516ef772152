"""The command `roofcast`: finds the subcommand, runs it, and turns what went wrong into sentences and exit codes.

Exit codes: 0 done; 1 nothing fits, or a check failed; 2 bad input, or an output that cannot be written;
130 interrupted; 141 the reader of stdout left.
Data goes to stdout, everything else to stderr. Nothing slow is imported before a subcommand runs.
"""

from __future__ import annotations

import importlib
import io
import os
import sys
from collections.abc import Sequence

from sim import __version__
from sim.commands.parsing import Parser
from sim.errors import RoofcastError, did_you_mean, sentence
from sim.interrupt import INTERRUPTED, end_on_interrupt, say_interrupted

BAD_INPUT = 2
READER_LEFT = 141

# Name -> (module of sim.commands, what it does).
COMMANDS = {
    "estimate": ("estimate", "Memory, latency, throughput, cost and energy of a model on a machine."),
    "fits": ("fits", "The memory verdict of each precision, and the nearest thing that fits."),
    "recommend": ("recommend", "Deployments that serve a workload within limits, ranked by cost."),
    "run": ("run", "Every deployment of a scenario file, compared."),
    "simulate": ("simulate", "What happens to users under traffic: a scenario file, simulated request by request."),
    "capacity": ("capacity", "The highest load, or the fewest replicas, that keep the objectives of a scenario file."),
    "sweep": ("sweep", "Every combination of the axes of a file: the best, the Pareto front, and why others fail."),
    "validate": ("validate", "Predictions beside measurements, and error tables."),
    "calibrate": ("calibrate", "A profile fitted to your measurements, judged on rows held out."),
    "guide": ("guide", "The sizing guide recomputed, with a verdict on each claim."),
    "models": ("shelf", "The models of the catalogue, or every figure of one."),
    "models add": ("models_add", "Add a model of your own from its Hugging Face config.json."),
    "hardware": ("shelf", "The machines of the catalogue, or every figure of one."),
    "engines": ("shelf", "The serving engines of the catalogue, or every figure of one."),
}


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command line and return its exit code."""
    words = list(sys.argv[1:] if argv is None else argv)
    if argv is None:  # in a process of its own
        end_on_interrupt()
    if sys.stdout is None:  # the caller closed it
        sys.stdout = open(os.devnull, "w", encoding="utf-8")  # noqa: SIM115
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(errors="replace")
    try:
        code = _run(words)
        sys.stdout.flush()
        return code
    except RoofcastError as error:
        for problem in error.problems:
            print(f"roofcast: {problem}", file=sys.stderr)
        return BAD_INPUT
    except KeyboardInterrupt as stopped:
        say_interrupted(*stopped.args)
        return INTERRUPTED
    except BrokenPipeError:
        # What is left in the buffer would fail once more when Python flushes it at exit.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return READER_LEFT
    except OSError as error:
        print(f"roofcast: stdout: cannot be written: {error.strerror}", file=sys.stderr)
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return BAD_INPUT


def overview() -> str:
    """The help of `roofcast` itself."""
    lines = [f"  {name:<12}{summary}" for name, (_, summary) in COMMANDS.items()]
    return "\n".join(
        [
            "usage: roofcast COMMAND ...",
            "",
            "Forecasts memory, latency, throughput, cost and energy of serving large language models.",
            "",
            *lines,
            "",
            "roofcast COMMAND --help says what a command takes. roofcast --version prints the version.",
            'example: roofcast estimate "Llama 3.3 70B" 2x-h100 --weights fp8 --concurrency 1,8,32',
        ]
    )


def _run(words: list[str]) -> int:
    if not words or words[0] in ("-h", "--help"):
        print(overview(), file=sys.stdout if words else sys.stderr)
        return 0 if words else BAD_INPUT
    if words[0] == "--version":
        print(f"roofcast {__version__}")
        return 0
    name = " ".join(words[:2]) if " ".join(words[:2]) in COMMANDS else words[0]
    if name not in COMMANDS:
        what = "unknown option" if name.startswith("-") else "unknown command"
        hint = did_you_mean(name, COMMANDS) or "see roofcast --help"
        raise RoofcastError(sentence(f"{what} '{name}'", hint=hint))
    module, summary = COMMANDS[name]
    command = importlib.import_module(f"sim.commands.{module}")
    parser = Parser(name, summary)
    command.configure(parser)
    if {"-h", "--help"} & set(words):
        print(parser.help_text(), end="")
        return 0
    return command.execute(parser.read(words[len(name.split()) :]))
