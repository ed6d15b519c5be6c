"""A tokenizer, trained on a corpus, or taken as it stands (from a folder, of a model) and measured on one."""

from dataclasses import dataclass, field

from fmtrain.artifacts.model_folder import is_tokenizers, model_files
from fmtrain.artifacts.storage import expanded
from fmtrain.errors import ConfigError
from fmtrain.kinds.base import At, Kind, Role, Stage, starts_from
from fmtrain.schema.tokenizers import Existing, OfModel, Tokenizer
from fmtrain.schema.training import Model


@dataclass
class TokenizerStage(Stage):
    kind: str = "tokenizer"


@dataclass
class TokenizerJob:
    tokenizer: Tokenizer
    stage: TokenizerStage = field(default_factory=TokenizerStage)


class MakeTokenizer(Kind):
    name, config, makes, revision = "tokenizer", TokenizerStage, "tokenizer", 2
    worker, code = "data_pipelines", ("data_pipelines.stages.tokenizer",)
    seconds, per_mb = 0.5, 0.3

    def check(self, at: At) -> None:
        if isinstance(at.root.tokenizer, OfModel) and not starts_from(at).given:
            raise ConfigError(
                f"tokenizer=model: the run starts from random weights (model={starts_from(at).name}), which have none; "
                "choose another, e.g. tokenizer=bpe"
            )

    def roles(self, at: At) -> list[Role]:
        theirs = isinstance(at.root.tokenizer, OfModel)
        corpus = Role("corpus", ("corpus",), optional=theirs or isinstance(at.root.tokenizer, Existing))
        return [corpus, Role("model", (), folder=True, counts=is_tokenizers)] if theirs else [corpus]

    def model(self, at: At) -> Model | None:
        return starts_from(at)

    def job(self, at: At, inputs: dict[str, str]) -> TokenizerJob:
        given = at.root.tokenizer
        if isinstance(given, Existing) and given.path:
            folder = expanded(given.path, f"tokenizer.path={given.path}")
            if folder.is_dir():
                model_files(folder)
        return TokenizerJob(given, at.cfg)
