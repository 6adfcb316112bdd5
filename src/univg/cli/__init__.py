"""The command `univg`: a verb a file, which parses a config, calls, and prints."""
