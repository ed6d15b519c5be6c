"""The training wing runs on a machine that has no ray, no datatrove, no hydra and no wandb."""

import subprocess
import sys

CODE = """
import sys

BLOCKED = ("hydra", "omegaconf", "ray", "datatrove", "wandb")
sys.modules |= dict.fromkeys(BLOCKED)  # None there: an import fails and find_spec finds nothing, as where it lacks
import fmtrain.train.__main__
import fmtrain.train.run
from fmtrain.models.device import device
from fmtrain.train.engine import import_deepspeed
import torch.distributed
torch.distributed.init_process_group("gloo", store=torch.distributed.HashStore(), rank=0, world_size=1)
import_deepspeed(device())
assert not [m for m in sys.modules if m.split(".")[0] in BLOCKED and sys.modules[m] is not None]
print("fine")
"""


def test_train_imports_none_of_the_other_wings() -> None:
    done = subprocess.run([sys.executable, "-c", CODE], capture_output=True, text=True, timeout=120)
    assert done.returncode == 0 and "fine" in done.stdout, done.stderr


def test_a_wrong_setting_is_told_without_torch() -> None:
    code = "import sys, fmtrain.train.__main__; assert not {'torch', 'deepspeed', 'transformers'} & set(sys.modules)"
    subprocess.run([sys.executable, "-c", code], check=True, timeout=60)
