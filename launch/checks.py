"""What two fields together must satisfy; each message names both fields and the mend."""

import dataclasses
import difflib
import re
from collections import Counter
from collections.abc import Collection
from typing import Any

from fmtrain.errors import ConfigError
from fmtrain.schema import evaluation_sets, mixture, rules
from fmtrain.schema.dedup import STEPS
from fmtrain.schema.fields import referenced
from fmtrain.schema.languages import LABELS
from fmtrain.schema.root import Root
from fmtrain.schema.training import Bert, Clm, Cosine, Dpo, HuggingFace, Llama, Mlm, Model, Sft, TrainStage

TRAINING = ("pretrain", "sft", "dpo")
NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]*")
SHARES = (
    "language.min_score", "classifier.min_score", "toxicity.max_share", "toxicity.max_score", "bad_words.keep_fraction",
    "gopher_quality.max_bullet_lines_ratio", "gopher_quality.max_ellipsis_lines_ratio",
    "gopher_quality.max_non_alpha_words_ratio", "gopher_repetition.dup_line_frac", "gopher_repetition.dup_para_frac",
    "gopher_repetition.dup_line_char_frac", "gopher_repetition.dup_para_char_frac", "fineweb.line_punct_thr",
    "fineweb.short_line_thr", "fineweb.char_duplicates_ratio",
)  # fmt: skip
NEEDS = {  # rule -> the settings of which it needs one
    "decontaminate": ("files", "sets"),
    "classifier": ("model",),
    "bad_words": ("lists",),
    "toxicity": ("lists", "model"),
}
LEAST: dict[str, float] = {
    "seed": 0,
    "data.heldout_modulus": 0,
    "data.max_bad_fraction": 0,
    "data.max_bad_rows": 0,
    "data.max_line_mb": 1,
    "tokenizer.vocab_size": 300,
    "checkpoint.every_steps": 1,
    "checkpoint.keep": 1,
    "launch.cpus_per_rank": 1,
    "launch.nodes": 1,
    "stages.corpus.tasks": 1,
    "stages.corpus.shard_mb": 1,
    "stages.corpus.heartbeat_seconds": 1,
    "dedup.n_grams": 1,
    **{f"filter.length.{name}": 0 for name in ("min_chars", "max_chars", "min_words", "max_words")},
    "dedup.bands": 1,
    "dedup.rows": 1,
    "dedup.min_paragraph_words": 1,
    "dedup.max_repeats": 1,
    "dedup.substring_words": 5,
    "filter.decontaminate.n_grams": 2,
    "stages.reference.batch_size": 1,
    "stages.evaluate.batch_size": 1,
    "stages.evaluate.sequence_length": 8,
    "stages.evaluate.bootstrap": 10,
    **{f"stages.{name}.optim.lr": 0.0 for name in TRAINING},
    **{f"stages.{name}.optim.weight_decay": 0.0 for name in TRAINING},
    **{f"stages.{name}.schedule.warmup_steps": 0 for name in TRAINING},
}


def check(root: Root) -> None:
    """Raise ConfigError for the first contradiction."""
    if not any(getattr(root.stages, name) for name in vars(root.stages)):
        raise ConfigError("stages: no stage is left to run; choose a recipe, e.g. recipe=quickstart")
    _names(root)
    _ranges(root)
    _corpus(root)
    for name in TRAINING:
        stage = getattr(root.stages, name)
        if stage is not None:
            _training(root, name, stage)
    _reference(root)
    if root.launch.ranks != "auto" and not (root.launch.ranks.isdigit() and int(root.launch.ranks) > 0):
        raise ConfigError(f"launch.ranks={root.launch.ranks}: expected auto or a number of ranks, e.g. launch.ranks=2")


def _names(root: Root) -> None:
    """An artifact's name is a folder's name, and one of its kind in a run."""
    seen: dict[tuple[str, str], str] = {}
    for stage, config in vars(root.stages).items():
        if config is None:
            continue
        key = f"stages.{stage}.artifact"
        if not NAME.fullmatch(config.artifact):
            raise ConfigError(
                f"{key}={config.artifact!r}: expected letters, digits, '.', '_' and '-', e.g. {key}=my-{stage}"
            )
        kind = "model" if stage in TRAINING else stage
        if (kind, config.artifact) in seen:
            raise ConfigError(
                f"{key}={config.artifact} is the name of {seen[kind, config.artifact]} too; give them two names"
            )
        seen[kind, config.artifact] = key


def _ranges(root: Root) -> None:
    """Every number that has a least value."""
    for path, least in LEAST.items():
        node: Any = root
        for part in path.split("."):
            node = getattr(node, part, None)
        if node is not None and node < least:
            raise ConfigError(f"{path}={node}: expected {least} or more")
    if root.data.max_bad_fraction > 1:
        raise ConfigError(
            f"data.max_bad_fraction={root.data.max_bad_fraction}: expected a share of the records, 0 to 1, e.g. 0.001"
        )
    if root.data.heldout_modulus == 1:
        raise ConfigError("data.heldout_modulus=1 sets every document apart; 20 a twentieth, 0 none")


def _corpus(root: Root) -> None:
    """Rules, steps and words that stand in lists are checked as strictly as keys."""
    known = [f.name for f in dataclasses.fields(root.filter) if dataclasses.is_dataclass(f.type)]
    for rule in root.filter.rules:
        if rule not in known:
            raise ConfigError(f"filter.rules: there is no rule {rule!r}; {_among(rule, known)}")
    for step in root.dedup.steps:
        if step not in STEPS:
            raise ConfigError(f"dedup.steps: there is no step {step!r}; {_among(step, STEPS)}")
    for key, value, choices in (
        ("dedup.keep", root.dedup.keep, ("longest", "newest", "score")),
        ("dedup.substring_action", root.dedup.substring_action, ("cut", "drop")),
        ("filter.html.favour", root.filter.html.favour, rules.FAVOURS),
        ("filter.unicode.normalization", root.filter.unicode.normalization, rules.NORMALIZATIONS),
        ("filter.url.unknown", root.filter.url.unknown, rules.KEEP_OR_DROP),
        ("filter.license.unknown", root.filter.license.unknown, rules.KEEP_OR_DROP),
    ):
        if value not in choices:
            raise ConfigError(f"{key}={value}: expected one of {', '.join(choices)}")
    _rules(root.filter)
    if len(set(root.dedup.steps)) < len(root.dedup.steps):
        raise ConfigError(f"dedup.steps=[{','.join(root.dedup.steps)}]: a step stands twice; name each once")
    if root.stages.tokens is not None:
        mixture.check(root.stages.tokens.mixture)
    if not 0 < root.dedup.threshold <= 1:
        raise ConfigError(f"dedup.threshold={root.dedup.threshold}: expected above 0 and at most 1, e.g. 0.5")
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
    if unknown := [kind for kind in config.pii.kinds if kind not in rules.PII_KINDS]:
        raise ConfigError(f"filter.pii.kinds: there is no kind {unknown[0]!r}; {_among(unknown[0], rules.PII_KINDS)}")
    if config.words != "fast" and not config.words.startswith("spacy-"):
        raise ConfigError(f"filter.words={config.words}: expected fast, or spacy-LANGUAGE, e.g. spacy-zh")
    for key in SHARES:
        rule, _, field = key.partition(".")
        value = getattr(getattr(config, rule), field)
        if not 0 <= value <= 1:
            raise ConfigError(f"filter.{key}={value}: expected a share from 0 to 1")


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


def check_ranks(name: str, stage: TrainStage, ranks: int) -> None:
    """The global batch divides into whole micro-batches over the ranks."""
    if stage.global_batch_size % (stage.micro_batch_size * ranks) == 0:
        return
    at = f"stages.{name}"
    each = stage.global_batch_size // ranks
    if stage.global_batch_size % ranks:
        mend = f"{at}.global_batch_size={(each + 1) * ranks}"
    else:
        mend = (
            f"{at}.micro_batch_size={max(n for n in range(1, min(each, stage.micro_batch_size) + 1) if each % n == 0)}"
        )
    raise ConfigError(
        f"{at}.global_batch_size={stage.global_batch_size} is not a multiple of "
        f"{at}.micro_batch_size={stage.micro_batch_size} times {ranks} ranks (launch.ranks); e.g. {mend}"
    )


def _training(root: Root, name: str, stage: TrainStage) -> None:
    at = f"stages.{name}"
    if (stage.steps is None) == (stage.epochs is None):
        raise ConfigError(f"{at}.steps={stage.steps} and {at}.epochs={stage.epochs}: set exactly one, the other null")
    for field in ("steps", "epochs", "sequence_length", "global_batch_size", "micro_batch_size", "max_rows"):
        value = getattr(stage, field)
        if value is not None and value <= 0:
            raise ConfigError(f"{at}.{field}={value}: expected a number above 0")
    if root.launch.ranks.isdigit() and int(root.launch.ranks) > 0:
        check_ranks(name, stage, int(root.launch.ranks))
    if stage.global_batch_size % stage.micro_batch_size:
        raise ConfigError(
            f"{at}.global_batch_size={stage.global_batch_size} is not a multiple of "
            f"{at}.micro_batch_size={stage.micro_batch_size}; change one of them (the batch that a step sees is "
            "global_batch_size; micro_batch_size is what one rank holds at a time)"
        )
    if stage.precision not in ("fp32", "bf16"):
        raise ConfigError(f"{at}.precision={stage.precision}: expected fp32 or bf16")
    if stage.zero.stage not in (0, 1, 2, 3):
        raise ConfigError(f"{at}.zero.stage={stage.zero.stage}: expected 0, 1, 2 or 3")
    if stage.precision == "bf16" and stage.zero.stage == 0:
        raise ConfigError(f"{at}.precision=bf16 needs {at}.zero.stage of 1 or more; set {at}.zero.stage=1")
    if stage.packing not in ("none", "concat"):
        raise ConfigError(f"{at}.packing={stage.packing}: expected none or concat")
    pretraining = isinstance(stage.objective, (Clm, Mlm))
    if pretraining != (stage.packing == "concat"):
        want = "concat" if pretraining else "none"
        raise ConfigError(f"{at}.objective={stage.objective.name} needs {at}.packing={want}, not {stage.packing}")
    if stage.steps is not None and isinstance(stage.schedule, Cosine) and stage.schedule.warmup_steps >= stage.steps:
        raise ConfigError(
            f"{at}.schedule.warmup_steps={stage.schedule.warmup_steps} is not below {at}.steps={stage.steps}; "
            f"e.g. {at}.schedule.warmup_steps={max(0, stage.steps // 10)}"
        )
    if isinstance(stage.objective, Dpo) and stage.objective.beta <= 0:
        raise ConfigError(f"{at}.objective.beta={stage.objective.beta}: expected above 0, e.g. 0.1")
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
