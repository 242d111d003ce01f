"""What solving consists of, in NumPy and SciPy; knows neither families nor training."""
