"""What stages leave behind: references, the store, run records, figures. No TensorFlow."""
