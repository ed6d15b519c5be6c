"""`python -m fmtrain.evaluate STAGE_DIR`: the reference and the evaluate stage, one process each."""

from fmtrain.errors import ConfigError
from fmtrain.run.stage import Stage
from fmtrain.run.worker import Result, main


def run(stage: Stage) -> Result:
    """Dispatch on the stage's name."""
    from fmtrain.evaluate import evaluate, reference  # here, where it dies with its parent: it takes seconds

    stages = {"reference": reference.run, "evaluate": evaluate.run}
    if stage.stage not in stages:
        raise ConfigError(f"fmtrain.evaluate runs the stages {', '.join(stages)}, not {stage.stage!r}")
    return stages[stage.stage](stage)


if __name__ == "__main__":
    main(run)
