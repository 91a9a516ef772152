"""Sweeps: a product of named axes, evaluated in blocks on the device, of which only what is asked for is kept."""
