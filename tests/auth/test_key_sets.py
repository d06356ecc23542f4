"""Key sets: hostile ones let nobody in, good ones are cached, rotated, and survive their issuer's outage."""

import asyncio
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any
from uuid import uuid4

import pytest
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from chatkit_postgres.auth.jwks_sources import from_file, from_url
from chatkit_postgres.auth.keys import FRESH_SECONDS, KeySet
from chatkit_postgres.auth.tokens import TokenRules, TokenVerifier
from chatkit_postgres.errors import KeysUnavailable, Unauthorized
from tests.support.forge import Ec, Ed, Forge, Hmac, Rsa, b64, header, number, token

ISSUERS: dict[str, Forge] = {"RS256": Rsa(), "ES256": Ec(), "EdDSA": Ed()}
BIG = {"RS256": "n", "ES256": "x", "EdDSA": "x"}


class Issuer:
    """Publishes a set; counts who asks; can be away."""

    def __init__(self, *members: Any) -> None:
        self.members = list(members)
        self.document: bytes | None = None
        self.is_away = False
        self.asked = 0
        self.delay = 0.0

    async def __call__(self) -> bytes:
        self.asked += 1
        await asyncio.sleep(self.delay)
        if self.is_away:
            raise OSError("no route to host")
        return self.document if self.document is not None else json.dumps({"keys": self.members}).encode()


class Clock:
    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture(params=ISSUERS)
def forge(request: pytest.FixtureRequest) -> Forge:
    return ISSUERS[request.param]


@pytest.fixture
def clock() -> Clock:
    return Clock()


def verifier(issuer: Issuer, clock: Callable[[], float], algorithm: str | None, **options: Any) -> TokenVerifier:
    algorithms = (algorithm,) if algorithm else None
    return TokenVerifier(TokenRules(algorithms=algorithms), KeySet(issuer, algorithms, clock=clock, **options))


def truncated(value: str) -> str:
    return value[: len(value) // 2]


# A set in which the key that would verify the token is spoilt in one way. `big` is the member that holds the key.
SPOILT: dict[str, Callable[[Forge, str], dict[str, Any]]] = {
    "another kty": lambda f, _: f.jwk(kty="oct"),
    "kty missing": lambda f, _: f.jwk(kty=...),
    "kty in other letters": lambda f, _: f.jwk(kty=f.jwk()["kty"].lower() + "x"),
    "crv of another curve": lambda f, _: f.jwk(crv="P-521") if "crv" in f.jwk() else f.jwk(n="AQAB"),
    "crv missing": lambda f, _: f.jwk(crv=...) if "crv" in f.jwk() else f.jwk(e=...),
    "alg of another family": lambda f, _: f.jwk(alg="HS256"),
    "alg of the same family": lambda f, _: f.jwk(
        alg={"RS256": "RS512", "ES256": "ES384", "EdDSA": "Ed448"}[f.algorithm]
    ),
    "alg null": lambda f, _: f.jwk(alg=None),
    "use is encryption": lambda f, _: f.jwk(use="enc"),
    "use is a list": lambda f, _: f.jwk(use=["sig"]),
    "key_ops without verify": lambda f, _: f.jwk(key_ops=["sign"]),
    "key_ops empty": lambda f, _: f.jwk(key_ops=[]),
    "key_ops a string": lambda f, _: f.jwk(key_ops="verify"),
    "a private key": lambda f, _: f.jwk(d="AQAB"),
    "kid is a number": lambda f, _: f.jwk(kid=7),
    "key missing": lambda f, big: f.jwk(**{big: ...}),
    "key null": lambda f, big: f.jwk(**{big: None}),
    "key empty": lambda f, big: f.jwk(**{big: ""}),
    "key a number": lambda f, big: f.jwk(**{big: 7}),
    "key cut in half": lambda f, big: f.jwk(**{big: truncated(f.jwk()[big])}),
    "key of zeros": lambda f, big: f.jwk(**{big: b64(bytes(32))}),
    "key with padding": lambda f, big: f.jwk(**{big: f.jwk()[big] + "="}),
    "key in another alphabet": lambda f, big: f.jwk(**{big: "+/" + f.jwk()[big][2:]}),
    "key with a line break": lambda f, big: f.jwk(**{big: f.jwk()[big] + "\n"}),
    "key not ASCII": lambda f, big: f.jwk(**{big: "é" + f.jwk()[big]}),
    "an even or tiny exponent, a point off the curve": lambda f, _: (
        f.jwk(e="Ag") if "e" in f.jwk() else f.jwk(x=b64(b"\x01" * 31))
    ),
    "an exponent of one": lambda f, _: f.jwk(e="AQ") if "e" in f.jwk() else f.jwk(x=b64(b"\x01" * 33)),
    "another key under this kid": lambda f, _: f.other("other").jwk(kid="main"),
}


def test_the_table_is_long_enough() -> None:
    assert len(SPOILT) >= 20


@pytest.mark.parametrize("name", SPOILT)
async def test_a_spoilt_key_lets_nobody_in_and_nobody_out(forge: Forge, clock: Clock, name: str) -> None:
    other = forge.other("good")
    issuer = Issuer(SPOILT[name](forge, BIG[forge.algorithm]), other.jwk())
    checking = verifier(issuer, clock, forge.algorithm)
    with pytest.raises(Unauthorized):
        await checking.identify(token(forge))
    # The users of the key beside it are not concerned.
    assert (await checking.identify(token(other))).id == "alice"


NO_SETS = [b"", b"not json", b"[]", b"null", b"{}", b'{"keys": {}}', b'{"keys": []}', b'{"keys": [null, 7, "x", []]}']
NO_SETS += [b"[" * 9000, b'{"keys": [], "keys": []}', b" " * 70_000, b'{"keys": [' + b"7," * 9000 + b"7]}"]
NO_SETS += [b'{"keys": ["\xff"]}', b'{"keys": NaN}']


@pytest.mark.parametrize("document", NO_SETS)
async def test_what_is_no_key_set_is_as_if_the_issuer_were_away(forge: Forge, clock: Clock, document: bytes) -> None:
    issuer = Issuer()
    issuer.document = document
    with pytest.raises(KeysUnavailable):
        await verifier(issuer, clock, forge.algorithm).identify(token(forge))


@pytest.mark.parametrize("algorithm", ["RS256", "PS256"])
async def test_a_weak_key_is_not_believed(clock: Clock, algorithm: str) -> None:
    weak = Rsa(1024, algorithm, kid="weak")
    with pytest.raises(Unauthorized):
        await verifier(Issuer(weak.jwk()), clock, algorithm).identify(token(weak))


async def test_two_different_keys_under_one_name_are_neither(forge: Forge, clock: Clock) -> None:
    twin = forge.other("twin")
    checking = verifier(Issuer(forge.jwk(), twin.jwk(kid="main")), clock, forge.algorithm)
    with pytest.raises(Unauthorized):
        await checking.identify(token(forge))
    same = verifier(Issuer(forge.jwk(), forge.jwk()), clock, forge.algorithm)
    assert (await same.identify(token(forge))).id == "alice"


async def test_a_token_without_kid_needs_a_set_of_one(forge: Forge, clock: Clock) -> None:
    nameless = token(forge, header(forge, kid=...))
    assert (await verifier(Issuer(forge.jwk(kid=...)), clock, forge.algorithm).identify(nameless)).id == "alice"
    with pytest.raises(Unauthorized):
        await verifier(Issuer(forge.jwk(), forge.other("b").jwk(kid="b")), clock, forge.algorithm).identify(nameless)


async def test_a_public_key_is_no_secret(forge: Forge, clock: Clock) -> None:
    """The classic: an HMAC made with what everybody may read."""
    public = forge.key.public_key()  # type: ignore[attr-defined] # all three have one
    pem, der = (
        public.public_bytes(encoding, PublicFormat.SubjectPublicKeyInfo) for encoding in (Encoding.PEM, Encoding.DER)
    )
    jwk = forge.jwk()
    secrets = [pem, pem.strip(), der, json.dumps(jwk).encode(), jwk[BIG[forge.algorithm]].encode(), b64(der).encode()]
    if isinstance(forge, Ed):
        secrets.append(public.public_bytes_raw())
    for algorithms in (forge.algorithm, None):
        checking = verifier(Issuer(jwk, Hmac().jwk()), clock, algorithms)
        for secret in (*secrets, Hmac().secret):
            for algorithm in ("HS256", "HS384", "HS512"):
                with pytest.raises(Unauthorized):
                    await checking.identify(token(Hmac(secret, algorithm)))


# What a careless issuer, or an attacker who can write to the set, might make of a secret.
SECRET_MEMBERS: list[dict[str, Any]] = [
    Hmac().jwk(),
    *(Hmac().jwk(alg=alg) for alg in (..., None, "none", "HS384", "HS512", "RS256", "ES256", "EdDSA", "dir")),
    *(Hmac().jwk(use=use) for use in ("sig", "enc", None)),
    *(Hmac().jwk(key_ops=operations) for operations in (["verify"], ["sign", "verify"], [])),
    *(Hmac().jwk(kty=kty) for kty in ("OCT", "oct ", "RSA", "EC", "OKP", None)),
    *(Hmac().jwk(k=k) for k in ("", None, b64(b"k" * 8), "k" * 48)),
    Hmac().jwk(kid=...),
    Hmac().jwk(crv="Ed25519", x=b64(b"k" * 32)),
]


@pytest.mark.parametrize("member", SECRET_MEMBERS, ids=range(len(SECRET_MEMBERS)))
async def test_a_secret_in_a_key_set_is_no_key(clock: Clock, member: dict[str, Any]) -> None:
    """HS256 and a key set never go together: the set is as good as public."""
    for beside in ((), (Rsa(kid="good").jwk(),)):
        checking = verifier(Issuer(member, *beside), clock, None)
        for algorithm in ("HS256", "HS384", "HS512"):
            for secret in (Hmac().secret, b"", b"k" * 8, member.get("k", "").encode() if member.get("k") else b""):
                with pytest.raises((Unauthorized, KeysUnavailable)):
                    await checking.identify(token(Hmac(secret, algorithm)))


def test_there_are_enough_of_them() -> None:
    assert len(SECRET_MEMBERS) >= 20


async def test_ecdsa_signatures_in_der_or_with_swapped_halves_are_refused(clock: Clock) -> None:
    forge = Ec()
    checking = verifier(Issuer(forge.jwk()), clock, "ES256")
    head, body, signature = token(forge).split(".")
    der = b64(forge.der(f"{head}.{body}".encode()))
    zeros = b64(bytes(64))
    for wrong in (der, zeros, signature[43:] + signature[:43]):
        with pytest.raises(Unauthorized):
            await checking.identify(f"{head}.{body}.{wrong}")


async def test_the_first_set_decides_the_family_where_none_is_configured(forge: Forge, clock: Clock) -> None:
    checking = verifier(Issuer(forge.jwk(alg=...)), clock, None)
    assert (await checking.identify(token(forge))).id == "alice"
    for other in ISSUERS.values():
        if other is not forge:
            with pytest.raises(Unauthorized):
                await checking.identify(token(other))
    mixed = verifier(Issuer(*(other.jwk() for other in ISSUERS.values())), clock, None)
    with pytest.raises(KeysUnavailable):
        await mixed.identify(token(forge))


async def test_a_broken_key_of_another_kind_hurts_nobody(clock: Clock) -> None:
    forge = Rsa()
    issuer = Issuer(
        {"kty": "OKP", "crv": "Ed25519", "x": "!!!", "kid": "main"}, {"kty": "EC"}, forge.jwk(), Hmac().jwk()
    )
    assert (await verifier(issuer, clock, "RS256").identify(token(forge))).id == "alice"


@pytest.mark.slow
async def test_ten_thousand_unknown_kids_are_one_fetch_in_thirty_seconds(clock: Clock) -> None:
    forge, unknown = Ed(), Ed()
    issuer = Issuer(forge.jwk())
    checking = verifier(issuer, clock, "EdDSA")
    await checking.identify(token(forge))
    assert issuer.asked == 1
    for number_of in range(10_000):
        clock.now += 0.012
        with pytest.raises(Unauthorized):
            await checking.identify(token(unknown, header(unknown, kid=uuid4().hex)))
        if number_of == 2400:
            assert issuer.asked <= 2
    # 120 seconds: the first fetch, and one in each half minute.
    assert issuer.asked <= 5


async def test_callers_at_the_same_time_share_one_fetch(forge: Forge, clock: Clock) -> None:
    issuer = Issuer(forge.jwk())
    issuer.delay = 0.05
    checking = verifier(issuer, clock, forge.algorithm)
    found = await asyncio.gather(*(checking.identify(token(forge)) for _ in range(50)))
    assert (len(found), issuer.asked) == (50, 1)


async def test_a_caller_that_leaves_does_not_take_the_fetch_along(forge: Forge, clock: Clock) -> None:
    issuer = Issuer(forge.jwk())
    issuer.delay = 0.1
    checking = verifier(issuer, clock, forge.algorithm)
    leaving = asyncio.create_task(checking.identify(token(forge)))
    staying = asyncio.create_task(checking.identify(token(forge)))
    await asyncio.sleep(0.02)
    leaving.cancel()
    assert (await staying).id == "alice"
    assert issuer.asked == 1


async def test_a_new_key_is_found_at_once_and_an_old_one_is_dropped(forge: Forge, clock: Clock) -> None:
    issuer = Issuer(forge.jwk())
    checking = verifier(issuer, clock, forge.algorithm)
    await checking.identify(token(forge))
    new = forge.other("new")
    issuer.members = [new.jwk()]
    clock.now += 31
    assert (await checking.identify(token(new))).id == "alice"
    with pytest.raises(Unauthorized):
        await checking.identify(token(forge))


async def test_a_withdrawn_key_is_dropped_when_the_set_is_no_longer_fresh(forge: Forge, clock: Clock) -> None:
    other = forge.other("b")
    issuer = Issuer(forge.jwk())
    checking = verifier(issuer, clock, forge.algorithm)
    await checking.identify(token(forge))
    issuer.members = [other.jwk(kid="b")]
    clock.now += FRESH_SECONDS
    assert (await checking.identify(token(forge))).id == "alice"
    clock.now += 1
    with pytest.raises(Unauthorized):
        await checking.identify(token(forge))
    assert issuer.asked == 2


async def test_an_outage_of_the_issuer_logs_nobody_out_until_its_limit(forge: Forge, clock: Clock) -> None:
    issuer = Issuer(forge.jwk())
    checking = verifier(issuer, clock, forge.algorithm, outage_seconds=3600)
    await checking.identify(token(forge))
    issuer.is_away = True
    issuer.delay = 0.02
    ends = clock.now + FRESH_SECONDS + 3600
    while clock.now + 20 <= ends:
        clock.now += 20
        assert (await checking.identify(token(forge))).id == "alice"
    await asyncio.sleep(0.05)
    assert issuer.asked <= 1 + 3600 / 30 + 1
    clock.now = ends + 1
    with pytest.raises(KeysUnavailable):
        await checking.identify(token(forge))
    issuer.is_away = False
    clock.now += 30
    assert (await checking.identify(token(forge))).id == "alice"


async def test_a_set_that_was_never_reached_is_not_the_users_fault(forge: Forge, clock: Clock) -> None:
    issuer = Issuer(forge.jwk())
    issuer.is_away = True
    checking = verifier(issuer, clock, forge.algorithm)
    for _ in range(10):
        with pytest.raises(KeysUnavailable):
            await checking.identify(token(forge))
    assert issuer.asked == 1
    # What is no token at all is refused as ever.
    with pytest.raises(Unauthorized):
        await checking.identify("a.b.c")


async def test_a_file_is_read_again(forge: Forge, clock: Clock, tmp_path: Path) -> None:
    path = tmp_path / "jwks.json"
    path.write_text(json.dumps({"keys": [forge.jwk()]}))
    checking = TokenVerifier(TokenRules(algorithms=None), KeySet(from_file(path), clock=clock))
    assert (await checking.identify(token(forge))).id == "alice"
    new = forge.other("new")
    path.write_text(json.dumps({"keys": [new.jwk()]}))
    clock.now += 30
    assert (await checking.identify(token(new))).id == "alice"


ANSWERS = {
    "a redirect": b"HTTP/1.1 302 Found\r\nlocation: %(good)s\r\ncontent-length: 0\r\n\r\n",
    "an error": b"HTTP/1.1 500 No\r\ncontent-length: 2\r\n\r\n{}",
    "compressed": b"HTTP/1.1 200 OK\r\ncontent-encoding: gzip\r\ncontent-length: 2\r\n\r\n{}",
    "endless": b"HTTP/1.1 200 OK\r\n\r\n" + b" " * 200_000,
    "cut": b"HTTP/1.1 200 OK\r\ncontent-length: 100\r\n\r\n{}",
    "no HTTP": b"hello\r\n\r\n",
}


@pytest.mark.parametrize("name", ["good", *ANSWERS])
async def test_a_set_is_fetched_over_a_socket_and_nothing_else_is_taken_for_one(clock: Clock, name: str) -> None:
    forge = Ed()
    body = json.dumps({"keys": [forge.jwk()]}).encode()
    good = b"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: %d\r\n\r\n%s" % (len(body), body)
    asked: list[bytes] = []

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        line = await reader.readline()
        asked.append(line)
        answer = good if name == "good" or b"/good" in line else ANSWERS[name]
        writer.write(answer.replace(b"%(good)s", f"http://127.0.0.1:{port}/good".encode()))
        writer.close()

    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    port = server.sockets[0].getsockname()[1]
    async with server:
        keys = KeySet(from_url(f"http://127.0.0.1:{port}/jwks"), clock=clock)
        assert await keys.refresh() is (name == "good")
    assert len(asked) == 1


def test_numbers_of_the_forge_are_what_the_standard_says() -> None:
    assert number(65537) == "AQAB"
