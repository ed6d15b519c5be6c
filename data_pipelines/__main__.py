"""`python -m data_pipelines STAGE_DIR`: dispatch by the stage's name. Only that stage's imports are paid."""

import importlib

from fmtrain.errors import ConfigError
from fmtrain.run.stage import Stage
from fmtrain.run.worker import Result, main

STAGES = {
    "corpus": "data_pipelines.stages.corpus",
    "tokenizer": "data_pipelines.stages.tokenizer",
    "tokens": "data_pipelines.stages.tokens",
    "examples": "data_pipelines.stages.examples",
}


def run(stage: Stage) -> Result:
    if stage.stage not in STAGES:
        raise ConfigError(f"stage {stage.stage!r} is not one of the corpus wing's: {', '.join(STAGES)}")
    result: Result = importlib.import_module(STAGES[stage.stage]).run(stage)
    return result


if __name__ == "__main__":
    main(run)
