"""Our fast splitter as datatrove's blocks take one (`language=`): with it they are held against ours, and timed."""

from datatrove.utils.word_tokenizers import WordTokenizer

from data_pipelines.words import FAST, PATTERN, sentences


class OurWords(WordTokenizer):  # type: ignore[misc]
    """The words and sentences of `FAST`."""

    def word_tokenize(self, text: str) -> list[str]:
        return PATTERN.findall(text)

    def sent_tokenize(self, text: str) -> list[str]:
        return sentences(text)

    def span_tokenize(self, text: str) -> list[tuple[int, int]]:
        return FAST.span_tokenize(text)


OUR_WORDS = OurWords()
