"""Measurements by known instruments: what their files hold, and the linear maps from an unknown density to the data.

- `dipolar`: traces of four-pulse DEER, from distributions of distances.
- `relaxation`: impedance spectra, from distributions of relaxation times.
- `files`: their file formats.
"""
