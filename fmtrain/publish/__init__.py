"""A Hugging Face folder to hand on: the model's files, a model card, and where it came from. Imports no torch."""
