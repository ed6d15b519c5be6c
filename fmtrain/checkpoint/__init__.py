"""Step checkpoints: begin, commit, latest, verify, prune. Knows files and hashes; knows nothing of torch or engines."""

from fmtrain.checkpoint.steps import Checkpoint, Files, Manifest, StepCheckpoints

__all__ = ["Checkpoint", "Files", "Manifest", "StepCheckpoints"]
