"""Where compiled programs are kept, so that the next sweep and the other workers need not compile them again."""

from __future__ import annotations

import contextlib
import hashlib
import os
import platform
from pathlib import Path

import jax
from jax.experimental.compilation_cache import compilation_cache


def keep_compiled() -> Path | None:
    """Switches JAX's persistent compilation cache on, in `cache_dir()`, for this process; returns the folder in use.

    One that is set already ($JAX_COMPILATION_CACHE_DIR) stays. None where the folder cannot be written: programs are
    then compiled each time.
    """
    if jax.config.jax_compilation_cache_dir:
        return Path(jax.config.jax_compilation_cache_dir)
    folder = cache_dir()
    try:
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)  # who can write there can run code as this user
    except OSError:
        return None
    if not os.access(folder, os.W_OK):
        return None
    jax.config.update("jax_compilation_cache_dir", str(folder))
    compilation_cache.reset_cache()  # that none was set is remembered from the first compilation on
    jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.0)
    return folder


def cache_dir() -> Path:
    """$XDG_CACHE_HOME/roofcast/jax-ID, or ~/.cache/...; ID stands for the processor's instruction set, since machines
    that share a home must not run each other's programs.
    """
    home = os.environ.get("XDG_CACHE_HOME") or "~/.cache"
    known = hashlib.sha256(_instruction_set().encode()).hexdigest()[:8]
    return Path(os.path.expanduser(home)) / "roofcast" / f"jax-{known}"


def _instruction_set() -> str:
    with contextlib.suppress(OSError), open("/proc/cpuinfo", encoding="utf-8", errors="replace") as lines:
        for line in lines:
            if line.split(":")[0].strip() in ("flags", "Features"):
                return line
    return f"{platform.machine()} {platform.processor()}"
