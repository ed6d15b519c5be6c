"""Models and their tokenizers: built from random weights, loaded from a Hugging Face folder, saved as one."""

from fmtrain.models.build import MODELS, Task, build_model
from fmtrain.models.folder import check_fits, headless, load_body, load_model, load_tokenizer, save_model

__all__ = [
    "MODELS",
    "Task",
    "build_model",
    "check_fits",
    "headless",
    "load_body",
    "load_model",
    "load_tokenizer",
    "save_model",
]
