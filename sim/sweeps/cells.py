"""Cells of a block as a Parquet file: one of a dataset that any reader of Parquet takes as one table."""

from __future__ import annotations

import io
from collections.abc import Mapping

import numpy as np
import pyarrow as pa
import pyarrow.parquet

FRACTIONS = ("gpu_memory_utilization", "usd_per_gpu_hour", "usd_factor")


def to_parquet(columns: Mapping[str, np.ndarray], units: Mapping[str, str]) -> bytes:
    """Columns of equal length, each with its unit in the field's metadata; equal columns give equal bytes.

    units: name -> unit, "" for text. A column of objects is text or, with a unit, whole numbers, of which None is
    missing; its type follows from the name, so that all blocks have one schema.
    """
    kinds = {name: _type(name, values, units[name]) for name, values in columns.items()}
    fields = [pa.field(name, kind, metadata={"unit": units[name]}) for name, kind in kinds.items()]
    arrays = [pa.array(a, type=field.type) for a, field in zip(columns.values(), fields, strict=True)]
    out = io.BytesIO()
    pyarrow.parquet.write_table(pa.Table.from_arrays(arrays, schema=pa.schema(fields)), out)
    return out.getvalue()


def _type(name: str, values: np.ndarray, unit: str) -> pa.DataType:
    if values.dtype != object:
        return pa.string() if values.dtype.kind == "U" else pa.from_numpy_dtype(values.dtype)
    if not unit:
        return pa.string()
    return pa.float64() if name in FRACTIONS else pa.int64()
