"""What `import fmtrain` offers: to plan, to run, and to look into a store, in a notebook or a program.

The foundation's one door opens onto this room (fmtrain/__init__.py). Hydra, Ray and transformers are imported by what
needs them, when it is called.
"""

from launch.python.runs import Plan, PlannedStage, Run, plan, run
from launch.python.store import Store, Version

__all__ = ["Plan", "PlannedStage", "Run", "Store", "Version", "plan", "run"]
