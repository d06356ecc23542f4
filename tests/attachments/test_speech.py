"""Speech to text, through a server that speaks OpenAI's audio API."""

import base64
import json
import re
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import httpx2
import pytest
from sqlalchemy import URL

from tests.attachments.conftest import Place, started
from tests.support.processes import ChatClient, ModelServer, http


@pytest.fixture(scope="module")
def listening(
    tmp_path_factory: pytest.TempPathFactory, shared_database: URL, model_server: ModelServer
) -> Iterator[Place]:
    own = {"CHAT_TRANSCRIPTION_MODEL": "hears-well", "CHAT_MAX_AUDIO_BYTES": "3000000"}
    made = started(tmp_path_factory.mktemp("speech"), shared_database, model_server, None, **own)
    yield made
    assert made.process.stop() == 0


def encoded(data: bytes) -> str:
    return base64.b64encode(data).decode()


@pytest.mark.parametrize(
    ("kind", "name"),
    [
        ("audio/webm;codecs=opus", "speech.webm"),
        ("audio/mp4", "speech.mp4"),
        ("audio/mpeg", "speech.mp3"),
        ("audio/x-wav", "speech.wav"),
        ("video/webm", "speech.webm"),
    ],
)
def test_a_recording_becomes_text(listening: Place, kind: str, name: str) -> None:
    answer = listening.user().client.call("input.transcribe", audio_base64=encoded(b"hello"), mime_type=kind)
    assert answer == {"text": "You said 5 bytes."}
    heard = [call["body"] for call in listening.model.calls() if call["api"] == "transcriptions"][-1]
    assert heard == {"model": "hears-well", "name": name, "kind": kind.partition(";")[0], "bytes": 5}


def test_a_long_recording_is_more_than_other_requests_may_have(listening: Place) -> None:
    client = listening.user().client
    long = encoded(b"a" * 3_000_000)
    assert client.call("input.transcribe", audio_base64=long, mime_type="audio/webm") == {
        "text": "You said 3000000 bytes."
    }
    longer = client.post("input.transcribe", audio_base64=encoded(b"a" * 3_000_001), mime_type="audio/webm")
    assert (longer.status_code, longer.json()["code"]) == (413, "payload_too_large")
    # No other operation, and nothing that only looks large.
    other = client.post("threads.update", thread_id="thr_1", title="x" * 300_000)
    assert (other.status_code, other.json()["code"]) == (413, "payload_too_large")
    many = json.dumps({"type": "input.transcribe", "params": {"audio_base64": "A", "more": [1] * 200_000}})
    assert client.send_raw(many.encode()).status_code == 413


@pytest.mark.parametrize("wrong", ["", "not base64!", "AAA", "AA=A", "AAAA\n", "ÄÄÄÄ", "data:audio/webm;base64,AAAA"])
def test_what_is_not_base64_is_refused(listening: Place, wrong: str) -> None:
    refused = listening.user().client.post("input.transcribe", audio_base64=wrong, mime_type="audio/webm")
    assert (refused.status_code, refused.json()["code"]) == (422, "invalid_request")


@pytest.mark.parametrize("kind", ["", "text/html", "audio/", "audio/webm\r\nX: 1", "audio/webm; a=b\r\n", "video/x"])
def test_what_is_no_recording_is_refused(listening: Place, kind: str) -> None:
    refused = listening.user().client.post("input.transcribe", audio_base64="AAAA", mime_type=kind)
    assert (refused.status_code, refused.json()["code"]) == (422, "invalid_request")


@pytest.mark.parametrize(
    ("status", "ours", "code"),
    [
        (400, 422, "invalid_request"),
        (429, 503, "unavailable"),
        (401, 502, "transcription_failed"),
        (500, 502, "transcription_failed"),
    ],
)
def test_what_the_speech_server_refuses_is_a_clear_answer(listening: Place, status: int, ours: int, code: str) -> None:
    recording = encoded(f"fail{status}".encode())
    refused = listening.user().client.post("input.transcribe", audio_base64=recording, mime_type="audio/webm")
    assert (refused.status_code, refused.json()["code"]) == (ours, code)
    assert "as the recording says" not in refused.text


def test_without_a_model_for_it_nothing_is_transcribed(local: Place) -> None:
    refused = local.user().client.post("input.transcribe", audio_base64="AAAA", mime_type="audio/webm")
    assert (refused.status_code, refused.json()["code"]) == (501, "not_supported")


def test_the_event_loop_goes_on_while_a_long_recording_is_read(listening: Place) -> None:
    """Others are answered between its bytes; how long it takes is not the point, that they are is."""
    client = listening.user().client
    stream = client.stream("input.transcribe", audio_base64=encoded(b"a" * 3_000_000), mime_type="audio/webm")
    answers = 0
    while stream.status is None:
        assert http.get(f"{listening.process.base_url}/health/live").status_code == 200
        answers += 1
    stream.wait()
    assert answers >= 1
    assert re.search("3000000", stream.answer)


def test_requests_without_a_length_are_not_taken_for_recordings(listening: Place, local: Place) -> None:
    """A proxy that streams the body sends none; nor may answers under way count against a user's recordings."""
    for place in (listening, local):
        client = place.user().client
        body = json.dumps({"type": "threads.list", "params": {}}).encode()
        go_on, begun = threading.Event(), threading.Semaphore(0)

        def slowly(body: bytes = body, go_on: threading.Event = go_on, begun: threading.Semaphore = begun) -> Any:
            yield body[:5]
            begun.release()
            assert go_on.wait(20)
            yield body[5:]

        kind = {"Content-Type": "application/json"}

        def ask(_: int, client: ChatClient = client, slowly: Any = slowly, kind: dict[str, str] = kind) -> int:
            return httpx2.post(client.url, content=slowly(), headers=client.headers | kind, timeout=60).status_code

        at_once = 2 if place is listening else 5
        with ThreadPoolExecutor(at_once) as pool:
            asked = [pool.submit(ask, number) for number in range(at_once)]
            for _ in asked:
                assert begun.acquire(timeout=20)
            go_on.set()
            assert [each.result() for each in asked] == [200] * at_once
