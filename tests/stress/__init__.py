"""Stress checks: what must never happen, tried in many ways. `tests.stress.reliability` runs all of them.

Every module here has a function `check` with the number of cases as its argument; the tests call it with few, the study
with many. What went wrong is listed in words, so that it can be tried again by its seed.
"""
