"""What stages leave behind: references, the content-addressed store, run records, figures. No TensorFlow."""
