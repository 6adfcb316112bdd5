"""A folder of tasks for lmms-eval (`--include_path`): its models on our benchmarks, scored by our functions."""
