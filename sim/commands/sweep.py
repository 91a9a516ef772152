"""`roofcast sweep`: every combination of the axes of a file, reduced to the best, the top and the Pareto front."""

from __future__ import annotations

import argparse
import csv
import sys
import time
from typing import TYPE_CHECKING, Any

from sim.commands.deployment import add_profile
from sim.commands.output import add_format, check_pictures, document, print_json, print_notes, print_view
from sim.commands.parsing import Bad, Parser, call_arguments, count, names, one_of
from sim.errors import clipped

if TYPE_CHECKING:
    from sim.sweeps.spec import Spec
    from sim.verbs.sweep import Sweep

_KEYWORDS = {name: name for name in ("out", "keep", "cluster", "verify", "sensitivities", "by", "top", "profile")}


def configure(parser: Parser) -> None:
    """Declare the arguments."""
    parser.add_argument("sweep", metavar="SWEEP.toml", help="with sections [axes], [limits] and [answers]")
    parser.add_argument("--dry-run", action="store_true", help="say how large it is and what it will take, and stop")
    add_profile(parser)
    answers = parser.add_argument_group("answers, in place of the file's")
    answers.add_argument("--by", type=names, metavar="AXES", help="the best of each value of these: model,concurrency")
    answers.add_argument("--top", type=count(), metavar="N", help="configurations to rank")
    answers.add_argument("--verify", action="store_true", default=None, help="simulate the Pareto front's requests")
    answers.add_argument("--sensitivities", action="store_true", default=None, help="elasticities of the best")
    run = parser.add_argument_group("where it runs, and what is kept")
    run.add_argument("--cluster", type=_cluster, metavar="N|ADDRESS", help="worker processes here, or a scheduler's")
    run.add_argument("--out", metavar="DIR", help="keep rows as Parquet; the same command resumes what was stopped")
    run.add_argument(
        "--keep", type=one_of("front", "feasible", "all"), metavar="ROWS",
        help="rows of --out: front (default: best, top and Pareto front), feasible or all",
    )  # fmt: skip
    group = parser.add_argument_group("output")
    add_format(group)
    group.add_argument("--plot", metavar="FILE", help="heat map, Pareto front and curves, as .png or .svg")
    parser.epilog = "example: roofcast sweep scenarios/sweeps/current-models-over-users.toml --dry-run"


def _cluster(text: str) -> int | str | Bad:
    """Reads a number of worker processes, or the address of a cluster's scheduler."""
    if text.strip().lstrip("-").isdigit():
        return count()(text)
    expected = f"expected a number of worker processes, or an address as host:8786, got '{clipped(text)}'"
    return text if ":" in text else Bad(expected)


def execute(args: argparse.Namespace) -> int:
    """Sweep and print; 1 if nothing keeps to the limits."""
    from sim.sweeps.file import answering, load_sweep

    check_pictures(args.plot)
    spec = answering(load_sweep(args.sweep), args.by, args.top, args.profile, dash="sweep --")
    if args.dry_run:
        return _dry_run(args, spec)
    from sim.report.progress import progress_bar
    from sim.verbs.sweep import sweep

    with progress_bar(rate=True) as tell:
        answer = sweep(args.sweep, progress=tell, **call_arguments(args, _KEYWORDS))
    if args.format == "json":
        print_json(_document(answer))
    elif args.format == "csv":
        _write_csv(answer)
    else:
        from sim.report.sweep import sweep_view

        print_view(sweep_view(answer))
    if args.format != "json":
        print_notes(answer.plan.rows.notes)
    if args.plot:
        from sim.report.sweep_plot import sweep_plot

        sweep_plot(answer, args.plot)
        print_notes([f"wrote {args.plot}"])
    return 0 if answer.top.rows() else 1


def _dry_run(args: argparse.Namespace, spec: Spec) -> int:
    from sim.report.progress import progress_bar
    from sim.report.sweep import dry_view, swept
    from sim.sweeps.cost import cost_of
    from sim.sweeps.plan import plan

    start = time.perf_counter()
    with progress_bar(rate=True) as tell:
        planned = plan(spec, tell)
    cost = cost_of(planned, time.perf_counter() - start)
    if args.format == "table":
        print_view(dry_view(planned, cost))
        print_notes(planned.rows.notes)
        return 0
    axes = {name: len(values) for name, values in swept(spec)}
    body = {
        "sweep": spec.name, "deployments": planned.n_rows, "configurations": planned.n_cells,
        "blocks": len(planned.blocks), "memory_bytes": cost.memory_bytes, "seconds": cost.seconds,
        "build_s": cost.build_s, "compile_s": cost.compile_s,
    }  # fmt: skip
    if args.format == "json":
        print_json({**body, "axes": axes, "refused": dict(planned.rows.refused.most_common())})
    else:
        writer = csv.writer(sys.stdout, lineterminator="\n")
        writer.writerows([body, body.values()])
    return 0


def _document(answer: Sweep) -> dict[str, Any]:
    from sim.report.sweep import further

    plan = answer.plan
    head = {
        "sweep": plan.spec.name, "configurations": plan.n_cells, "deployments": plan.n_rows,
        "stored": answer.stored, "seconds": answer.seconds, "compile_s": answer.compile_s,
        "refused": dict(plan.rows.refused.most_common()), "notes": list(plan.rows.notes),
    }  # fmt: skip
    tables = {"best": answer.best, "top": answer.top, "front": answer.front, "failures": answer.failures}
    tables |= {title.lower().replace(" ", "_"): result for title, result in further(answer).items()}
    return {**head, **{name: document(result) for name, result in tables.items()}}


def _write_csv(answer: Sweep) -> None:
    """Best, top and front in one table, which of them a row is of in the first column."""
    tables = {"best": answer.best, "top": answer.top, "front": answer.front}
    rows = [{"answer": name, **row} for name, result in tables.items() for row in result.rows()]
    fields = dict.fromkeys(["answer", *(column for result in tables.values() for column in result)])
    writer = csv.DictWriter(sys.stdout, fieldnames=list(fields), lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
