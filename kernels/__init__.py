"""Pure JAX kernels: arrays in, arrays out. They never raise, do no I/O and know no names."""

import os

ROOFCAST = True  # the import name is also that of another package; `sim` looks for this

# On a CPU, XLA makes one kernel of a small loop; otherwise each operation of each turn is dispatched by itself, which
# takes ten times as long as the work in `serving.advance`. It reads the flag when it compiles for the first time.
LOOP_FLAG = "xla_cpu_small_while_loop_byte_threshold"
if LOOP_FLAG not in os.environ.get("XLA_FLAGS", ""):
    os.environ["XLA_FLAGS"] = (
        f"{os.environ.get('XLA_FLAGS', '')} --xla_backend_extra_options={LOOP_FLAG}=4194304".strip()
    )
