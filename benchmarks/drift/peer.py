"""Evidently or NannyML in a process of the peers' own environment: `.peers/bin/python -m benchmarks.drift.peer ...`.

Arguments: evidently|nannyml ROWS COLUMNS. Each gets whole frames of its own kind, made before the stopwatch starts; no
report is drawn or written. Evidently: `ValueDrift` of each column by PSI, the cheaper of its methods for large data
beside its default (Wasserstein distance); both are measured. NannyML: univariate drift by Jensen-Shannon distance over
ten chunks, `calculate` alone, its fitting apart.
"""

import json
import resource
import sys
import time
import warnings

import pandas as pd
from benchmarks.drift.data import columns, names


def main(peer: str, rows: int, count: int) -> dict[str, float]:
    """Seconds of processor time, and peak memory (MiB)."""
    before, now = (pd.DataFrame(columns(rows, count, part), columns=names(count)) for part in (0, 1))
    spent = _evidently(before, now) if peer == "evidently" else _nannyml(before, now)
    return spent | {"peak_mib": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024}


def _evidently(before: pd.DataFrame, now: pd.DataFrame) -> dict[str, float]:
    from evidently import DataDefinition, Dataset, Report  # type: ignore[import-not-found]
    from evidently.metrics import ValueDrift  # type: ignore[import-not-found]

    definition = DataDefinition(numerical_columns=list(now.columns))
    pair = [Dataset.from_pandas(frame, data_definition=definition) for frame in (now, before)]
    spent = {}
    for method in ("wasserstein", "psi"):
        begun = time.process_time()
        Report([ValueDrift(column=name, method=method) for name in now.columns]).run(*pair)
        spent[method] = time.process_time() - begun
    return spent


def _nannyml(before: pd.DataFrame, now: pd.DataFrame) -> dict[str, float]:
    from nannyml.drift.univariate import UnivariateDriftCalculator  # type: ignore[import-not-found]

    spent = {}
    for method in ("jensen_shannon", "kolmogorov_smirnov"):
        calculator = UnivariateDriftCalculator(
            column_names=list(now.columns), continuous_methods=[method], chunk_size=len(now) // 10
        )
        begun = time.process_time()
        calculator.fit(before)
        spent[f"{method} fit"] = time.process_time() - begun
        begun = time.process_time()
        calculator.calculate(now)
        spent[method] = time.process_time() - begun
    return spent


if __name__ == "__main__":
    warnings.filterwarnings("ignore")
    print(json.dumps(main(sys.argv[1], *map(int, sys.argv[2:]))))
