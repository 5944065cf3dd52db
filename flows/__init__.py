"""The flows and the command line: order, names and parameters. Computes nothing."""
