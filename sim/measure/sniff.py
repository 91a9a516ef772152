"""Which format a file has, by what is in it, and its rows through the reader of that format."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from sim.errors import clipped, did_you_mean, sentence
from sim.measure import figures, harness, llama_bench, local, reports, serving, silicon
from sim.measure.documents import cells_of, objects
from sim.measure.rows import Bad, Defaults, Measurement, Raw, Reading, Unusable, Unused, listed, place
from sim.measure.tables import best_separator, csv_records, markdown_tables
from sim.measure.text import lines_of

Reader = Callable[[Raw, Defaults], list[Measurement]]
FORMATS = (
    "CSV with the columns of docs/measurements.md, or of a serving, local or llama-bench table; JSON, JSONL or "
    "Markdown of llama-bench and llama-batched-bench; results of vllm bench, SGLang bench_serving, GuideLLM, AIPerf, "
    "mlx_lm.benchmark"
)


@dataclass(frozen=True)
class Table:
    """A kind of CSV: any of the marks and all of the required columns tell it; of `others` those that it may have."""

    marks: tuple[str, ...]
    required: tuple[str, ...]
    read: Reader
    others: tuple[str, ...] = ()

    def missing(self, header: Sequence[str], defaults: Defaults) -> list[str]:
        """Required columns that neither the header nor the command line has."""
        stated = {column for column, field in STATED.items() if getattr(defaults, field)}
        return [name for name in self.required if name not in header and name not in stated]


TABLES = (
    Table(figures.MARKS, figures.REQUIRED, figures.read_row, figures.OPTIONAL),
    Table(serving.MARKS, serving.REQUIRED, serving.read_row),
    Table(local.MARKS, local.REQUIRED, local.read_row),
    Table(llama_bench.BENCH_MARKS, llama_bench.BENCH_REQUIRED, llama_bench.read_bench),
    Table(silicon.MARKS, silicon.REQUIRED, silicon.read_row),
)
STATED = {"model": "model", "hardware": "hardware", "engine": "engine", "quant": "weights"}  # column: Defaults' field
# The fields that tell one harness's JSON from another's, the most telling first.
ENTRIES: tuple[tuple[tuple[str, ...], Reader], ...] = (
    (("avg_ts", "n_gen"), llama_bench.read_bench),
    (("speed_pp", "pl"), llama_bench.read_batched),
    (("mean_e2e_latency_ms", "total_output_tokens"), harness.read_sglang),
    (("request_throughput", "total_output_tokens"), harness.read_vllm_serve),
    (("avg_latency", "latencies"), harness.read_vllm_latency),
    (("elapsed_time", "total_num_tokens"), harness.read_vllm_throughput),
    (("metrics", "config"), reports.read_guidellm),
    (("metrics", "args"), reports.read_guidellm),
    (("request_latency", "input_config"), reports.read_aiperf),
)
KNOWN_COLUMNS = frozenset(name for table in TABLES for name in (*table.marks, *table.required))
BATCHED_COLUMNS = ("PP", "TG", "B", "S_PP t/s", "S_TG t/s")


def read_document(text: str, where: str, defaults: Defaults) -> Reading:
    """Everything in the text of one file, whatever its format."""
    reading = Reading()
    lines = lines_of(text)
    if text.lstrip()[:1] in ("{", "["):
        _read_json(text, where, defaults, reading)
    elif not _read_log(text, lines, where, defaults, reading):
        _read_csv(lines, where, defaults, reading)
    return reading


def _read_json(text: str, where: str, defaults: Defaults, reading: Reading) -> None:
    found, broken = objects(text, where)
    for line, problem in broken:
        reading.problems.append(problem)
        reading.unused.append(Unused(where, line, {}, "not readable", problem))
    entries = [pair for at, entry in found for pair in _benchmarks(at, entry)]
    if not entries and not broken:
        reading.problems.append(sentence("holds no result", place(where, 1), f"expected {FORMATS}"))
    for at, entry in entries:
        _take(Raw(where, at, cells_of(entry), entry), _entry_reader(entry), defaults, reading)
    _note_not_read([entry for _, entry in entries], where, reading)


def _note_not_read(entries: Sequence[dict[str, Any]], where: str, reading: Reading) -> None:
    """One note of a file on the figures of its results that no measurement is made of."""
    reports_of = [e for e in entries if _entry_reader(e) in (reports.read_guidellm, reports.read_aiperf)]
    named = dict.fromkeys(name for entry in reports_of for name in reports.not_read(entry))
    if named and reading.measurements:
        reading.notes.append(f"{clipped(where)}: not read: {', '.join(map(clipped, named))}")


def _benchmarks(at: int, entry: dict[str, Any]) -> list[tuple[int, dict[str, Any]]]:
    """The benchmarks of a GuideLLM report, counted from 1, with the model that the report names; else the entry."""
    listed = entry.get("benchmarks")
    if not isinstance(listed, list):
        return [(at, entry)]
    args = entry.get("args") if isinstance(entry.get("args"), dict) else {}
    model = args.get("model") or (args.get("backend_kwargs") or {}).get("model")  # type: ignore[union-attr]
    told = {"worker": {"backend_model": model}} if model else {}
    return [(n, {**told, **each}) for n, each in enumerate(listed, 1) if isinstance(each, dict)]


def _entry_reader(entry: dict[str, Any]) -> Reader:
    for fields, read in ENTRIES:
        if all(name in entry for name in fields):
            return read
    return _unknown


def _unknown(raw: Raw, defaults: Defaults) -> list[Measurement]:
    shown = ", ".join(list(raw.columns)[:4]) or "nothing"
    raise Bad("unknown format", f"no benchmark's result is known by the fields {clipped(shown)}", f"expected {FORMATS}")


def _read_log(text: str, lines: Sequence[str], where: str, defaults: Defaults, reading: Reading) -> bool:
    """Tables and averages that a tool printed, amid its log; False where there are none."""
    runs = reports.mlx_runs(list(lines)) if "generation_tps=" in text else []
    for line, columns in runs:
        _take(Raw(where, line, columns), reports.read_mlx, defaults, reading)
    facts: dict[str, str] | None = None
    for _, header, rows in markdown_tables(lines):
        reader = _table_reader(header)
        facts = llama_bench.log_facts(text) if facts is None else facts
        for line, values in rows if reader else ():
            raw = Raw(where, line, {**facts, **dict(zip(header, values, strict=False))})
            wrong = len(values) != len(header)
            _take(raw, _wrong_width if wrong else reader, defaults, reading)  # type: ignore[arg-type]
    return bool(runs or reading.measurements or reading.unused)


def _table_reader(header: list[str]) -> Reader | None:
    if {"test", "t/s", "model"} <= set(header):
        return llama_bench.read_markdown
    return llama_bench.read_batched if set(BATCHED_COLUMNS) <= set(header) else None


def _read_csv(lines: Sequence[str], where: str, defaults: Defaults, reading: Reading) -> None:
    start = next((n for n, line in enumerate(lines, 1) if line.strip()), 0)
    if not start:
        return
    separator, header = best_separator(lines[start - 1], KNOWN_COLUMNS)
    table = _nearest_table(header, defaults)
    if table is None or len(KNOWN_COLUMNS & set(header)) < 2:
        reading.problems.append(sentence("the format is not known", place(where, start), f"expected {FORMATS}"))
        return
    records = csv_records(lines, start + 1, separator)
    if problem := _header_problem(table, header, defaults):
        reading.problems.append(sentence(problem[0], place(where, start), problem[1]))
        for line, values in records:
            columns = dict(zip(header, values or (), strict=False))
            reading.unused.append(Unused(where, line, columns, "columns missing", problem[0]))
        return
    for raw, read in _rows(records, where, header, table):
        _take(raw, read, defaults, reading)
    if not (reading.measurements or reading.unused):
        reading.problems.append(sentence("holds no row below its header", place(where, start)))


def _nearest_table(header: Sequence[str], defaults: Defaults) -> Table | None:
    """The kind of table that lacks nothing, else the one that has the most columns for each that is missing.

    None where no kind has a mark among the columns.
    """
    marked = [table for table in TABLES if set(table.marks) & set(header)]
    whole = next((table for table in marked if not table.missing(header, defaults)), None)

    def nearness(table: Table) -> int:
        known = {*table.marks, *table.required, *table.others}
        return len(known & set(header)) - len(table.missing(header, defaults))

    return whole or (max(TABLES, key=nearness) if marked else None)


def _header_problem(table: Table, header: list[str], defaults: Defaults) -> tuple[str, str] | None:
    """(what is wrong, hint): a column that is missing and not stated on the command line, or there twice."""
    twice = sorted({name for name in header if name and header.count(name) > 1})
    if twice:
        return f"the column {twice[0]} stands twice", "rename or remove one"
    missing = table.missing(header, defaults)
    if not missing:
        return None
    named = ", ".join(missing)
    options = [f"--{STATED[name]}" for name in missing if name in STATED]
    state = f", or state {listed(options)}" if options else ""
    columns = f"such a table has the columns {', '.join(table.required)}: add what is missing{state}"
    hint = did_you_mean(missing[0], set(header) - set(table.required)) or columns
    return f"the column{'s' * (len(missing) > 1)} {named} {'are' if len(missing) > 1 else 'is'} missing", hint


def _rows(
    records: Iterator[tuple[int, list[str] | None]], where: str, header: list[str], table: Table
) -> Iterator[tuple[Raw, Reader]]:
    for line, values in records:
        raw = Raw(where, line, dict(zip(header, values or (), strict=False)))
        if values is None:
            yield raw, _open_quote
        else:
            yield raw, table.read if len(values) == len(header) else _wrong_width


def _wrong_width(raw: Raw, defaults: Defaults) -> list[Measurement]:
    what = "the row has not as many cells as the header"
    raise Bad("not readable", what, "quote cells that hold the separator")


def _open_quote(raw: Raw, defaults: Defaults) -> list[Measurement]:
    raise Bad("not readable", "a quote is opened in this line and not closed", 'write a quote within a cell as ""')


def _take(raw: Raw, read: Reader, defaults: Defaults, reading: Reading) -> None:
    """The row's measurements, or the row among the unused; a mistake in it is a problem as well."""
    try:
        reading.measurements.extend(read(raw, defaults))
        return
    except Unusable as error:
        why = error
    except (LookupError, TypeError, ValueError, AttributeError, ArithmeticError) as error:
        if not raw.entry:
            raise
        missing = isinstance(error, KeyError)
        what = f"the result lacks the field {error}" if missing else f"the result is not shaped as expected ({error})"
        why = Bad("not readable", what, "write it again with the benchmark's own option")
    reading.unused.append(Unused(raw.file, raw.line, raw.columns, why.reason, why.detail))
    if isinstance(why, Bad):
        reading.problems.append(sentence(why.detail, place(raw.file, raw.line), why.hint))
