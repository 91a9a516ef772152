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


def write_requests(runs: Mapping[tuple[str, float], Sequence[Run]], path: str | os.PathLike[str]) -> None:
    """A row for each request, in the order of the traffic; what it did not come to is empty. Parquet or CSV by suffix.

    Times are seconds: `arrival_s` and `scheduled_s` on the clock of the simulation, the others as users see them.
    """
    parts = [_table(label, level, i, run) for (label, level), several in runs.items() for i, run in enumerate(several)]
    table = pa.concat_tables(parts) if parts else pa.table({})
    buffer = io.BytesIO()
    if Path(path).suffix.lower() == ".parquet":
        import pyarrow.parquet

        pyarrow.parquet.write_table(table, buffer)
    else:
        import pyarrow.csv

        pyarrow.csv.write_csv(table, buffer, pyarrow.csv.WriteOptions(quoting_style="needed"))
    write_whole(path, buffer.getvalue())


def _table(label: str, level: float, replication: int, run: Run) -> pa.Table:
    n = len(run.requests)
    columns = {
        "deployment": np.full(n, label),
        "level": np.full(n, float(level)),
        "replication": np.full(n, replication + 1),
        "request": np.arange(1, n + 1),
        "arrival_s": run.arrival_s,
        "prompt_tokens": run.requests.prompt_tokens,
        "output_tokens": run.requests.output_tokens,
        "scheduled_s": run.scheduled_s,
        "ttft_s": run.ttft_s,
        "tpot_s": run.tpot_s,
        "e2e_s": run.e2e_s,
        "n_preemptions": run.n_preemptions,
        "status": run.status,
    }
    return pa.table({name: pa.array(values, from_pandas=True) for name, values in columns.items()})
