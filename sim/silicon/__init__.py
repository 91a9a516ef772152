"""Measured GPU kernels: the optional package `aiconfigurator-core` read as samples, and efficiencies fitted to them.

`tables` finds and reads, `cases` puts a kernel into the pytrees that the forecast takes, `fit` finds the efficiencies
at which the forecast's own functions give the measured seconds. `python -m sim.silicon` writes catalog/silicon.toml.
"""
