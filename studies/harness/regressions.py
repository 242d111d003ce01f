"""Real regressions that come with statsmodels."""

from __future__ import annotations

import numpy as np

from algebraformer.errors import ConfigurationError
from algebraformer.linalg import FloatArray


def real_problem(name: str) -> tuple[FloatArray, FloatArray]:
    """Return A (m, n), a constant and the explanatory variables, and b (m,) or (m, 2) of a data set of statsmodels."""
    try:
        import statsmodels.datasets as datasets
    except ImportError as error:
        raise ConfigurationError('statsmodels is missing: pip install "algebraformer[study]"') from error
    data = getattr(datasets, name).load_pandas()
    A = np.asarray(data.exog, dtype=np.float64)
    A = A[:, np.ptp(A, axis=0) > 0]
    return np.column_stack((np.ones(len(A)), A)), np.asarray(data.endog, dtype=np.float64)
