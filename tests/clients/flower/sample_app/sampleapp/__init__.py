"""sampleapp: A Flower / NumPy app."""
