"""The stages: one Prefect task each. Load inputs, call models/, store the result, return a reference."""
