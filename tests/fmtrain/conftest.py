"""Makes `tests.fmtrain.fixtures` importable and its fixtures known to every test of the training wing."""

import os
import sys
from pathlib import Path

os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ.setdefault("HF_HUB_OFFLINE", "1")
sys.path.insert(0, str(Path(__file__).parents[2]))

from tests.fmtrain.fixtures import llama_folder, tokenizer, tokenizer_folder, tokens_folder

__all__ = ["llama_folder", "tokenizer", "tokenizer_folder", "tokens_folder"]
