"""Every request of a simulation as a table in a file."""

from __future__ import annotations

import io
import os
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import pyarrow as pa

from sim.files import write_whole
from sim.serving.runs import Run


def write_requests(runs: Mapping[tuple[str, float], Sequence[Run]], path: str | os.PathLike[str], unit: str) -> None:
    """A row for each request, in the order of the traffic; what it did not come to is empty. Parquet or CSV by suffix.

    unit: of the levels.
    `arrival_s`, `scheduled_s`, `first_token_s` and `finish_s` are seconds on the clock of the simulation, from 0 in
    each run; `ttft_s`, `tpot_s` and `e2e_s` are as users see them, with the engine's front end. `replica` counts from
    1, and is empty where no replica was asked. In Parquet each field says its unit ("1" of a count).
    """
    parts = [
        _table(label, level, i, run, unit) for (label, level), several in runs.items() for i, run in enumerate(several)
    ]
    table = pa.concat_tables(parts) if parts else pa.table({})
    buffer = io.BytesIO()
    if Path(path).suffix.lower() == ".parquet":
        import pyarrow.parquet

        pyarrow.parquet.write_table(table, buffer)
    else:
        import pyarrow.csv

        pyarrow.csv.write_csv(table, buffer, pyarrow.csv.WriteOptions(quoting_style="needed"))
    write_whole(path, buffer.getvalue())


def _table(label: str, level: float, replication: int, run: Run, unit: str) -> pa.Table:
    n = len(run.requests)
    columns = {
        "deployment": np.full(n, label),
        "level": np.full(n, float(level)),
        "replication": np.full(n, replication + 1),
        "request": np.arange(1, n + 1),
        "replica": pa.array(run.replica + 1, mask=run.too_long),
        "arrival_s": run.arrival_s,
        "prompt_tokens": run.requests.prompt_tokens,
        "output_tokens": run.requests.output_tokens,
        "scheduled_s": run.scheduled_s,
        "first_token_s": run.first_token_s,
        "finish_s": run.finish_s,
        "ttft_s": run.ttft_s,
        "tpot_s": run.tpot_s,
        "e2e_s": run.e2e_s,
        "n_preemptions": run.n_preemptions,
        "status": run.status,
    }
    arrays = {name: pa.array(values, from_pandas=True) for name, values in columns.items()}
    units = {name: _unit(name, unit) for name in columns}
    fields = [pa.field(name, array.type, metadata={"unit": units[name]}) for name, array in arrays.items()]
    return pa.table(list(arrays.values()), schema=pa.schema(fields))


def _unit(name: str, load: str) -> str:
    if name in ("deployment", "status"):
        return ""
    return load if name == "level" else "s" if name.endswith("_s") else "tokens" if name.endswith("_tokens") else "1"
