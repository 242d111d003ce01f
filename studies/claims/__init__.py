"""Every claim and open point of the summary of the paper that this project worked from, and what we found.

`summary.CLAIMS` lists them in the summary's order, in our own words. `make tables` fills in verdict and numbers from
the outcomes of results/*.json, each named by result and id. `facts.EVALUATED` makes outcomes from the numbers of
evaluations and benchmarks, and what needs no measurement is computed on the spot (`facts.FACTS`). A missing file, id or
number is an error.
"""
