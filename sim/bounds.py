"""Bounds of what can be asked for: beyond them a number is a slip of the keyboard, and arithmetic overflows."""

LARGEST_COUNT = 2**31 - 1
MOST_DEVICES = 1_000_000
MOST_LAYERS = 10_000
MOST_CONFIGURATIONS = 2**20
LEAST_SHARE = 0.001
LEAST_S = 1e-9
LEAST_CV = 1e-6  # of a gamma variate
LEAST_USD = 1e-6
MOST_USD = 1e12
LEAST_RATE, MOST_RATE = 1e-6, 1e6  # requests/s, or times the recorded rate
MOST_TOKENS = 10_000_000  # of one prompt or output
MOST_REQUESTS = 20_000_000  # of one run
MOST_CELLS = 10**13  # configurations of one sweep
