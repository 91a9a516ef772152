"""The only home of unit factors. GB is 1e9 bytes, GiB is 2**30 bytes; inside the library everything is SI."""

GB = 1e9
GIB = 2.0**30
MIB = 2.0**20
TERA = 1e12
NANO = 1e-9
MICRO = 1e-6
MILLI = 1e-3
MILLION = 1e6
BITS_PER_BYTE = 8
S_PER_HOUR = 3600.0
HOURS_PER_DAY = 24
HOURS_PER_YEAR = 8760.0
J_PER_KWH = 3.6e6
SECONDS = {"ns": NANO, "us": MICRO, "ms": MILLI, "s": 1.0}
LONG = {"m": 60.0, "min": 60.0, "h": S_PER_HOUR, "d": HOURS_PER_DAY * S_PER_HOUR}
TOKENS = {"": 1, "k": 2**10, "m": 2**20}  # as engines count: a context of 128k is 131,072 tokens
