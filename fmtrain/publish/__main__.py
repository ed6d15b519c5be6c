"""`python -m fmtrain.publish STAGE_DIR`: the publish stage."""

from fmtrain.publish.publish import run
from fmtrain.run import worker

if __name__ == "__main__":
    worker.main(run)
