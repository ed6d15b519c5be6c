"""Flat token shards of a corpus's training documents, or of a Megatron data set."""

from dataclasses import dataclass, field

from fmtrain.kinds.base import At, Kind, Role, Stage
from fmtrain.schema import mixture
from fmtrain.schema.fields import files
from fmtrain.schema.limits import Positive
from fmtrain.schema.mixture import Mixture


@dataclass
class TokensStage(Stage):
    """Flat token shards of the training documents."""

    kind: str = "tokens"
    shard_tokens: Positive = 4_000_000
    megatron: bool = False  # the same documents also as megatron/text_document.bin and .idx
    from_megatron: list[str] = files()  # PREFIX.bin and PREFIX.idx of datasets, instead of a corpus
    mixture: Mixture = field(default_factory=Mixture)


@dataclass
class TokensJob:
    stage: TokensStage = field(default_factory=TokensStage)


class MakeTokens(Kind):
    name, config, makes, revision = "tokens", TokensStage, "tokens", 3
    worker, code = "data_pipelines", ("data_pipelines.stages.tokens",)
    seconds, per_mb = 0.5, 0.3

    def check(self, at: At) -> None:
        mixture.check(at.cfg.mixture, at.key)

    def roles(self, at: At) -> list[Role]:
        corpus = [] if at.cfg.from_megatron else [Role("corpus", ("corpus",), several=True)]
        return [*corpus, Role("tokenizer", ("tokenizer",))]

    def job(self, at: At, inputs: dict[str, str]) -> TokensJob:
        return TokensJob(at.cfg)
