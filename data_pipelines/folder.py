"""A tokenizer's folder, as Hugging Face lays it out: written, copied, read, and what stands around a document.

Knows `tokenizer.json` and the settings beside it. How a vocabulary is learnt is vocabulary.py's affair.
"""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import tokenizers

from data_pipelines.vocabulary import SPECIAL_TOKENS, Trained, special_tokens
from fmtrain.artifacts.model_folder import copy_tokenizer, tokenizer_files
from fmtrain.artifacts.storage import read_json, write_json, write_text
from fmtrain.errors import ConfigError, InputError

TEMPLATE = Path(__file__).parent / "chat_template.jinja"
_NAMED = SPECIAL_TOKENS[:7]  # those that Hugging Face has a setting for


@dataclass(frozen=True)
class Marks:
    """The ids around a document: `start` None where the tokenizer has no token for it, or the same for both."""

    start: int | None
    end: int


def load(folder: Path) -> tokenizers.Tokenizer:
    """The tokenizer of an artifact, set to read text as text: a literal `<eos>` in it becomes ordinary tokens.

    What a folder says of truncation and padding is for models that read sentences, and is set aside.
    """
    tokenizer = tokenizers.Tokenizer.from_file(str(folder / "tokenizer.json"))
    tokenizer.encode_special_tokens = True  # the library's name for "special tokens are split like any other text"
    tokenizer.no_truncation()
    tokenizer.no_padding()
    return tokenizer


def write(tokenizer: tokenizers.Tokenizer, folder: Path, config: Trained) -> None:
    """The files that `transformers.AutoTokenizer` and `tokenizers` load, in `folder`."""
    named = {f"{name}_token": f"<{name}>" for name in _NAMED}
    extra = [t for t in special_tokens(config) if t not in named.values()]
    settings = {
        # The class that takes tokenizer.json as it is; a model's own class (LlamaTokenizer) would rebuild the
        # pipeline from the vocabulary alone, with another split.
        "tokenizer_class": "PreTrainedTokenizerFast",
        **named,
        "additional_special_tokens": extra,
        "clean_up_tokenization_spaces": False,
        "model_max_length": 10**30,  # Hugging Face's "no limit"; the length is the model's affair
        "padding_side": "right",
    }
    write_text(folder / "tokenizer.json", tokenizer.to_str(pretty=True))
    write_json(folder / "tokenizer_config.json", settings)
    write_json(folder / "special_tokens_map.json", {**named, "additional_special_tokens": extra})
    write_text(folder / "chat_template.jinja", TEMPLATE.read_text(encoding="utf-8"))


def copy(source: Path, folder: Path) -> bool:
    """The tokenizer in `source`, byte for byte; whether our chat template was added.

    It is added where there is none and the tokenizer has the tokens that it is made of. To others the training wing
    gives a template of plain words when they are tuned on chats.
    """
    found = tokenizer_files(source)
    for needed in ("tokenizer.json", "tokenizer_config.json"):
        if needed not in found:
            raise InputError(
                f"tokenizer.path={source}: no {needed} there; expected a Hugging Face tokenizer folder. One with only "
                "vocabulary files becomes one by AutoTokenizer.from_pretrained(DIR).save_pretrained(DIR)"
            )
    copy_tokenizer(source, folder)
    fits = all(load(folder).token_to_id(f"<{role}>") is not None for role in SPECIAL_TOKENS[7:])
    if chat_template(folder) is not None or not fits:
        return False
    write_text(folder / "chat_template.jinja", TEMPLATE.read_text(encoding="utf-8"))
    return True


def chat_template(folder: Path) -> str | None:
    """What the folder has for one: its own file's text, or what stands in a setting."""
    if (own := folder / "chat_template.jinja").is_file():
        return own.read_text(encoding="utf-8")
    for name in ("chat_template.json", "tokenizer_config.json"):
        found = read_json(folder / name).get("chat_template") if (folder / name).is_file() else None
        if found:
            return found if isinstance(found, str) else json.dumps(found, sort_keys=True)
    return None


def roles(folder: Path) -> dict[str, str]:
    """Role -> token as the folder's settings have it, e.g. {"bos": "<s>"}; roles without a token are left out."""
    merged: dict[str, Any] = {}
    for name in ("special_tokens_map.json", "tokenizer_config.json"):
        merged |= {k: v for k, v in read_json(folder / name).items() if v} if (folder / name).is_file() else {}
    found = {}
    for role in _NAMED:
        token = merged.get(f"{role}_token")
        token = token.get("content") if isinstance(token, dict) else token
        if token:
            found[role] = str(token)
    return found


def marks(folder: Path, tokenizer: tokenizers.Tokenizer) -> Marks:
    """Where a document begins and ends: <bos> and <eos>, else BERT's <cls> and <sep>.

    Where both are one token (GPT-2's `<|endoftext|>`) it ends documents and does not begin them.
    """
    named = roles(folder)
    ids = {role: tokenizer.token_to_id(token) for role, token in named.items()}
    if lost := sorted(role for role, found in ids.items() if found is None):
        raise ConfigError(
            f"{folder}: tokenizer_config.json names {', '.join(f'{named[r]!r} as {r}_token' for r in lost)}, which "
            "tokenizer.json does not have; the two files do not belong together"
        )
    end = ids.get("eos", ids.get("sep"))
    if end is None:
        raise ConfigError(
            f"{folder}: the tokenizer has no token that ends a document; give it an eos_token in tokenizer_config.json "
            "that tokenizer.json has"
        )
    start = ids.get("bos", ids.get("cls"))
    return Marks(start if start != end else None, end)
