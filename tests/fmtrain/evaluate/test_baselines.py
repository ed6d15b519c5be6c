"""Compressors against the commands of the same name, and the unigram against a count by hand."""

import math
import subprocess

import numpy as np
import pytest

from fmtrain.evaluate.baselines import NATS_PER_BYTE, gzip_nats, unigram, xz_nats
from tests.needs import need

DATA = ("".join(f"def f{i}(x):\n    return x * {i * 7919 % 101}\n" for i in range(400))).encode()


def command(*argv: str) -> int:
    need("compressors")
    return len(subprocess.run(argv, input=DATA, capture_output=True, check=True).stdout)


def test_gzip_is_the_commands_size() -> None:
    # GNU gzip has its own deflate; zlib's differs from it by a few bytes in a thousand
    assert gzip_nats(DATA) / NATS_PER_BYTE == pytest.approx(command("gzip", "-9n"), rel=0.01)


def test_xz_is_the_commands_size() -> None:
    assert xz_nats(DATA) / NATS_PER_BYTE == pytest.approx(command("xz", "-9", "-T1"), abs=16)


def test_unigram_is_add_one_without_the_marks() -> None:
    cost = unigram(np.array([1000, 3, 0, 1]), never=[0])
    assert cost[0] == math.inf
    assert np.exp(-cost[1:]) == pytest.approx([4 / 7, 1 / 7, 2 / 7])
