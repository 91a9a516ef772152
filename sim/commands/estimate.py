"""`roofcast estimate`: memory, latency, throughput, cost and energy of one deployment under one or more loads."""

from __future__ import annotations

import argparse
from typing import TYPE_CHECKING

from sim.commands.deployment import add_engine, add_layout, add_load, add_profile, add_subject, grid_axes
from sim.commands.output import add_format, add_plot, check_pictures, document, emit, print_notes
from sim.commands.parsing import Parser, call_arguments
from sim.errors import RoofcastError, sentence

if TYPE_CHECKING:
    from rich.console import RenderableType

    from sim.results import Result

_KEYWORDS = {name: name for name in (
    "gpus", "tp", "pp", "ep", "dp", "replicas", "weights", "kv", "engine", "price", "pay", "kv_blocks", "gpu_layers",
    "cpu_moe_frac", "max_num_batched_tokens", "max_num_seqs", "gpu_memory_utilization", "n_requests", "length_spread",
    "admission_steps", "mixed_chunk", "profile", "interval",
)}  # fmt: skip
_LAYOUT = {
    "n_gpus": "{} devices",
    "tp": "TP {}",
    "pp": "PP {}",
    "ep": "EP {}",
    "dp": "DP {}",
    "replicas": "{} replicas",
}


def configure(parser: Parser) -> None:
    """Declare the arguments."""
    add_subject(parser)
    add_load(parser)
    add_layout(parser)
    add_engine(parser)
    add_profile(parser.add_argument_group("calibration"), interval=True)
    group = parser.add_argument_group("output")
    add_format(group)
    add_plot(group)
    group.add_argument("--roofline", metavar="FILE", help="the operations of a step on the roofline, as .png or .svg")
    group.add_argument(
        "--explain", action="store_true", help="every group of operations of a step, for the first load that fits"
    )
    parser.epilog = 'example: roofcast estimate "Llama 3.3 70B" 2x-h100 --weights fp8 --concurrency 1,8,32 --prompt 4k'


def execute(args: argparse.Namespace) -> int:
    """Estimate and print; 1 if no load fits."""
    if args.explain and args.format == "csv":
        raise RoofcastError(sentence("--explain has no CSV form", "estimate", "take --format table or json"))
    check_pictures(args.plot, args.roofline)
    import sim

    given = call_arguments(args, _KEYWORDS) | grid_axes(args)
    result = sim.estimate(args.model, args.hardware, **given)
    operations = result.details.get("operations")
    more = {"operations": document(operations)} if args.explain and operations else {}
    emit(args, result, lambda: _view(args, result), **more)
    if (args.explain or args.roofline) and operations is None:
        print_notes(["no step is shown, since nothing fits"])
    _draw(args, result)
    return 0 if result["fits"].any() else 1


def _view(args: argparse.Namespace, result: Result) -> RenderableType:
    from rich.console import Group

    from sim.report.explain import explain_view
    from sim.report.verdict import estimate_view

    view = estimate_view(result, _title(result))
    explained = args.explain and "operations" in result.details
    return Group(view, explain_view(result.details["operations"])) if explained else view


def _title(result: Result) -> str:
    """Model, format, machine and engine, then the layout of the first load as far as it is more than one device."""
    first = result.rows()[0]
    layout = [name.format(first[key]) for key, name in _LAYOUT.items() if first[key] > 1]
    return ", ".join([result.details["title"], *layout])


def _draw(args: argparse.Namespace, result: Result) -> None:
    if args.plot:
        from sim.report.plot import throughput_plot

        throughput_plot({_title(result): result}, args.plot)
    drawn = [path for path in (args.plot, args.roofline if "operations" in result.details else None) if path]
    if args.roofline in drawn:
        from sim import catalog
        from sim.report.roofline import roofline_plot
        from sim.units import GB, TERA

        device = catalog.machine(args.hardware).device
        peaks: dict[str, float] = {name: tflops * TERA for name, tflops in device.peak_tflops.items() if name != "fp32"}
        bandwidth = device.bandwidth_gb_per_s * GB
        roofline_plot(result.details["operations"], peaks, bandwidth, _title(result), args.roofline)
    print_notes([f"wrote {path}" for path in drawn])
