"""Benchmarks: runs that can be killed and resumed, and the reports made of them."""
