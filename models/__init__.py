"""What is computed: settings, datasets, networks, training. TensorFlow and NumPy; no Prefect."""
