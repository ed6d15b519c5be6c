"""Weight decay falls on matrices alone."""

import torch
from transformers import PreTrainedTokenizerBase

from fmtrain.schema.training import AdamW
from fmtrain.train.optim import build_optimizer
from tests.fmtrain.fixtures import tiny_bert, tiny_llama


def test_decay_groups(tokenizer: PreTrainedTokenizerBase) -> None:
    for model in (tiny_llama(tokenizer), tiny_bert(tokenizer)):
        frozen = next(model.parameters())
        frozen.requires_grad_(False)
        optimizer = build_optimizer(AdamW(weight_decay=0.3), model.named_parameters())
        decay = {id(p): g["weight_decay"] for g in optimizer.param_groups for p in g["params"]}
        for name, parameter in model.named_parameters():
            if parameter is frozen:
                assert id(parameter) not in decay
            else:
                assert decay[id(parameter)] == (0.3 if parameter.dim() >= 2 else 0.0), name
                assert ("norm" in name.lower() or name.endswith("bias")) == (parameter.dim() < 2), name


def test_an_empty_group_is_left_out() -> None:
    layer = torch.nn.Linear(2, 2, bias=False)
    assert len(build_optimizer(AdamW(), layer.named_parameters()).param_groups) == 1
