"""A model in, numbers and samples out: reference log-probabilities, the evaluation and its report.

`records` says what an evaluation holds and imports no torch, so that publishing can read one. Knows nothing of
training.
"""
