"""Decoding kernels in C for processors: built at first use where there is a C compiler, and never needed."""
