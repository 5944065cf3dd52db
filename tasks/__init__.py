"""The stages, one Prefect task each: load inputs, call models/, store the result."""
