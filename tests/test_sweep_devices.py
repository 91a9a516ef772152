"""Several local devices: rows of a block lie side by side on them, and every byte is that of one device."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import jax
import numpy as np
import pytest

from sim.sweeps.devices import place_rows

ROOT = Path(__file__).parents[1]
SWEPT = """
import hashlib
import jax
import numpy as np
import sim.sweeps.plan as plans
from sim.sweeps.blocks import Sweeper
from sim.sweeps.devices import place_rows
from sim.sweeps.run import in_process, run
from sim.sweeps.store import packed
from sim.verbs.sweep import evaluation
from tests.sweeps import small

placed = [len(place_rows({"a": np.zeros((n, 3)), "b": np.zeros(n)})["a"].devices()) for n in (8, 12, 6, 7)
          if jax.local_device_count() > 1 and n != 7]
seven = place_rows(np.zeros(7))
plans.BLOCK_CELLS = 640
plan = plans.plan(small())
of, found, *_ = Sweeper(plan).cells(plan.blocks[0])
part = run(plan, in_process(evaluation(plan, "front")))
print(jax.local_device_count(), placed, type(seven).__name__, plan.block_shape, len(found.tpot_s.devices()),
      hashlib.sha256(packed(part)).hexdigest(), sep="|")
"""


def swept(n_devices: int) -> list[str]:
    environment = {
        **os.environ, "PYTHONPATH": str(ROOT), "JAX_PLATFORMS": "cpu",
        "XLA_FLAGS": f"--xla_force_host_platform_device_count={n_devices}",
    }  # fmt: skip
    done = subprocess.run([sys.executable, "-c", SWEPT], env=environment, capture_output=True, text=True, cwd=ROOT)
    assert done.returncode == 0, done.stderr
    return done.stdout.strip().split("|")


def test_four_devices_give_the_bytes_of_one():
    one, four = swept(1), swept(4)
    assert one[:5] == ["1", "[]", "ndarray", "(5, 8)", "1"]
    assert four[:5] == ["4", "[4, 4, 3]", "ndarray", "(5, 8)", "4"]  # five rows are padded to eight
    assert four[5] == one[5]


def test_one_device_takes_the_rows_as_they_are():
    assert jax.local_device_count() == 1
    tree = {"a": np.zeros((6, 2))}
    assert place_rows(tree) is tree


def test_arrays_of_different_rows_are_refused():
    with pytest.raises(ValueError, match=r"arrays of \[5, 6\] rows do not share an axis of rows"):
        place_rows((np.zeros(5), np.zeros(6)))
