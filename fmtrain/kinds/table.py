"""The table of the kinds of stages: a recipe is any stages of these kinds in any order."""

from fmtrain.kinds import corpus, evaluate, examples, publish, reference, tokenizer, tokens, train
from fmtrain.kinds.base import KINDS, register

for _kind in (
    corpus.Corpus(), tokenizer.MakeTokenizer(), tokens.MakeTokens(), examples.MakeExamples(), train.Train(),
    reference.Reference(), evaluate.Evaluate(), publish.Publish(),
):  # fmt: skip
    register(_kind)

__all__ = ["KINDS"]
