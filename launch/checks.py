"""What two fields together must satisfy; each message names both fields and the mend."""

import dataclasses
import difflib
import os
import re
from collections import Counter
from collections.abc import Collection
from datetime import date
from operator import attrgetter

from fmtrain.errors import ConfigError
from fmtrain.schema import evaluation_sets, mixture, rules
from fmtrain.schema.fields import TEMPLATE_DATE, referenced
from fmtrain.schema.languages import LABELS
from fmtrain.schema.launch import Launch
from fmtrain.schema.root import Root
from fmtrain.schema.together import check_ranks, check_stage
from fmtrain.schema.training import Bert, Dpo, HuggingFace, Llama, Mlm, Model, Sft, TrainStage
from launch.backends.environment import environment

TRAINING = ("pretrain", "sft", "dpo")
NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,127}")  # the name of a folder: file systems end at 255 bytes, or 143
RANKS = re.compile("auto|[1-9][0-9]{0,5}")
RANGES = (  # groups with a least and a greatest value of one thing
    ("stages.examples", "prompt"),
    ("stages.examples", "response"),
    ("filter.length", "chars"),
    ("filter.length", "words"),
    ("filter.gopher_quality", "doc_words"),
    ("filter.gopher_quality", "avg_word_length"),
    ("filter.code", "length"),
)
NEEDS = {  # rule -> the settings of which it needs one
    "decontaminate": ("files", "sets"),
    "classifier": ("model",),
    "bad_words": ("lists",),
    "toxicity": ("lists", "model"),
}


def check(root: Root) -> None:
    """Raise ConfigError for the first contradiction."""
    if not any(getattr(root.stages, name) for name in vars(root.stages)):
        raise ConfigError("stages: no stage is left to run; choose a recipe, e.g. recipe=quickstart")
    _names(root)
    _date(root.template_date)
    _ranges(root)
    _corpus(root)
    if not RANKS.fullmatch(root.launch.ranks):
        raise ConfigError(f"launch.ranks={root.launch.ranks}: expected auto or a number of ranks, e.g. launch.ranks=2")
    _environment(root.launch)
    for name in TRAINING:
        stage = getattr(root.stages, name)
        if stage is not None:
            _training(root, name, stage)
    _reference(root)
    _evaluation(root)


def _names(root: Root) -> None:
    """An artifact's name is a folder's name, and one of its kind in a run."""
    seen: dict[tuple[str, str], str] = {}
    for stage, config in vars(root.stages).items():
        if config is None:
            continue
        key = f"stages.{stage}.artifact"
        if not NAME.fullmatch(config.artifact):
            raise ConfigError(
                f"{key}={config.artifact!r}: expected at most 128 letters, digits, '.', '_' and '-', "
                f"e.g. {key}=my-{stage}"
            )
        kind = "model" if stage in TRAINING else stage
        if (kind, config.artifact) in seen:
            raise ConfigError(
                f"{key}={config.artifact} is the name of {seen[kind, config.artifact]} too; give them two names"
            )
        seen[kind, config.artifact] = key


def _date(given: str) -> None:
    try:
        if date.fromisoformat(given).isoformat() == given:
            return
    except ValueError:
        pass
    raise ConfigError(f"template_date: {given!r} is no date; e.g. template_date={TEMPLATE_DATE}")


def _environment(launch: Launch) -> None:
    """Names of launch.env that cannot be passed on. What is set in a job, its `setup` may say: that is asked there."""
    outside = launch.name == "slurm" and "FMTRAIN_JOB" not in os.environ
    environment("compute", launch.env, dict.fromkeys(launch.env, "") if outside else os.environ)


def _ranges(root: Root) -> None:
    """A least value is not above the greatest; 0 as a greatest is none."""
    for group, what in RANGES:
        config = attrgetter(group)(root)
        low, high = getattr(config, f"min_{what}", 0), getattr(config, f"max_{what}", 0)
        if 0 < high < low:
            raise ConfigError(f"{group}.min_{what}={low} is above {group}.max_{what}={high}; change one of them")


def _corpus(root: Root) -> None:
    """Rules, steps and words that stand in lists are checked as strictly as keys."""
    if root.data.heldout_modulus == 1:
        raise ConfigError("data.heldout_modulus=1 sets every document apart; 20 a twentieth, 0 none")
    known = [f.name for f in dataclasses.fields(root.filter) if dataclasses.is_dataclass(f.type)]
    for rule in root.filter.rules:
        if rule not in known:
            raise ConfigError(f"filter.rules: there is no rule {rule!r}; {_among(rule, known)}")
    _rules(root.filter)
    if len(set(root.dedup.steps)) < len(root.dedup.steps):
        raise ConfigError(f"dedup.steps=[{','.join(root.dedup.steps)}]: a step stands twice; name each once")
    if root.stages.tokens is not None:
        mixture.check(root.stages.tokens.mixture)
    if root.dedup.keep == "score" and "classifier" not in root.filter.rules:
        raise ConfigError("dedup.keep=score needs classifier among filter.rules: it gives the score")


def _among(word: str, known: Collection[str]) -> str:
    near = difflib.get_close_matches(word, known, 1)
    return f"{f'did you mean {near[0]}? There' if near else 'there'} are {', '.join(known)}"


def _rules(config: rules.Filter) -> None:
    """What the chosen rules cannot do without, and shares that are none."""
    for rule, fields in NEEDS.items():
        given = [field for field in fields if getattr(getattr(config, rule), field)]
        if rule in config.rules and not given:
            raise ConfigError(f"filter.rules has {rule}, which needs filter.{rule}.{' or '.join(fields)}: give some")
    for one in referenced(config):
        rule = one.key.partition(".")[0]
        if rule not in config.rules:
            raise ConfigError(
                f"filter.{one.key} is given, and {rule} does not stand among filter.rules=[{','.join(config.rules)}]: "
                "it would not be applied. Add it, or take the setting away"
            )
    _languages(config)
    if len(config.gopher_repetition.top_n_grams) > 3:
        raise ConfigError(
            f"filter.gopher_repetition.top_n_grams={config.gopher_repetition.top_n_grams}: at most three limits, for "
            "n = 2, 3, 4; 1 is none"
        )
    labels = [evaluation_sets.parse(entry, "filter.decontaminate.sets").label for entry in config.decontaminate.sets]
    if twice := [label for label, times in Counter(labels).items() if times > 1]:
        raise ConfigError(
            f"filter.decontaminate.sets: two of {', '.join(config.decontaminate.sets)} are called {twice[0]}, and rows "
            "are named by that; name each once, or give a folder another name"
        )
    if len(set(config.rules)) < len(config.rules):
        raise ConfigError(f"filter.rules=[{','.join(config.rules)}]: a rule stands twice; name each once")
    if config.words != "fast" and not config.words.startswith("spacy-"):
        raise ConfigError(f"filter.words={config.words}: expected fast, or spacy-LANGUAGE, e.g. spacy-zh")


def _languages(config: rules.Filter) -> None:
    """Languages that the built-in detector knows, and stop words that are theirs."""
    if "language" not in config.rules:
        return
    for language in config.language.languages if config.language.model is None else []:
        if language not in LABELS:
            raise ConfigError(
                f"filter.language.languages: {language!r} is no language of the built-in detector; "
                f"{_among(language, LABELS)}. Another model's labels come with filter.language.model"
            )
    quality, english = config.gopher_quality, rules.GopherQuality().stop_words
    counted = "gopher_quality" in config.rules and quality.min_stop_words and quality.stop_words == english
    if counted and not any(language.startswith("en") for language in config.language.languages):
        raise ConfigError(
            f"filter.gopher_quality.stop_words are English, and filter.language.languages="
            f"[{','.join(config.language.languages)}]: nearly every document would go. Give words of these languages, "
            "or filter.gopher_quality.min_stop_words=0"
        )


def _evaluation(root: Root) -> None:
    """What is evaluated on is what is held out."""
    stage = root.stages.evaluate
    if stage is None or root.data.heldout_modulus or stage.inputs.corpus or stage.inputs.examples:
        return
    raise ConfigError(
        "data.heldout_modulus=0 holds nothing out, and stages.evaluate would have nothing to evaluate on; give another "
        "(20 is a twentieth), or leave the evaluation out: stages.evaluate=null"
    )


def _reference(root: Root) -> None:
    """DPO's rows are those that have a reference."""
    reference, dpo = root.stages.reference, root.stages.dpo
    if reference is None or dpo is None:
        return
    if reference.sequence_length != dpo.sequence_length:
        raise ConfigError(
            f"stages.reference.sequence_length={reference.sequence_length} and "
            f"stages.dpo.sequence_length={dpo.sequence_length} must be equal: DPO trains on the rows that the "
            "reference stage scored"
        )
    if reference.max_rows is not None and (dpo.max_rows is None or dpo.max_rows > reference.max_rows):
        raise ConfigError(
            f"stages.dpo.max_rows={dpo.max_rows} is more than stages.reference.max_rows={reference.max_rows}: DPO "
            "trains on the rows that the reference stage scored; change one of them"
        )


def ranks_of(launch: Launch, gpus: int) -> int:
    """How many processes a training stage takes where there are so many GPUs in all."""
    return (gpus or 2) if launch.ranks == "auto" else int(launch.ranks)


def _training(root: Root, name: str, stage: TrainStage) -> None:
    check_stage(stage, f"stages.{name}")
    if root.launch.ranks != "auto":
        check_ranks(stage, f"stages.{name}", int(root.launch.ranks))
    _model(root, name, stage)


def _model(root: Root, name: str, stage: TrainStage) -> None:
    """The model's family fits the objective, and the sequence fits the model."""
    at = f"stages.{name}"
    first = next(n for n in TRAINING if getattr(root.stages, n) is not None)
    model: Model = stage.model or root.model
    if stage.model is not None and name != first:
        raise ConfigError(f"{at}.model: this stage starts from the model of stages.{first}; set {at}.model=null")
    if stage.inputs.model is not None:
        return  # what is pinned is known when the plan is made
    if name == first:
        if isinstance(model, Bert) != isinstance(stage.objective, Mlm) and not isinstance(model, HuggingFace):
            raise ConfigError(
                f"model={model.name} cannot learn {at}.objective={stage.objective.name}; bert goes with mlm"
            )
        if isinstance(stage.objective, (Sft, Dpo)) and not isinstance(model, HuggingFace):
            raise ConfigError(
                f"{at} starts from random weights (model={model.name}); give one: model=hf model.path=DIR"
            )
    if isinstance(model, (Llama, Bert)):
        if stage.sequence_length > model.max_position_embeddings:
            raise ConfigError(
                f"{at}.sequence_length={stage.sequence_length} is above "
                f"model.max_position_embeddings={model.max_position_embeddings}; change one of them"
            )
        if model.hidden_size % model.num_attention_heads:
            raise ConfigError(
                f"model.hidden_size={model.hidden_size} is not a multiple of "
                f"model.num_attention_heads={model.num_attention_heads}; change one of them"
            )
