"""`python -m fmtrain.evaluate STAGE_DIR`: the reference and the evaluate stage, one process each."""

from fmtrain.errors import ConfigError
from fmtrain.evaluate import evaluate, reference
from fmtrain.run import worker
from fmtrain.run.stage import Stage

STAGES = {"reference": reference.run, "evaluate": evaluate.run}


def run(stage: Stage) -> worker.Result:
    """Dispatch on the stage's name."""
    if stage.stage not in STAGES:
        raise ConfigError(f"fmtrain.evaluate runs the stages {', '.join(STAGES)}, not {stage.stage!r}")
    return STAGES[stage.stage](stage)


if __name__ == "__main__":
    worker.main(run)
