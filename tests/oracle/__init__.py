"""The slow reference: plain float64 Python that counts what the kernels compute in closed form.

It loops over layers, sequences, tokens, ranks and stages, takes the same pytrees, and imports nothing of `kernels` but
their types. The scheduler stands alone: it has objects for requests and blocks where the kernel has counts.
"""
