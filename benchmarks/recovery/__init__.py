"""The parts of benchmarks/fit_recovery.py: what is true, what is drawn, what the estimator makes of it."""

import os

for _threads in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"):
    os.environ.setdefault(_threads, "1")  # before numpy: matrices of 3 by 8 only wait for threads
