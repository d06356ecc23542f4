"""Tokens of good issuers pass, each of a table of hostile ones is the same refusal, in every configuration."""

import json
import time
from typing import Any

import pytest

from app.auth.keys import Keys, KeySet, SharedSecret
from app.auth.tokens import TokenRules, TokenVerifier, mint
from app.errors import Unauthorized
from tests.auth.hostile_tokens import HOSTILE
from tests.support.forge import (
    SECRET,
    Ec,
    Ed,
    Forge,
    Hmac,
    Rsa,
    claims,
    header,
    token,
)

ISSUERS: dict[str, Forge] = {"HS256": Hmac(), "RS256": Rsa(), "ES256": Ec(), "EdDSA": Ed()}
NOW = int(time.time())


def key_set(*members: Any, algorithms: tuple[str, ...] | None = None) -> KeySet:
    async def load() -> bytes:
        return json.dumps({"keys": list(members)}).encode()

    return KeySet(load, algorithms)


def keys_of(forge: Forge) -> Keys:
    return SharedSecret(SECRET) if isinstance(forge, Hmac) else key_set(forge.jwk(), algorithms=(forge.algorithm,))


def verifier(forge: Forge, **rules: Any) -> TokenVerifier:
    return TokenVerifier(TokenRules(algorithms=(forge.algorithm,), **rules), keys_of(forge))


@pytest.fixture(params=ISSUERS)
def issuer(request: pytest.FixtureRequest) -> Forge:
    return ISSUERS[request.param]


def test_the_table_is_long_enough() -> None:
    assert len(HOSTILE) >= 100


@pytest.mark.parametrize("name", HOSTILE)
async def test_a_hostile_token_is_the_same_refusal(issuer: Forge, name: str) -> None:
    with pytest.raises(Unauthorized) as refused:
        await verifier(issuer).identify(HOSTILE[name](issuer))
    assert str(refused.value) == "unauthorized: Please sign in again."
    assert refused.value.__cause__ is None


async def test_a_token_of_the_issuer_passes(issuer: Forge) -> None:
    assert (await verifier(issuer).identify(token(issuer))).user_id == "alice"
    minimal = token(issuer, header(issuer, typ=..., kid=...))
    assert (await verifier(issuer).identify(minimal)).user_id == "alice"


async def test_a_token_of_ours_passes() -> None:
    rules = TokenRules(issuer="https://us", audience="chat")
    identity = await TokenVerifier(rules, SharedSecret(SECRET)).identify(mint(SECRET, "älice", seconds=60, rules=rules))
    assert identity.user_id == "älice"


LONGER: list[Forge] = [
    *(Hmac(algorithm=a) for a in ("HS384", "HS512")),
    *(Rsa(algorithm=a) for a in ("RS384", "RS512")),
]
LONGER += [Ec("ES384"), Ec("ES512")]


@pytest.mark.parametrize("forge", LONGER, ids=lambda forge: forge.algorithm)
async def test_longer_digests_and_curves_pass_where_they_are_configured(forge: Forge) -> None:
    is_secret = isinstance(forge, Hmac)
    keys = SharedSecret(SECRET, (forge.algorithm,)) if is_secret else key_set(forge.jwk())
    checking = TokenVerifier(TokenRules(algorithms=(forge.algorithm,) if is_secret else None), keys)
    assert (await checking.identify(token(forge))).user_id == "alice"


async def test_better_auth_tokens_pass() -> None:
    """As its JWT plug-in makes them: EdDSA, issuer and audience the base URL, no typ, a JWK without use."""
    forge = Ed(kid="WlDcF2fhJnSqKVbFvhE3")
    body = claims(
        iss="http://localhost:3000",
        aud="http://localhost:3000",
        iat=NOW,
        email="a@example.com",
        name="Alice",
        id="alice",
    )
    rules = TokenRules(
        algorithms=None, issuer="http://localhost:3000", audience="http://localhost:3000", kept_claims=("email", "name")
    )
    keys = key_set({"crv": "Ed25519", "x": forge.jwk()["x"], "kty": "OKP", "alg": "EdDSA", "kid": forge.kid})
    identity = await TokenVerifier(rules, keys).identify(token(forge, header(forge, typ=...), body))
    assert (identity.user_id, dict(identity.claims)) == ("alice", {"email": "a@example.com", "name": "Alice"})


@pytest.mark.parametrize(
    ("typ", "body", "rules"),
    [
        (
            "at+jwt",
            {
                "iss": "https://team.eu.auth0.com/",
                "aud": ["https://chat", "https://team.eu.auth0.com/userinfo"],
                "azp": "c",
                "scope": "openid",
                "sub": "auth0|64f",
            },
            {"issuer": "https://team.eu.auth0.com/", "audience": "https://chat"},
        ),
        (
            "JWT",
            {
                "iss": "https://clerk.example.com",
                "azp": "https://example.com",
                "sid": "sess_2",
                "nbf": NOW - 5,
                "fva": [0, -1],
                "sub": "user_2abc",
                "sts": "active",
            },
            {"issuer": "https://clerk.example.com"},
        ),
    ],
    ids=["Auth0", "Clerk"],
)
async def test_rs256_tokens_of_auth0_and_clerk_pass(typ: str, body: dict[str, Any], rules: dict[str, Any]) -> None:
    forge = Rsa(kid="ins_2abc")
    second = Rsa(kid="next")
    keys = key_set(second.jwk(), forge.jwk(x5t="x", x5c=["MIIC"]))
    identity = await TokenVerifier(TokenRules(algorithms=None, **rules), keys).identify(
        token(forge, header(forge, typ=typ), claims(iat=NOW, **body))
    )
    assert identity.user_id == body["sub"]


async def test_issuer_and_audience_are_required_once_configured(issuer: Forge) -> None:
    checking = verifier(issuer, issuer="https://issuer", audience="chat")
    for audience in ("chat", ["other", "chat"]):
        body = claims(iss="https://issuer", aud=audience)
        assert (await checking.identify(token(issuer, body=body))).user_id == "alice"
    for wrong in (
        {},
        {"iss": "https://issuer"},
        {"aud": "chat"},
        {"iss": "https://other", "aud": "chat"},
        {"iss": "https://issuer", "aud": "cha"},
        {"iss": "https://issuer/", "aud": "chat"},
    ):
        with pytest.raises(Unauthorized):
            await checking.identify(token(issuer, body=claims(**wrong)))


async def test_another_claim_can_name_the_user(issuer: Forge) -> None:
    checking = verifier(issuer, user_claim="email")
    assert (await checking.identify(token(issuer, body=claims(email="a@example.com")))).user_id == "a@example.com"
    with pytest.raises(Unauthorized):
        await checking.identify(token(issuer))


async def test_only_allowed_claims_are_kept_and_only_such_as_can_be_stored(issuer: Forge) -> None:
    checking = verifier(issuer, kept_claims=("name", "roles", "email", "age", "nick", "deep"))
    body = claims(name="A", roles=["admin", "x"], email="e" * 2000, age=7, nick="a\x00b", deep={"a": 1}, secret="no")
    assert dict((await checking.identify(token(issuer, body=body))).claims) == {
        "name": "A",
        "roles": ["admin", "x"],
        "age": 7,
    }


SECRETS = {
    "looks like a JWK": json.dumps(Hmac(b"x" * 32).jwk()),
    "looks like a key set": json.dumps({"keys": [Hmac(b"x" * 32).jwk()]}),
    "is a JSON string": json.dumps("s" * 40),
    "is a number": "1" * 40,
}


@pytest.mark.parametrize("name", SECRETS)
async def test_a_secret_that_looks_like_something_else_is_still_a_secret(name: str) -> None:
    checking = TokenVerifier(TokenRules(), SharedSecret(SECRETS[name]))
    assert (await checking.identify(token(Hmac(SECRETS[name].encode())))).user_id == "alice"
    for guess in (b"x" * 32, b"s" * 40):
        with pytest.raises(Unauthorized):
            await checking.identify(token(Hmac(guess)))
