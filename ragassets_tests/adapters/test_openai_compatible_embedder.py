"""The adapter of embedding services against a real HTTP server that misbehaves."""

import pickle
import socket
import threading
import time
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from typing import Any

import numpy as np
import pytest

from ragassets.adapters.embedders.openai_compatible import OpenAICompatibleEmbedder
from ragassets.adapters.embedders.service_calls import Timing
from ragassets.core.embedding import EmbedsEach, validate_vectors
from ragassets.core.settings import EmbeddingModelConfig
from ragassets.errors import (
    ConfigurationError,
    EmbeddingRefusedError,
    EmbeddingServiceError,
    RagAssetsError,
)
from ragassets_tests.embedding_server import EmbeddingServer, Reply, Request, failing

KEY = "sk-very-secret-4711"
TEXTS = [f"text {number}" for number in range(10)]
HTML = Reply(body=b"<html>Welcome to our proxy</html>")


class Clock:
    """Time that passes only when somebody sleeps."""

    def __init__(self) -> None:
        self.seconds = 0.0
        self.sleeps: list[float] = []

    def sleep(self, seconds: float) -> None:
        self.sleeps.append(seconds)
        self.seconds += seconds

    def timing(self, *, random: float = 0.0) -> Timing:
        return Timing(
            sleep=self.sleep,
            monotonic=lambda: self.seconds,
            now=lambda: datetime(2026, 11, 22, 12, tzinfo=UTC),
            random=lambda: random,
        )


@pytest.fixture
def clock() -> Clock:
    return Clock()


Start = Callable[..., EmbeddingServer]


@pytest.fixture
def start() -> Iterator[Start]:
    """Starts servers, and stops them after the test."""
    servers: list[EmbeddingServer] = []

    def start_server(**options: Any) -> EmbeddingServer:
        servers.append(EmbeddingServer(**options).__enter__())
        return servers[-1]

    yield start_server
    for server in servers:
        server.__exit__(None, None, None)


def embedder(
    server: EmbeddingServer | str, clock: Clock | None = None, random: float = 0.0, **settings: Any
) -> OpenAICompatibleEmbedder:
    """An embedder of this server that keeps to the defaults, but for one request at a time."""
    url = server if isinstance(server, str) else server.url
    values = {"base_url": url, "dim": 8, "concurrency": 1, "api_key": KEY, **settings}
    config = EmbeddingModelConfig.model_validate({"provider": "openai", "model": "tiny", **values})
    return OpenAICompatibleEmbedder(
        "small", config, clock.timing(random=random) if clock else Timing()
    )


def free_port() -> int:
    """A port that nobody listens on."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


class TestAnswers:
    @pytest.mark.parametrize("encoding", ["base64", "float"])
    def test_both_encodings_give_the_same_vectors(self, start: Start, encoding: str) -> None:
        """Base64 is smaller, floats are understood everywhere."""
        server = start()
        vectors = embedder(server, encoding_format=encoding).embed_documents(TEXTS)
        np.testing.assert_allclose(vectors, server.embedder.embed_documents(TEXTS), atol=1e-6)
        assert server.requests[0].get("encoding_format", "float") == encoding
        assert server.keys == [f"Bearer {KEY}"]

    def test_vectors_are_matched_by_their_index(self, start: Start) -> None:
        """Some servers answer in the order in which their workers finish."""
        server = start(change=lambda answer: answer["data"].reverse())
        vectors = embedder(server).embed_documents(TEXTS)
        np.testing.assert_allclose(vectors, server.embedder.embed_documents(TEXTS), atol=1e-6)

    def test_vectors_of_other_lengths_are_normalized(self, start: Start) -> None:
        """Cosine and dot products must not depend on the service's habits."""

        def stretch(answer: dict[str, Any]) -> None:
            for entry in answer["data"]:
                entry["embedding"] = [7 * value for value in entry["embedding"]]

        server = start(change=stretch)
        vectors = embedder(server, encoding_format="float").embed_documents(TEXTS)
        assert validate_vectors(vectors, dim=8) == [None] * 10
        np.testing.assert_allclose(vectors, server.embedder.embed_documents(TEXTS), atol=1e-6)

    def test_unsound_vectors_are_left_for_the_stage_to_refuse(self, start: Start) -> None:
        """A NaN must reach neither the table nor the index, and must not cost its neighbours."""

        def spoil(answer: dict[str, Any]) -> None:
            answer["data"][1]["embedding"] = [float("nan")] * 8
            answer["data"][2]["embedding"] = [0.0] * 8
            answer["data"][3]["embedding"][0] = 1e300

        server = start(change=spoil)
        made = embedder(server, encoding_format="float").embed_each(TEXTS[:5])
        assert made.failures == {}
        assert validate_vectors(made.vectors, dim=8) == [
            None,
            "is not finite",
            "is zero",
            "is not finite",
            None,
        ]

    @pytest.mark.parametrize(
        ("reply", "words"),
        [
            (HTML, "it is no JSON"),
            (Reply(body=b"[" * 100_000), "it is no JSON"),
            (Reply(body=b"[]"), "the answer is no object"),
            (Reply(body=b'{"data": {}}'), "it has no list `data`"),
            (Reply(body=b'{"data": [1, 2]}'), "an entry of `data` is no object"),
            (Reply(body=b'{"data": []}'), "it has 0 vectors for 2 texts"),
            (Reply(body=b'{"data": [{"index": 0}, {"index": 0}]}'), "indexes are not those"),
            (Reply(body=b'{"data": [{"index": [1]}, {"index": 0}]}'), "indexes are not those"),
            (Reply(body=b'{"data": [{}, {}]}'), "a vector is missing"),
            (Reply(body=b'{"data": [{"embedding": [[1]]}, {}]}'), "a vector is missing"),
            (Reply(body=b'{"data": [{"embedding": "?"}, {}]}'), "a vector cannot be read"),
            (
                Reply(body=b'{"data": [{"embedding": [1]}, {"embedding": [1, 2]}]}'),
                "different dimensions",
            ),
        ],
    )
    def test_a_malformed_answer_is_tried_again(
        self, start: Start, clock: Clock, reply: Reply, words: str
    ) -> None:
        """A proxy's page comes with status 200 too; it may be gone a minute later."""
        server = start(script=[reply])
        assert len(embedder(server, clock).embed_documents(TEXTS[:2])) == 2
        assert clock.sleeps == [5]
        server.rule = lambda _request: reply
        with pytest.raises(EmbeddingServiceError, match=words) as caught:
            embedder(server, clock, retry={"attempts": 1}).embed_documents(TEXTS[:2])
        assert "proxy" not in str(caught.value)

    def test_a_shorter_vector_is_asked_of_the_service_or_cut_here(self, start: Start) -> None:
        """Matryoshka models; the two ways agree."""
        server = start(dim=16)
        asked = embedder(server, shortening="service").embed_documents(TEXTS)
        assert server.requests[-1]["dimensions"] == 8
        cut = embedder(server, shortening="client").embed_documents(TEXTS)
        assert "dimensions" not in server.requests[-1]
        np.testing.assert_allclose(asked, cut, atol=1e-6)
        assert validate_vectors(cut, dim=8) == [None] * 10

    def test_prompts_go_before_documents_and_queries(self, start: Start) -> None:
        """Some models were trained with prefixes and are poor without."""
        server = start()
        model = embedder(server, document_prompt="passage: ", query_prompt="query: ")
        model.embed_documents(["a"])
        model.embed_queries(["b"])
        assert server.texts == ["passage: a", "query: b"]


class TestRetries:
    def test_five_failures_are_waited_out_as_the_design_says(
        self, start: Start, clock: Clock
    ) -> None:
        """Six tries; 5, 10, 20, 40 and 80 s, and up to 2 s more."""
        server = start(script=[failing(status) for status in (429, 500, 502, 503, 503)])
        assert len(embedder(server, clock, random=0.5).embed_documents(TEXTS)) == 10
        assert clock.sleeps == [6, 11, 21, 41, 81]

    def test_the_sixth_failure_gives_the_texts_up_for_this_run(
        self, start: Start, clock: Clock
    ) -> None:
        """They are not lost: a later run tries again, as often as it takes."""
        server = start(rule=lambda _request: failing(503))
        made = embedder(server, clock).embed_each(TEXTS[:3])
        assert sorted(made.failures) == [0, 1, 2]
        error = made.failures[0]
        assert isinstance(error, EmbeddingServiceError)
        assert (error.is_transient, error.is_outage) == (True, True)
        assert f"{server.url}: HTTP 503 in 6 tries" in str(error)
        assert sum(request["input"] == TEXTS[:3] for request in server.requests) == 6

    @pytest.mark.parametrize("asked", ["3", "Sun, 22 Nov 2026 12:00:03 GMT"])
    def test_retry_after_is_honoured_in_both_forms(
        self, start: Start, clock: Clock, asked: str
    ) -> None:
        """Whoever comes back earlier is often throttled longer."""
        server = start(script=[failing(429, retry_after=asked)])
        embedder(server, clock, random=0.5).embed_documents(TEXTS)
        assert clock.seconds == 4
        assert clock.sleeps == [4]

    def test_a_pause_of_an_hour_is_left_to_a_later_run(self, start: Start, clock: Clock) -> None:
        """A run that sleeps for an hour holds a slot of the pool."""
        server = start(rule=lambda _request: failing(429, retry_after="3600"))
        made = embedder(server, clock).embed_each(TEXTS)
        assert (len(made.failures), len(server.requests), clock.sleeps) == (10, 1, [])

    def test_an_empty_purse_is_not_waited_for(self, start: Start, clock: Clock) -> None:
        """OpenAI says 429 for that too."""
        server = start(rule=lambda _request: failing(429, "insufficient_quota"))
        made = embedder(server, clock).embed_each(TEXTS)
        assert "HTTP 429, insufficient_quota in 1 try" in str(made.failures[0])
        assert len(server.requests) == 1

    def test_a_reset_a_hang_and_a_cut_answer_are_tried_again(
        self, start: Start, clock: Clock
    ) -> None:
        """What networks do."""
        cut = Reply(body=b'{"data": [')
        server = start(script=[Reply(is_reset=True), Reply(hangs_seconds=1), cut])
        model = embedder(server, clock, timeout_seconds=0.2)
        assert len(model.embed_documents(TEXTS)) == 10
        assert clock.sleeps == [5, 10, 20]

    def test_a_closed_port_is_tried_again(self, clock: Clock) -> None:
        """A service that is being restarted refuses connections."""
        model = embedder(f"http://127.0.0.1:{free_port()}/v1", clock)
        made = model.embed_each(["a"])
        assert "no connection in 6 tries" in str(made.failures[0])
        assert clock.sleeps == [5, 10, 20, 40, 80]

    @pytest.mark.parametrize("status", [400, 401, 403, 404, 413, 422])
    def test_what_cannot_help_is_never_tried_again(
        self, start: Start, clock: Clock, status: int
    ) -> None:
        """A wrong key may lock the account; a wrong request stays wrong."""
        server = start(rule=lambda _request: failing(status))
        with pytest.raises(ConfigurationError):
            embedder(server, clock).embed_documents(["a"])
        assert clock.sleeps == []
        assert [request["input"] for request in server.requests].count(["a"]) == 1

    def test_a_fixed_delay_is_available(self, start: Start, clock: Clock) -> None:
        """By configuration."""
        server = start(rule=lambda _request: failing(503))
        retry = {"policy": "fixed", "attempts": 4, "first_wait_seconds": 9, "jitter_seconds": 0}
        embedder(server, clock, retry=retry).embed_each(TEXTS)
        assert clock.sleeps == [9, 9, 9]

    def test_a_search_gives_up_within_seconds(self, start: Start, clock: Clock) -> None:
        """Somebody waits for it."""
        server = start(rule=lambda _request: failing(503))
        with pytest.raises(EmbeddingServiceError):
            embedder(server, clock).embed_queries(["q"])
        assert clock.sleeps == [1, 2]


class TestBadTexts:
    def test_a_refused_text_fails_alone(self, start: Start, clock: Clock) -> None:
        """One chunk that is too long must not cost the 63 beside it."""

        def refuse(request: Request) -> Reply | None:
            return failing(400, "too_long") if "text 6" in request["input"] else None

        server = start(rule=refuse)
        made = embedder(server, clock).embed_each(TEXTS)
        assert list(made.failures) == [6]
        error = made.failures[6]
        assert isinstance(error, EmbeddingRefusedError)
        assert not error.is_transient
        assert "HTTP 400, too_long" in str(error)
        assert "secret text" not in str(error)
        others = [i for i in range(10) if i != 6]
        expected = server.embedder.embed_documents([TEXTS[i] for i in others])
        np.testing.assert_allclose(made.vectors[others], expected, atol=1e-6)
        assert not made.vectors[6].any()
        # The halves of ten, five, three (or two) and so on: not every text by itself.
        assert len(server.requests) <= 9
        assert clock.sleeps == []

    def test_a_text_that_breaks_the_service_fails_alone(self, start: Start, clock: Clock) -> None:
        """Ollama answers 500 to a text whose vector is not a number."""

        def crash(request: Request) -> Reply | None:
            return failing(500) if "text 3" in request["input"] else None

        server = start(rule=crash)
        made = embedder(server, clock).embed_each(TEXTS)
        assert list(made.failures) == [3]
        error = made.failures[3]
        assert isinstance(error, EmbeddingServiceError)
        assert (error.is_transient, error.is_outage) == (True, False)
        # The whole batch had its six tries; the halves are not waited for again.
        assert clock.sleeps == [5, 10, 20, 40, 80]

    def test_a_service_that_refuses_all_is_a_mistake_of_ours(
        self, start: Start, clock: Clock
    ) -> None:
        """An unknown parameter must not turn a corpus into dead letters."""
        server = start(rule=lambda _request: failing(400, "unknown_parameter"))
        with pytest.raises(ConfigurationError, match=r"plain text \(HTTP 400, unknown_parameter\)"):
            embedder(server, clock).embed_each(TEXTS)

    def test_a_service_that_refuses_and_then_falls_silent_blames_nobody(
        self, start: Start, clock: Clock
    ) -> None:
        """Nothing is known of the text: a later run finds out."""
        server = start(script=[failing(422)], rule=lambda _request: failing(503))
        made = embedder(server, clock).embed_each(["a"])
        assert isinstance(made.failures[0], EmbeddingServiceError)


class TestMistakes:
    def test_a_refused_key_is_named_but_not_shown(self, start: Start) -> None:
        """The first thing that goes wrong."""
        server = start(rule=lambda _request: failing(401))
        with pytest.raises(ConfigurationError) as caught:
            embedder(server).embed_documents(["a"])
        assert caught.value.key == "embedding_models.small.api_key"
        assert f"refused by {server.url} (HTTP 401)" in str(caught.value)
        assert KEY not in str(caught.value)

    def test_a_wrong_address_or_model_is_named(self, start: Start) -> None:
        """The second."""
        server = start(rule=lambda _request: failing(404))
        with pytest.raises(ConfigurationError, match=r"base_url.*no /embeddings of model 'tiny'"):
            embedder(server).embed_documents(["a"])

    def test_a_redirect_is_not_followed(self, start: Start) -> None:
        """The key would go along."""
        elsewhere = start()
        server = start(rule=lambda _request: Reply(307, headers={"Location": elsewhere.url}))
        with pytest.raises(ConfigurationError, match=r"redirects \(HTTP 307\)"):
            embedder(server).embed_documents(["a"])
        assert elsewhere.requests == []

    @pytest.mark.parametrize(("dim", "hint"), [(16, "shortening"), (4, "Set dim: 4")])
    def test_another_dimension_is_refused(self, start: Start, dim: int, hint: str) -> None:
        """Before anything of it is stored."""
        with pytest.raises(ConfigurationError, match=rf"small\.dim: 8 .*: {dim}\. .*{hint}"):
            embedder(start(dim=dim)).embed_each(TEXTS)

    def test_another_model_is_refused_unless_it_is_said_to_be_the_same(self, start: Start) -> None:
        """A gateway that reroutes a name would mix two models in one index."""
        server = start(model="tiny-v2")
        with pytest.raises(ConfigurationError, match="set served_model: tiny-v2"):
            embedder(server).embed_documents(["a"])
        assert embedder(server, served_model="tiny-v2").embed_documents(["a"]).shape == (1, 8)

    def test_a_model_that_changes_between_two_batches_is_refused(self, start: Start) -> None:
        """It is checked in every answer, not only in the first."""
        server = start()
        model = embedder(server)
        model.embed_documents(["a"])
        server.model = "other"
        with pytest.raises(ConfigurationError, match="'other'"):
            model.embed_documents(["b"])

    def test_a_mistake_ends_the_pauses_of_the_other_requests(self, start: Start) -> None:
        """Nobody should wait five minutes to read that the key is wrong."""
        key_is_wrong = threading.Event()

        def refuse(request: Request) -> Reply | None:
            if request["input"] == ["text 0"]:
                return failing(503)
            key_is_wrong.wait(5)
            return failing(401)

        server = start(rule=refuse)
        model = embedder(server, concurrency=2, batch_texts=1, retry={"first_wait_seconds": 60})
        threading.Timer(0.3, key_is_wrong.set).start()
        started = time.monotonic()
        with pytest.raises(ConfigurationError):
            model.embed_each(TEXTS[:2])
        assert time.monotonic() - started < 10


class TestFallbacks:
    def test_another_endpoint_of_the_same_model_takes_over(
        self, start: Start, clock: Clock
    ) -> None:
        """After the tries at the first one; the vectors are the same."""
        down, up = start(rule=lambda _request: failing(503)), start()
        model = embedder(down, clock, fallback_base_urls=[up.url], fallback_api_key="other-key")
        np.testing.assert_allclose(
            model.embed_documents(TEXTS), up.embedder.embed_documents(TEXTS), atol=1e-6
        )
        assert len(down.requests) == 6
        assert up.keys == ["Bearer other-key"]
        assert set(down.keys) == {f"Bearer {KEY}"}

    def test_it_is_left_alone_while_the_first_choice_works(self, start: Start) -> None:
        """It may cost more."""
        first, second = start(), start()
        embedder(first, fallback_base_urls=[second.url]).embed_documents(TEXTS)
        assert second.requests == []

    def test_one_with_another_model_is_never_used(self, start: Start, clock: Clock) -> None:
        """By its name; the texts wait for a later run instead."""
        down, other = start(rule=lambda _request: failing(503)), start(model="other")
        model = embedder(down, clock, fallback_base_urls=[other.url], batch_texts=5)
        made = model.embed_each(TEXTS)
        assert len(made.failures) == 10
        assert not made.vectors.any()
        assert "'other'" in str(made.failures[0])
        assert len(other.requests) == 1

    def test_one_with_other_vectors_under_the_same_name_is_never_used(
        self, start: Start, clock: Clock
    ) -> None:
        """The name is a label; the vector of a text that both embed is the proof."""
        first = start()
        impostor = start(change=lambda answer: {**answer, "model": "tiny"}, model="other")
        model = embedder(first, clock, fallback_base_urls=[impostor.url])
        model.embed_documents(TEXTS[:2])
        first.rule = lambda _request: failing(503)
        made = model.embed_each(TEXTS[2:])
        assert not made.vectors.any()
        assert "another vector of the same text" in str(made.failures[0])

    def test_one_with_the_same_vectors_passes_the_comparison(
        self, start: Start, clock: Clock
    ) -> None:
        """The text that is compared is sent along once, and is not returned."""
        first, second = start(), start()
        model = embedder(first, clock, fallback_base_urls=[second.url])
        model.embed_documents(TEXTS[:2])
        first.rule = lambda _request: failing(503)
        for part in (TEXTS[2:4], TEXTS[4:]):
            expected = first.embedder.embed_documents(part)
            np.testing.assert_allclose(model.embed_documents(part), expected, atol=1e-6)
        assert second.texts == ["text 0", *TEXTS[2:]]

    def test_a_nameless_one_needs_a_vector_to_compare_with(
        self, start: Start, clock: Clock
    ) -> None:
        """Without either there is no telling what it serves."""
        down = start(rule=lambda _request: failing(503))
        nameless = start(change=lambda answer: {"data": answer["data"]})
        made = embedder(down, clock, fallback_base_urls=[nameless.url]).embed_each(["a"])
        assert "does not say which model it serves" in str(made.failures[0])


class TestCircuitBreaker:
    SETTINGS = {"batch_texts": 1, "circuit_breaker": {"failures": 2, "open_seconds": 300}}  # noqa: RUF012

    def test_an_outage_costs_the_patience_of_a_few_batches_only(
        self, start: Start, clock: Clock
    ) -> None:
        """A hundred thousand chunks at 155 s a batch would take days to fail."""
        server = start(rule=lambda _request: failing(503))
        made = embedder(server, clock, **self.SETTINGS).embed_each(TEXTS)
        assert len(made.failures) == 10
        assert all(getattr(error, "is_outage", False) for error in made.failures.values())
        # One batch with six tries, the plain text that shows the outage, and nothing more.
        assert len(server.requests) == 7
        assert "left alone after 2 failed batches" in str(made.failures[9])

    def test_after_its_pause_one_try_decides(self, start: Start) -> None:
        """An endpoint that is back is used again in the same run."""
        server = start(rule=lambda _request: failing(503))
        breaker = {"failures": 1, "open_seconds": 0.2}
        model = embedder(server, batch_texts=1, circuit_breaker=breaker, retry={"attempts": 1})
        assert len(model.embed_each(TEXTS[:3]).failures) == 3
        assert len(server.requests) == 1
        time.sleep(0.25)
        assert len(model.embed_each(TEXTS[:3]).failures) == 3
        assert len(server.requests) == 2
        server.rule = lambda _request: None
        time.sleep(0.25)
        assert model.embed_each(TEXTS).failures == {}

    def test_refused_texts_do_not_open_it(self, start: Start, clock: Clock) -> None:
        """The service works; the texts do not."""

        def refuse(request: Request) -> Reply | None:
            return failing(400) if len(request["input"][0]) > 6 else None

        server = start(rule=refuse)
        model = embedder(server, clock, **self.SETTINGS)
        made = model.embed_each(["ok", *["much too long"] * 5, "fine"])
        assert sorted(made.failures) == [1, 2, 3, 4, 5]


class TestLimits:
    def test_requests_run_at_once_but_not_too_many(self, start: Start) -> None:
        """Half of the time of a request is waiting."""
        server = start()
        server.busy_seconds = 0.05
        embedder(server, concurrency=3, batch_texts=1).embed_documents(TEXTS)
        assert len(server.requests) == 10
        assert 2 <= server.most_at_once <= 3

    def test_batches_keep_to_texts_and_tokens(self, start: Start) -> None:
        """A service refuses what is more."""
        server = start()
        embedder(server, batch_texts=4).embed_documents(TEXTS)
        assert [len(request["input"]) for request in server.requests] == [4, 4, 2]
        server.requests.clear()
        # "text 0" is estimated at three tokens.
        embedder(server, batch_tokens=7).embed_documents(TEXTS)
        assert [len(request["input"]) for request in server.requests] == [2] * 5

    def test_a_known_tokenizer_counts_instead_of_the_estimate(self, start: Start) -> None:
        """`[CLS] text 0 [SEP]` are four tokens of the bundled model."""
        server = start()
        model = embedder(server, batch_tokens=8, tokenizer="all-MiniLM-L6-v2")
        model.embed_documents(TEXTS)
        assert [len(request["input"]) for request in server.requests] == [2] * 5

    def test_requests_a_minute_are_kept(self, start: Start, clock: Clock) -> None:
        """120 a minute: two at once, then one every half second."""
        server = start()
        model = embedder(server, clock, batch_texts=1, requests_per_minute=120)
        model.embed_documents(TEXTS)
        assert clock.seconds == pytest.approx(4.0, abs=0.02)

    def test_tokens_a_minute_are_kept(self, start: Start, clock: Clock) -> None:
        """Ten texts of three tokens, at sixty a minute, with six to start with: 24 s."""
        server = start()
        model = embedder(server, clock, batch_texts=1, batch_tokens=6, tokens_per_minute=60)
        model.embed_documents(TEXTS)
        assert clock.seconds == pytest.approx(24.0, abs=0.1)

    def test_a_text_of_more_tokens_than_a_minute_grants_is_still_sent(
        self, start: Start, clock: Clock
    ) -> None:
        """It would wait for ever."""
        server = start()
        model = embedder(server, clock, tokens_per_minute=10)
        assert len(model.embed_documents(["word " * 100, "word " * 100])) == 2

    def test_everybody_pauses_when_one_is_asked_to(self, start: Start, clock: Clock) -> None:
        """The others would only be throttled too."""
        server = start(script=[failing(429, retry_after="30")])
        model = embedder(server, clock, batch_texts=1, retry={"jitter_seconds": 0})
        model.embed_documents(TEXTS[:2])
        assert clock.sleeps == [30]


class TestIdentity:
    def test_the_fingerprint_covers_what_decides_vectors_and_nothing_else(self) -> None:
        """An endpoint that moves must not embed a corpus again."""
        here = "http://127.0.0.1:9/v1"
        same = [
            embedder(here),
            embedder("http://127.0.0.1:10/v2", api_key="another"),
            embedder(here, fallback_base_urls=["http://127.0.0.1:11"], concurrency=7),
            embedder(here, batch_texts=3, encoding_format="float", served_model="x"),
            embedder(here, shortening="service", requests_per_minute=9, retry={"attempts": 2}),
        ]
        assert len({model.fingerprint for model in same}) == 1
        others = [
            embedder(here, dim=9),
            embedder(here, revision="2"),
            embedder(here, model="huge"),
            embedder(here, document_prompt="x"),
            embedder(here, query_prompt="x"),
        ]
        assert len({model.fingerprint for model in [*others, *same]}) == 6

    def test_the_key_is_nowhere_but_in_the_header(self, start: Start, clock: Clock) -> None:
        """Errors, tables and logs are read by many."""
        failures: list[RagAssetsError] = []
        for reply in (failing(401), failing(404), failing(503), HTML, Reply(is_reset=True)):
            server = start(rule=lambda _request, reply=reply: reply)
            model = embedder(server, clock)
            try:
                failures += model.embed_each(["a"]).failures.values()
            except RagAssetsError as error:
                failures.append(error)
            assert KEY not in f"{model!r} {vars(model)} {model._config!r} {model.fingerprint}"
        assert len(failures) == 5
        for error in failures:
            assert KEY not in f"{error} {error!r} {vars(error)}"
            assert KEY.encode() not in pickle.dumps(error)

    def test_it_embeds_each_text_for_itself(self) -> None:
        """What the stage looks for."""
        assert isinstance(embedder("http://127.0.0.1:9"), EmbedsEach)


class TestProbe:
    def test_every_endpoint_is_asked_once(self, start: Start, clock: Clock) -> None:
        """`doctor` must find a dead fallback before it is needed."""
        sound, down = start(), start(rule=lambda _request: failing(503))
        other = start(model="other")
        urls = [down.url, other.url]
        reports = embedder(sound, clock, fallback_base_urls=urls).probe_endpoints()
        assert [report.url for report in reports] == [sound.url, down.url, other.url]
        assert reports[0].problem is None
        assert reports[1].problem == "HTTP 503 in 1 try"
        assert "'other'" in str(reports[2].problem)
        assert clock.sleeps == []
