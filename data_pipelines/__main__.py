"""`python -m data_pipelines STAGE_DIR`: dispatch by what it makes. Only that stage's imports are paid."""

import importlib

from fmtrain.artifacts.stage import Stage
from fmtrain.artifacts.worker import Result, main
from fmtrain.errors import ConfigError

STAGES = {
    "corpus": "data_pipelines.stages.corpus",
    "tokenizer": "data_pipelines.stages.tokenizer",
    "tokens": "data_pipelines.stages.tokens",
    "examples": "data_pipelines.stages.examples",
}


def run(stage: Stage) -> Result:
    if stage.kind not in STAGES:
        raise ConfigError(f"a {stage.kind} is not one of what the corpus wing makes: {', '.join(STAGES)}")
    result: Result = importlib.import_module(STAGES[stage.kind]).run(stage)
    return result


if __name__ == "__main__":
    main(run)
