"""`python -m fmtrain.publish STAGE_DIR`: the publish stage."""

from fmtrain.artifacts.stage import Stage
from fmtrain.artifacts.worker import Result, main


def run(stage: Stage) -> Result:
    from fmtrain.publish import publish  # here, where it dies with its parent: it takes a second

    return publish.run(stage)


if __name__ == "__main__":
    main(run)
