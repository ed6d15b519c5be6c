"""`python -m fmtrain.evaluate STAGE_DIR`: the reference and the evaluate stage, one process each."""

from fmtrain.artifacts.stage import Stage
from fmtrain.artifacts.worker import Result, main
from fmtrain.errors import ConfigError


def run(stage: Stage) -> Result:
    """Dispatch on what is made."""
    from fmtrain.evaluate import evaluate, reference  # here, where it dies with its parent: it takes seconds

    makers = {"reference": reference.run, "evaluation": evaluate.run}
    if stage.kind not in makers:
        raise ConfigError(f"fmtrain.evaluate makes {', '.join(makers)}, and no {stage.kind}")
    return makers[stage.kind](stage)


if __name__ == "__main__":
    main(run)
