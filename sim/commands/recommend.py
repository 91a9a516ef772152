"""`roofcast recommend`: deployments that serve a workload within limits, ranked by cost."""

from __future__ import annotations

import argparse

from sim.commands.deployment import add_profile
from sim.commands.output import add_format, emit
from sim.commands.parsing import Parser, amount, call_arguments, count, names, seconds

_KEYWORDS = {
    "users": "users",
    "prompt": "prompt",
    "output": "output",
    "context": "context",
    "ttft": "ttft_s",
    "tpot": "tpot_s",
    "budget_per_hour": "usd_per_hour",
    "budget": "usd",
    "hardware": "hardware",
    "models": "models",
    "engines": "engines",
    "precision_floor": "precision_floor",
    "top": "top",
    "profile": "profile",
    "interval": "interval",
}


def configure(parser: Parser) -> None:
    """Declare the arguments."""
    load = parser.add_argument_group("workload; 4k is 4096")
    load.add_argument("--users", type=count(), metavar="N", required=True, help="requests in flight at once")
    load.add_argument("--prompt", type=count(), metavar="N", help="prompt tokens (default: 1024)")
    load.add_argument("--output", type=count(), metavar="N", help="output tokens (default: 256)")
    load.add_argument("--context", type=count(), metavar="N", help="tokens that must fit (default: prompt + output)")
    limits = parser.add_argument_group("limits")
    limits.add_argument("--ttft", type=seconds, metavar="TIME", help="longest time to the first token: 500ms, 2s")
    limits.add_argument("--tpot", type=seconds, metavar="TIME", help="longest time per further token: 50ms")
    limits.add_argument("--budget-per-hour", type=amount, metavar="USD", help="most to pay per hour")
    limits.add_argument("--budget", type=amount, metavar="USD", help="most to pay for buying the hardware")
    limits.add_argument("--precision-floor", metavar="FORMAT", help="lowest weight precision (default: int4)")
    among = parser.add_argument_group("choices, each a list as in a,b; all of the catalogue without it")
    among.add_argument("--hardware", type=names, metavar="LIST", help="hardware on hand")
    among.add_argument("--models", type=names, metavar="LIST", help="models to choose from")
    among.add_argument("--engines", type=names, metavar="LIST", help="engines to choose from")
    parser.add_argument("--top", type=count(), metavar="N", help="deployments to print (default: 10)")
    add_profile(parser, interval=True)
    add_format(parser)
    parser.epilog = "example: roofcast recommend --users 20 --prompt 4k --output 300 --ttft 2s --tpot 50ms"


def execute(args: argparse.Namespace) -> int:
    """Print the ranking; 1 if nothing meets the limits."""
    import sim

    result = sim.recommend(**call_arguments(args, _KEYWORDS))

    from sim.report.verdict import recommend_view

    title = f"{args.users:,} user{'s' if args.users > 1 else ''} at once, cheapest first"
    emit(args, result, lambda: recommend_view(result, title), rejected=result.details["rejected"])
    return 0 if result.rows() else 1
