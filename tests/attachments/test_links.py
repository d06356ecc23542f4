"""Addresses that are their own permission."""

import base64
import random

import pytest

from chatkit_postgres.attachments.links import Links
from chatkit_postgres.errors import LinkExpired, NotFound

SECRET = "s" * 48


class Clock:
    now = 1_000_000.0

    def __call__(self) -> float:
        return self.now


def links(secret: str = SECRET) -> tuple[Links, Clock]:
    clock = Clock()
    return Links(secret, seconds=3600, upload_seconds=900, now=clock), clock


def key_of(url: str) -> str:
    return url.partition("?key=")[2]


def test_a_link_to_upload_is_good_for_fifteen_minutes() -> None:
    made, clock = links()
    key = key_of(made.to_upload("https://chat.example", "alice", "atc_1"))
    clock.now += 899
    assert made.owner_in(key, "atc_1", "upload") == "alice"
    clock.now += 1
    with pytest.raises(LinkExpired):
        made.owner_in(key, "atc_1", "upload")


def test_a_link_to_read_is_the_same_for_a_while_and_good_for_as_long_as_it_says() -> None:
    made, clock = links()
    urls = set()
    for _ in range(180):
        clock.now += 10
        url = made.to_read("https://chat.example", "älice@example.com", "atc_1", "preview")
        urls.add(url)
        made_at, clock.now = clock.now, clock.now + 3599
        assert made.owner_in(key_of(url), "atc_1", "preview") == "älice@example.com"
        clock.now = made_at + 5400
        with pytest.raises(LinkExpired):
            made.owner_in(key_of(url), "atc_1", "preview")
        clock.now = made_at
    assert len(urls) == 2


def test_every_changed_bit_and_every_other_use_is_nothing() -> None:
    made, _ = links()
    key = key_of(made.to_upload("", "alice", "atc_1"))
    sealed = base64.urlsafe_b64decode(key + "==")
    dice = random.Random(1)
    wrong = [base64.urlsafe_b64encode(_flipped(sealed, bit)).decode() for bit in range(len(sealed) * 8)]
    wrong += ["", "=", "A", "A" * 10_000, "ä", "\x00", key[:-1], key + "A" * 4, sealed.decode("latin-1")]
    wrong += [base64.urlsafe_b64encode(dice.randbytes(length)).decode() for length in range(64)]
    for changed in wrong:
        with pytest.raises(NotFound):
            made.owner_in(changed, "atc_1", "upload")
    for attachment_id, purpose in (("atc_2", "upload"), ("atc_1", "content"), ("atc_1", "preview"), ("", "upload")):
        with pytest.raises(NotFound):
            made.owner_in(key, attachment_id, purpose)  # type: ignore[arg-type] # they are purposes
    with pytest.raises(NotFound):
        links("t" * 48)[0].owner_in(key, "atc_1", "upload")


def _flipped(data: bytes, bit: int) -> bytes:
    changed = bytearray(data)
    changed[bit // 8] ^= 1 << bit % 8
    return bytes(changed)
