"""Training a tokenizer: byte-level BPE, byte-level Unigram, BERT's WordPiece, each with the same reserved tokens.

A tokenizer is a function of the multiset of texts. Where the library's trainer is not, for the random order of its hash
maps, the comment says how it is made so. Knows nothing of corpora or of folders.
"""

import functools
import json
import unicodedata
from collections import Counter
from collections.abc import Callable, Iterator

import numpy as np
import numpy.typing as npt
import tokenizers
from tokenizers import AddedToken, decoders, models, normalizers, pre_tokenizers, processors, trainers

from fmtrain.errors import ConfigError
from fmtrain.schema.tokenizers import Bpe, Unigram, WordPiece

SPECIAL_TOKENS = ("bos", "eos", "pad", "unk", "mask", "cls", "sep", "user", "assistant", "system")
Trained = Bpe | Unigram | WordPiece
Texts = Callable[[], Iterator[str]]  # each call begins anew
_BYTES = 256
_CODES = 0x110000
_PREFIX = "##"  # of a piece that does not begin a word
_UNSEEN = 1e-4  # the library gives the i-th byte that it never saw the least score plus i times this
_DIGITS = 6  # of a score; the sums behind it differ in the last bits with the order of words


def special_tokens(config: Trained) -> list[str]:
    """The reserved tokens in id order: the ten named ones, then the spares."""
    return [f"<{name}>" for name in SPECIAL_TOKENS] + [f"<spare_{i}>" for i in range(config.spare_tokens)]


def train(texts: Texts, config: Trained) -> tokenizers.Tokenizer:
    """A tokenizer of at most `config.vocab_size` tokens, all counted in."""
    if isinstance(config, Bpe):
        return _bpe(texts(), config)
    return _unigram(texts(), config) if isinstance(config, Unigram) else _wordpiece(texts, config)


def _check_room(config: Trained, alphabet: int, what: str) -> None:
    reserved = len(special_tokens(config))
    if config.vocab_size < reserved + alphabet:
        raise ConfigError(
            f"tokenizer.vocab_size: {config.vocab_size} leaves no room for the {reserved} special tokens and the "
            f"{alphabet} {what}; give at least {reserved + alphabet}, or fewer tokenizer.spare_tokens"
        )


def _added(config: Trained) -> list[AddedToken]:
    return [AddedToken(token, special=True, normalized=False) for token in special_tokens(config)]


def _byte_level(tokenizer: tokenizers.Tokenizer) -> tokenizers.Tokenizer:
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=True)
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.post_processor = processors.ByteLevel(add_prefix_space=False, trim_offsets=False)
    return tokenizer


def _bpe(texts: Iterator[str], config: Bpe) -> tokenizers.Tokenizer:
    """Ties between merges are broken by token id."""
    _check_room(config, _BYTES, "bytes")
    tokenizer = _byte_level(tokenizers.Tokenizer(models.BPE()))
    trainer = trainers.BpeTrainer(
        vocab_size=config.vocab_size,
        min_frequency=2,
        special_tokens=_added(config),
        initial_alphabet=sorted(pre_tokenizers.ByteLevel.alphabet()),
        show_progress=False,
    )
    tokenizer.train_from_iterator(texts, trainer=trainer)
    return tokenizer


def _unigram(texts: Iterator[str], config: Unigram) -> tokenizers.Tokenizer:
    """The trainer's pieces with their scores rounded, unseen bytes alike, and sorted by score and then by piece."""
    _check_room(config, _BYTES, "bytes")
    tokenizer = _byte_level(tokenizers.Tokenizer(models.Unigram()))
    reserved = special_tokens(config)
    trainer = trainers.UnigramTrainer(
        vocab_size=config.vocab_size,
        special_tokens=_added(config),
        initial_alphabet=sorted(pre_tokenizers.ByteLevel.alphabet()),
        unk_token="<unk>",
        show_progress=False,
    )
    tokenizer.train_from_iterator(texts, trainer=trainer)
    data = json.loads(tokenizer.to_str())
    pieces = data["model"]["vocab"][len(reserved) :]
    least = min(score for _, score in pieces)
    unseen = least + _UNSEEN * (_BYTES + 1)
    rounded = [(p, round(least if len(p) == 1 and score < unseen else score, _DIGITS)) for p, score in pieces]
    ordered = sorted(rounded, key=lambda piece: (-piece[1], piece[0]))
    data["model"]["vocab"] = [[token, 0.0] for token in reserved] + [list(piece) for piece in ordered]
    return tokenizers.Tokenizer.from_str(json.dumps(data, ensure_ascii=False))


def _wordpiece(texts: Texts, config: WordPiece) -> tokenizers.Tokenizer:
    """The trainer numbers inner characters in the order it meets them, and ties are broken by number: so the characters
    are counted first and given to it, in order, as if they were special tokens."""
    tokenizer = tokenizers.Tokenizer(models.WordPiece(unk_token="<unk>"))
    tokenizer.normalizer = normalizers.BertNormalizer(lowercase=config.lowercase)
    tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    tokenizer.decoder = decoders.WordPiece(prefix=_PREFIX, cleanup=False)
    alphabet, inner = _characters(texts(), tokenizer.normalizer.normalize_str, config.alphabet)
    _check_room(config, len(alphabet) + len(inner), "characters (tokenizer.alphabet limits them)")
    trainer = trainers.WordPieceTrainer(
        vocab_size=config.vocab_size,
        min_frequency=2,
        special_tokens=[*special_tokens(config), *inner],
        initial_alphabet=alphabet,
        limit_alphabet=len(alphabet),
        continuing_subword_prefix=_PREFIX,
        show_progress=False,
    )
    tokenizer.train_from_iterator(texts(), trainer=trainer)
    vocabulary = tokenizer.get_vocab(with_added_tokens=False)
    data = json.loads(tokenizer.to_str())
    data["added_tokens"] = []
    data["model"]["vocab"] = vocabulary
    made = tokenizers.Tokenizer.from_str(json.dumps(data, ensure_ascii=False))
    made.add_special_tokens(_added(config))
    return made


def _characters(texts: Iterator[str], normalise: Callable[[str], str], limit: int) -> tuple[list[str], list[str]]:
    """The most frequent `limit` characters of words, and those of them that stand inside a word, with the prefix."""
    seen, inside = Counter[int](), Counter[int]()
    for text in texts:
        codes = np.frombuffer(normalise(text).encode("utf-32-le", "surrogatepass"), dtype="<u4")
        apart = _apart()[codes]
        _count(seen, codes[~_space()[codes]])
        _count(inside, codes[1:][~apart[1:] & ~apart[:-1]])
    kept = sorted(seen, key=lambda code: (-seen[code], code))[:limit]
    return sorted(map(chr, kept)), sorted(_PREFIX + chr(code) for code in kept if code in inside)


def _count(counter: Counter[int], codes: npt.NDArray[np.uint32]) -> None:
    found, times = np.unique(codes, return_counts=True)
    counter.update(dict(zip(found.tolist(), times.tolist(), strict=True)))


@functools.cache
def _space() -> npt.NDArray[np.bool_]:
    """(0x110000,) whether a code point is white space."""
    return np.array([chr(code).isspace() for code in range(_CODES)])


@functools.cache
def _apart() -> npt.NDArray[np.bool_]:
    """(0x110000,) whether a code point is in no word of BERT's with others: white space, ASCII symbols, punctuation."""
    marks = [unicodedata.category(chr(code)).startswith("P") for code in range(_CODES)]
    symbols = np.zeros(_CODES, np.bool_)
    symbols[[code for code in range(33, 127) if not chr(code).isalnum()]] = True
    return np.array(marks) | _space() | symbols
