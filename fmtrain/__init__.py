"""fmtrain: from raw text to an aligned, evaluated, versioned model with one configuration.

    import fmtrain

    print(fmtrain.plan(["recipe=quickstart"]))
    made = fmtrain.run(["recipe=quickstart"])
    model, tokenizer = fmtrain.Store().version("quickstart@v1").load()

More in docs/python.md. Importing it imports nothing else: what stands behind these names is fetched when one is used.
"""

from typing import TYPE_CHECKING, Any

from fmtrain.errors import FmtrainError

__version__ = "0.1.0"
__all__ = ["FmtrainError", "Plan", "PlannedStage", "Run", "Store", "Version", "plan", "run"]

if TYPE_CHECKING:
    from launch.python import Plan, PlannedStage, Run, Store, Version, plan, run


def __getattr__(name: str) -> Any:
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    import launch.python

    return getattr(launch.python, name)


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
