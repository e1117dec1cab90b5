"""Chunks cover the text, respect the budget, and stay when the text around them changes."""

import functools
import itertools
import random
import re
import statistics
import tarfile
import unicodedata
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import ValidationError

from ragassets.core.chunk_boundaries import Boundaries, Strength
from ragassets.core.chunk_cuts import find_cuts
from ragassets.core.chunk_tokens import IntArray, is_white_space
from ragassets.core.chunking import Chunk, chunk_document, chunk_id, split_document
from ragassets.core.sentences import sentence_starts
from ragassets.core.settings import ChunkingConfig, ChunkingStrategy
from ragassets.errors import StageError
from ragassets_tests.corpora import corpus

STRATEGIES: tuple[ChunkingStrategy, ...] = ("recursive", "fixed", "sentence", "by_title")


class Block(NamedTuple):
    kind: str
    start_char: int
    end_char: int
    page: int | None
    level: int | None


class Paragraph(NamedTuple):
    """A block that has no place yet."""

    text: str
    kind: str = "text"
    level: int | None = None
    page: int | None = None


class WordTokenizer:
    """One token a word or mark, as in BERT; words of more than 100 characters are one token."""

    name = "words"
    fingerprint = "words"
    n_special_tokens = 2
    counts_by_word = True
    pattern = re.compile(r"\w+|[^\w\s]")

    def offsets(self, text: str) -> IntArray:
        spans = [match.span() for match in self.pattern.finditer(text)]
        return np.array(spans, dtype=np.int64).reshape(-1, 2)

    def offsets_batch(self, texts: Sequence[str]) -> list[IntArray]:
        return [self.offsets(text) for text in texts]


class ContextTokenizer(WordTokenizer):
    """One token for each three characters of a word with the space before it.

    Like a byte-level model: a span cut out of its text has other tokens than inside of it, and its
    first word may have one more.
    """

    counts_by_word = False

    def offsets(self, text: str) -> IntArray:
        spans = [
            (start, min(start + 3, match.end()))
            for match in re.finditer(r"(?:^|\s)\S*", text)
            for start in range(match.start(), match.end(), 3)
        ]
        marker = [(0, 0)] if text else []
        return np.array(marker + spans, dtype=np.int64).reshape(-1, 2)


def assemble(paragraphs: Sequence[Paragraph]) -> tuple[str, list[Block]]:
    """Text and blocks as the cleaning stage gives them."""
    blocks: list[Block] = []
    start = 0
    for text, kind, level, page in paragraphs:
        blocks.append(Block(kind, start, start + len(text), page, level))
        start += len(text) + 2
    return "\n\n".join(paragraph.text for paragraph in paragraphs), blocks


@functools.lru_cache(maxsize=10_000)
def word_offsets(text: str) -> IntArray:
    return WordTokenizer().offsets(text)


def chunked(paragraphs: Sequence[Paragraph], config: ChunkingConfig) -> list[Chunk]:
    text, blocks = assemble(paragraphs)
    # No token of this tokenizer crosses a blank line, and most paragraphs of a test stay the same.
    offsets = [
        block.start_char + word_offsets(text[block.start_char : block.end_char]) for block in blocks
    ]
    return chunk_document(
        "d" * 32, text, blocks, config, WordTokenizer(), offsets=np.concatenate(offsets)
    )


def sentence(rng: random.Random, n_words: int) -> str:
    words = ["".join(rng.choices("abcdefghij", k=rng.randint(2, 8))) for _ in range(n_words)]
    return " ".join(words).capitalize() + "."


def prose(rng: random.Random, n_paragraphs: int) -> list[Paragraph]:
    """Paragraphs of one to eight sentences, without headings."""
    return [
        Paragraph(" ".join(sentence(rng, rng.randint(4, 25)) for _ in range(rng.randint(1, 8))))
        for _ in range(n_paragraphs)
    ]


def n_new(old: Sequence[Chunk], new: Sequence[Chunk]) -> int:
    """How many chunks would have to be embedded."""
    return len({chunk.chunk_id for chunk in new} - {chunk.chunk_id for chunk in old})


ALPHABET = "ab Z.,!?\n\t:é日本。ि\u0301\u200d👍🏽\u200b-"
texts = st.one_of(
    st.text(alphabet=ALPHABET, max_size=600),
    st.lists(
        st.sampled_from(["word", "word.", "A", "\n\n", "x" * 150, "日本語。"]), max_size=300
    ).map(" ".join),
)
configs = st.builds(
    ChunkingConfig,
    strategy=st.sampled_from(STRATEGIES),
    max_tokens=st.integers(16, 80),
    overlap_tokens=st.integers(0, 7),
)
documents = st.lists(
    st.builds(
        Paragraph,
        text=st.text(alphabet=ALPHABET, min_size=1, max_size=300).map(str.strip).filter(bool),
        kind=st.sampled_from(["title", "text", "text", "text", "list_item", "code", "table"]),
        level=st.sampled_from([None, 1, 2, 3]),
        page=st.sampled_from([None, 1, 2]),
    ),
    max_size=25,
)


class TestEveryStrategy:
    @given(paragraphs=documents, config=configs, context=st.booleans())
    def test_chunks_are_slices_that_cover_the_text_in_order(
        self, paragraphs: list[Paragraph], config: ChunkingConfig, context: bool
    ) -> None:
        """A character in no chunk can never be found."""
        text, blocks = assemble(paragraphs)
        tokenizer = ContextTokenizer() if context else WordTokenizer()
        spans = split_document(text, blocks, config, tokenizer)
        covered = np.zeros(len(text), dtype=bool)
        for span in spans:
            assert 0 <= span.start_char < span.end_char <= len(text)
            covered[span.start_char : span.end_char] = True
        if spans:
            missed = {text[index] for index in np.flatnonzero(~covered)}
            assert all(character.isspace() for character in missed)
        for one, other in itertools.pairwise(spans):
            assert one.start_char < other.start_char or one.end_char < other.end_char
            assert one.start_char <= other.start_char <= one.end_char + 3

    @given(text=texts, config=configs, context=st.booleans())
    def test_no_chunk_exceeds_the_budget_and_its_count_is_exact(
        self, text: str, config: ChunkingConfig, context: bool
    ) -> None:
        """A chunk that is too long is truncated by the model, silently."""
        tokenizer = ContextTokenizer() if context else WordTokenizer()
        for span in split_document(text, [], config, tokenizer):
            chunk = text[span.start_char : span.end_char]
            assert span.n_tokens == len(tokenizer.offsets(chunk))
            assert 0 < span.n_tokens <= config.max_tokens - tokenizer.n_special_tokens

    @given(text=texts, config=configs)
    def test_the_same_text_gives_the_same_chunks_with_distinct_ids(
        self, text: str, config: ChunkingConfig
    ) -> None:
        """Ids are the keys of the index."""
        if not WordTokenizer().offsets(text).size:
            return
        first = chunk_document("d", text, [], config, WordTokenizer())
        assert first == chunk_document("d", text, [], config, WordTokenizer())
        assert len({chunk.chunk_id for chunk in first}) == len(first)
        assert [chunk.ordinal for chunk in first] == list(range(len(first)))
        assert all(chunk.text == text[chunk.start_char : chunk.end_char] for chunk in first)

    @pytest.mark.parametrize("strategy", STRATEGIES)
    def test_a_text_that_fits_is_one_chunk(self, strategy: ChunkingStrategy) -> None:
        """Most pages are short; splitting them helps nobody."""
        paragraphs = [Paragraph("Title", "title", 1), Paragraph("Some words."), Paragraph("More.")]
        chunks = chunked(paragraphs, ChunkingConfig(strategy=strategy))
        assert [chunk.text for chunk in chunks] == ["Title\n\nSome words.\n\nMore."]

    @pytest.mark.parametrize("strategy", STRATEGIES)
    def test_a_word_of_ten_thousand_characters_is_split(self, strategy: ChunkingStrategy) -> None:
        """Base64 and minified code have no spaces; BERT takes such a word for one token."""
        text = f"Before it. {'x' * 10_000} and after it."
        spans = split_document(text, [], ChunkingConfig(strategy=strategy), WordTokenizer())
        assert len(spans) > 3
        assert max(span.end_char - span.start_char for span in spans) < 3_000

    @pytest.mark.parametrize("strategy", STRATEGIES)
    def test_overlap_stays_within_its_limit(self, strategy: ChunkingStrategy) -> None:
        """More overlap than asked for is embedded and stored twice for nothing."""
        tokenizer = WordTokenizer()
        text, blocks = assemble(prose(random.Random(5), 60))
        for overlap_tokens in (0, 20):
            config = ChunkingConfig(
                strategy=strategy, max_tokens=128, overlap_tokens=overlap_tokens
            )
            spans = split_document(text, blocks, config, tokenizer)
            shared = [
                len(tokenizer.offsets(text[other.start_char : one.end_char]))
                for one, other in itertools.pairwise(spans)
            ]
            assert max(shared) <= overlap_tokens
            assert (max(shared) > 0) == (overlap_tokens > 0)

    @pytest.mark.parametrize("strategy", STRATEGIES)
    def test_characters_that_belong_together_are_not_torn(self, strategy: ChunkingStrategy) -> None:
        """Half a letter is another letter, or none."""

        class CharacterTokenizer(WordTokenizer):
            pattern = re.compile(r".")

        text = "e\u0301" * 300 + "👍🏽" * 300 + "👩\u200d🚀" * 300
        config = ChunkingConfig(strategy=strategy, max_tokens=64, overlap_tokens=8)
        spans = split_document(text, [], config, CharacterTokenizer())
        assert len(spans) > 10
        if strategy != "fixed":
            for span in spans:
                first = text[span.start_char]
                assert unicodedata.category(first) not in {"Mn", "Sk"}
                assert first != "\u200d"


class TestStability:
    @settings(max_examples=30)
    @given(seed=st.integers(0, 10**6), n_paragraphs=st.integers(2, 120), at=st.floats(0, 1))
    def test_replacing_one_paragraph_changes_few_chunks(
        self, seed: int, n_paragraphs: int, at: float
    ) -> None:
        """An edit costs embeddings; packing from the start would redo all that follows."""
        rng = random.Random(seed)
        paragraphs = prose(rng, n_paragraphs)
        edited = list(paragraphs)
        place = int(at * (n_paragraphs - 1))
        edited[place] = prose(rng, 1)[0]
        config = ChunkingConfig()
        assert n_new(chunked(paragraphs, config), chunked(edited, config)) <= 4

    @given(seed=st.integers(0, 10**6), n_paragraphs=st.integers(2, 60), at=st.floats(0, 1))
    def test_a_word_late_in_a_sentence_changes_its_chunk_and_one_overlap_at_most(
        self, seed: int, n_paragraphs: int, at: float
    ) -> None:
        """Whatever leaves the sentences' beginnings and lengths alone moves no cut."""
        rng = random.Random(seed)
        paragraphs = prose(rng, n_paragraphs)
        place = int(at * (n_paragraphs - 1))
        long_sentence = sentence(rng, 20)
        # What is read of a sentence to rank its beginning ends before the word that changes.
        assert len(long_sentence) > 48 + len("other.")
        other_sentence = f"{long_sentence.rpartition(' ')[0]} other."
        before, after = list(paragraphs), list(paragraphs)
        before[place] = Paragraph(f"{paragraphs[place].text} {long_sentence}")
        after[place] = Paragraph(f"{paragraphs[place].text} {other_sentence}")
        changes = n_new(chunked(before, ChunkingConfig()), chunked(after, ChunkingConfig()))
        assert 1 <= changes <= 2

    def test_a_cut_worse_than_both_beside_it_is_left_out_where_one_chunk_holds_both_sides(
        self,
    ) -> None:
        """Cuts are sought close to each other, so that few move; those not needed must go."""
        boundaries = Boundaries(
            positions=np.array([400, 800, 1_200, 1_700]),
            tokens=np.array([40, 80, 120, 170]),
            strengths=np.full(4, Strength.SENTENCE),
            keys=np.array([1, 9, 2, 3], dtype=np.uint64),
        )
        assert find_cuts(boundaries, n_tokens=210, budget_tokens=100) == [0, 2]
        assert find_cuts(boundaries, n_tokens=210, budget_tokens=79) == [0, 1, 2, 3]
        forced = np.array([False, True, False, False])
        assert find_cuts(boundaries, n_tokens=210, budget_tokens=100, forced=forced) == [1, 2]

    @pytest.mark.slow
    @pytest.mark.parametrize("strategy", ["recursive", "sentence", "by_title"])
    def test_one_edit_in_a_hundred_pages_without_headings_embeds_one_chunk_or_two(
        self, strategy: ChunkingStrategy
    ) -> None:
        """Guarantee 5 of the design, over 100 random edits."""
        rng = random.Random(11)
        paragraphs = prose(rng, 700)
        config = ChunkingConfig(strategy=strategy)
        old = chunked(paragraphs, config)
        assert len(old) > 200
        changes: list[int] = []
        for _ in range(100):
            edited = list(paragraphs)
            edited[rng.randrange(len(edited))] = prose(rng, 1)[0]
            changes.append(n_new(old, chunked(edited, config)))
        assert statistics.median(changes) <= 2
        assert np.quantile(changes, 0.95) <= 3
        assert max(changes) <= 4

    def test_a_section_put_before_everything_leaves_the_other_chunks_alone(self) -> None:
        """Ids hold no position, so that inserting a page does not embed the rest again."""
        rng = random.Random(3)
        paragraphs = prose(rng, 80)
        old = chunked(paragraphs, ChunkingConfig())
        new = chunked(
            [Paragraph("News", "title", 1), *prose(rng, 9), *paragraphs], ChunkingConfig()
        )
        assert len({c.chunk_id for c in old} - {c.chunk_id for c in new}) <= 1
        assert [c.ordinal for c in old[5:8]] != [
            c.ordinal for c in new if c.chunk_id in {d.chunk_id for d in old[5:8]}
        ]

    @pytest.mark.slow
    @pytest.mark.parametrize("name", ["chatlogs", "state_of_the_union", "wikitexts"])
    def test_real_texts_keep_their_chunks_when_a_paragraph_changes(self, name: str) -> None:
        """Real paragraphs are longer and less even than generated ones."""
        path = corpus("retrieval") / "chunking_spans" / "corpora" / f"{name}.md"
        lines = [line.strip() for line in re.split(r"\n+|\\n", path.read_text(encoding="utf-8"))]
        assert edit_changes([Paragraph(line) for line in lines if line], n_edits=40) <= (2, 3)

    @pytest.mark.slow
    def test_technical_pages_keep_their_chunks_when_a_paragraph_changes(self) -> None:
        """Pages with headings, lists, code and tables."""
        archive = corpus("bulk_sample") / "bulk_sample.tar.gz"
        with tarfile.open(archive) as members:
            sources = [
                file.read().decode("utf-8", "replace")
                for member in itertools.islice(members, 400)
                if member.name.endswith(".md")
                and member.size > 8_000
                and (file := members.extractfile(member))
            ]
        assert len(sources) > 20
        for source in sources[:20]:
            assert edit_changes(paragraphs_of_markdown(source), n_edits=5) <= (2, 3)


def edit_changes(paragraphs: list[Paragraph], n_edits: int) -> tuple[float, int]:
    """Median and maximum of the chunks that one replaced paragraph changes."""
    rng = random.Random(1)
    old = chunked(paragraphs, ChunkingConfig())
    places = [place for place, block in enumerate(paragraphs) if block.kind == "text"]
    changes: list[int] = []
    for place in rng.choices(places, k=n_edits):
        edited = list(paragraphs)
        n_words = min(len(edited[place].text.split()), 60)
        edited[place] = Paragraph(sentence(rng, max(n_words, 1)))
        changes.append(n_new(old, chunked(edited, ChunkingConfig())))
    return statistics.median(changes), max(changes)


def paragraphs_of_markdown(source: str) -> list[Paragraph]:
    paragraphs: list[Paragraph] = []
    for part in filter(None, map(str.strip, re.split(r"\n\s*\n", source))):
        if heading := re.fullmatch(r"(#{1,6}) (.*)", part):
            paragraphs.append(Paragraph(heading[2], "title", len(heading[1])))
        else:
            kind = "code" if part.startswith("```") else "table" if part[0] == "|" else "text"
            paragraphs.append(Paragraph(part, kind))
    return paragraphs


class TestWhereItCuts:
    def test_headings_are_cut_before_paragraphs_and_never_left_behind(self) -> None:
        """A heading at the end of a chunk tells nothing, and its section lacks it."""
        rng = random.Random(8)
        paragraphs: list[Paragraph] = []
        for section in range(12):
            paragraphs += [Paragraph(f"Section {section}", "title", 2), *prose(rng, 2)]
        chunks = chunked(paragraphs, ChunkingConfig(max_tokens=160, overlap_tokens=16))
        starting = [chunk for chunk in chunks if chunk.text.startswith("Section")]
        assert len(starting) >= 8
        assert not any(re.search(r"Section \d+$", chunk.text) for chunk in chunks)

    def test_prose_is_cut_between_sentences(self) -> None:
        """Half sentences embed badly."""
        chunks = chunked(prose(random.Random(2), 80), ChunkingConfig())
        assert all(chunk.text.endswith(".") and chunk.text[0].isupper() for chunk in chunks)

    def test_chunks_are_reasonably_full(self) -> None:
        """Tiny chunks cost a vector each and lack context."""
        counts = [
            chunk.n_tokens for chunk in chunked(prose(random.Random(4), 300), ChunkingConfig())
        ]
        assert statistics.mean(counts) > 0.65 * 254
        assert min(counts) >= 64

    def test_page_and_headings_are_those_of_the_chunks_own_text(self) -> None:
        """A citation must point at the page where the passage is."""
        rng = random.Random(6)
        long_text = [block._replace(page=2) for block in prose(rng, 12)]
        paragraphs = [
            Paragraph("Guide", "title", 1, 1),
            Paragraph("Setup", "title", 2, 1),
            *long_text,
            Paragraph("Use", "title", 2, 3),
            *(block._replace(page=3) for block in prose(rng, 12)),
        ]
        chunks = chunked(paragraphs, ChunkingConfig())
        assert (chunks[0].page, chunks[0].headings) == (1, ("Guide", "Setup"))
        assert (chunks[1].page, chunks[1].headings) == (2, ("Guide", "Setup"))
        use = next(chunk for chunk in chunks if chunk.text.startswith("Use"))
        assert (use.page, use.headings) == (3, ("Guide", "Use"))
        assert chunks[-1].headings == ("Guide", "Use")

    def test_by_title_keeps_sections_of_different_parents_apart(self) -> None:
        """That is what the strategy is for."""
        rng = random.Random(9)
        paragraphs: list[Paragraph] = []
        for chapter in range(4):
            paragraphs.append(Paragraph(f"Chapter {chapter}", "title", 1))
            for part in range(5):
                paragraphs.append(Paragraph(f"Part {chapter}.{part}", "title", 2))
                paragraphs.append(Paragraph(sentence(rng, 30)))
        config = ChunkingConfig(strategy="by_title", max_tokens=128, overlap_tokens=0)
        chunks = chunked(paragraphs, config)
        for chunk in chunks:
            assert len(set(re.findall(r"Part (\d)", chunk.text))) == 1
        assert len(chunks) < 20
        assert sum(chunk.text.count("Part") for chunk in chunks) == 20

    def test_fixed_windows_are_full(self) -> None:
        """The strategy for those who want exactly that."""
        words = " ".join(f"w{number}" for number in range(1_000))
        config = ChunkingConfig(strategy="fixed", max_tokens=102, overlap_tokens=20)
        spans = split_document(words, [], config, WordTokenizer())
        assert [span.n_tokens for span in spans[:-1]] == [100] * (len(spans) - 1)
        assert words[spans[1].start_char :].startswith("w80 ")


class TestFallbackAndIds:
    @pytest.mark.parametrize("text", ["", " \n\n ", "\u3000\t"])
    def test_a_text_without_tokens_is_an_error_that_names_the_document(self, text: str) -> None:
        """An empty result must not look like a finished document."""
        with pytest.raises(StageError, match="document-7"):
            chunk_document("document-7", text, [], ChunkingConfig(), WordTokenizer())

    def test_a_chunk_id_depends_on_document_text_and_occurrence_alone(self) -> None:
        """The value is stored in every table and collection: it must never change."""
        assert chunk_id("d", "text", 0) == "98f55086984a8ab65e693367c55b2ecd"
        ids = {chunk_id("d", "text", 0), chunk_id("d", "text", 1), chunk_id("e", "text", 0)}
        assert len(ids | {chunk_id("d", "texts", 0)}) == 4

    def test_equal_chunks_of_one_document_are_counted(self) -> None:
        """Two equal chunks are two points; the second must not overwrite the first."""
        config = ChunkingConfig(max_tokens=16, overlap_tokens=0)
        chunks = chunk_document("d", "one two three. " * 40, [], config, WordTokenizer())
        assert len({chunk.text_hash for chunk in chunks}) < len(chunks)
        assert len({chunk.chunk_id for chunk in chunks}) == len(chunks)

    @pytest.mark.parametrize(
        ("values", "says"),
        [
            ({"max_tokens": 100, "overlap_tokens": 50}, "overlap_tokens: 50 .* at most 49"),
            ({"max_tokens": 2}, "greater than or equal to 16"),
            ({"strategy": "magic"}, "recursive"),
            ({"size": 3}, "Extra inputs"),
        ],
    )
    def test_wrong_settings_are_refused(self, values: dict[str, object], says: str) -> None:
        """Before anything is computed, and with what to give instead."""
        with pytest.raises(ValidationError, match=says):
            ChunkingConfig.model_validate(values)


class TestSentences:
    @pytest.mark.parametrize(
        ("text", "expected"),
        [
            ("One. Two! Three? Four", ["One.", "Two!", "Three?", "Four"]),
            ("Dr. J. Smith, e.g. at 3.5 p.m. on it.", ["Dr. J. Smith, e.g. at 3.5 p.m. on it."]),
            ('He said "Stop." Then he left.', ['He said "Stop."', "Then he left."]),
            ('"Why?" she asked. None knew.', ['"Why?" she asked.', "None knew."]),
            ("1. First point\n2. Second. End", ["1. First point\n2. Second.", "End"]),
            ("我来了。你呢？好！", ["我来了。", "你呢？", "好！"]),
            ("यह है। वह था।", ["यह है।", "वह था।"]),
            ("Wait... What? No.", ["Wait...", "What?", "No."]),
            ("", [""]),
        ],
    )
    def test_sentences_begin_where_a_reader_would_say(self, text: str, expected: list[str]) -> None:
        edges = [0, *sentence_starts(text), len(text)]
        assert [text[a:b].strip() for a, b in itertools.pairwise(edges)] == expected


def test_a_page_of_dots_takes_no_longer_than_a_page_of_words() -> None:
    """Tables of contents and form fields hold such lines; a quadratic rule would hang on them."""
    assert sentence_starts("." * 1_000_000 + "x" + "!?" * 500_000 + '"' * 1_000_000) == []


def test_white_space_is_what_python_calls_so() -> None:
    """Slices are stripped by these rules and compared by `str.isspace` elsewhere."""
    codes = np.arange(0x110000, dtype=np.uint32)
    expected = [chr(code).isspace() for code in range(0x110000)]
    assert is_white_space(codes).tolist() == expected
