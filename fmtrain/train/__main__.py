"""`python -m fmtrain.train STAGE_DIR`: one rank of a training stage; RANK, WORLD_SIZE and so on in the environment."""

from fmtrain.train.signals import STOP

STOP.install()  # before the imports that take seconds

from fmtrain.artifacts.stage import Stage  # noqa: E402
from fmtrain.artifacts.worker import Result, main, world_size  # noqa: E402
from fmtrain.kinds.train import TrainJob  # noqa: E402
from fmtrain.train.settings import derive  # noqa: E402


def run(stage: Stage) -> Result:
    STOP.framed = True
    job = stage.job_as(TrainJob)
    settings = derive(job, stage.stage, world_size())  # a wrong setting is told before torch is imported
    from fmtrain.train.run import train

    return train(stage, job, settings)


if __name__ == "__main__":
    main(run)
