"""Tests of the sans-I/O core: no sockets, no clocks, no trio."""
