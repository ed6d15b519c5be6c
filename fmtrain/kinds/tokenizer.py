"""A tokenizer, trained on a corpus or taken as it stands and measured on one."""

from dataclasses import dataclass, field

from fmtrain.artifacts.model_folder import model_files
from fmtrain.artifacts.storage import expanded
from fmtrain.kinds.base import At, Kind, Role, Stage
from fmtrain.schema.tokenizers import Existing, Tokenizer


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

    def roles(self, at: At) -> list[Role]:
        return [Role("corpus", ("corpus",), optional=isinstance(at.root.tokenizer, Existing))]

    def job(self, at: At, inputs: dict[str, str]) -> TokenizerJob:
        given = at.root.tokenizer
        if isinstance(given, Existing) and given.path:
            folder = expanded(given.path, f"tokenizer.path={given.path}")
            if folder.is_dir():
                model_files(folder)
        return TokenizerJob(given, at.cfg)
