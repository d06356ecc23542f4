"""Tokens of good issuers pass, each of a table of hostile ones is the same refusal, in every configuration."""

import json
import time
from typing import Any

import pytest
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import padding

from chatkit_postgres.auth.keys import Keys, KeySet, SharedSecret
from chatkit_postgres.auth.tokens import TokenRules, TokenVerifier, mint
from chatkit_postgres.errors import Unauthorized
from tests.auth.hostile_tokens import HOSTILE
from tests.support.forge import (
    SECRET,
    Ec,
    Ed,
    Forge,
    Hmac,
    Rsa,
    b64,
    claims,
    header,
    parts,
    token,
)

ISSUERS: dict[str, Forge] = {"HS256": Hmac(), "RS256": Rsa(), "ES256": Ec(), "EdDSA": Ed()}
ISSUERS |= {"PS256": Rsa(algorithm="PS256"), "PS512": Rsa(algorithm="PS512"), "Ed25519": Ed(algorithm="Ed25519")}
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
    assert (await verifier(issuer).identify(token(issuer))).id == "alice"
    minimal = token(issuer, header(issuer, typ=..., kid=...))
    assert (await verifier(issuer).identify(minimal)).id == "alice"


async def test_a_token_of_ours_passes() -> None:
    rules = TokenRules(issuer="https://us", audience="chat")
    identity = await TokenVerifier(rules, SharedSecret(SECRET)).identify(mint(SECRET, "älice", seconds=60, rules=rules))
    assert identity.id == "älice"


LONGER: list[Forge] = [
    *(Hmac(algorithm=a) for a in ("HS384", "HS512")),
    *(Rsa(algorithm=a) for a in ("RS384", "RS512", "PS256", "PS384", "PS512")),
]
LONGER += [Ec("ES384"), Ec("ES512")]


@pytest.mark.parametrize("forge", LONGER, ids=lambda forge: forge.algorithm)
async def test_longer_digests_and_curves_pass_where_they_are_configured(forge: Forge) -> None:
    is_secret = isinstance(forge, Hmac)
    keys = SharedSecret(SECRET, (forge.algorithm,)) if is_secret else key_set(forge.jwk())
    checking = TokenVerifier(TokenRules(algorithms=(forge.algorithm,) if is_secret else None), keys)
    assert (await checking.identify(token(forge))).id == "alice"


@pytest.mark.parametrize("named", ["EdDSA", "Ed25519", ...])
async def test_ed25519_is_one_algorithm_by_two_names(named: Any) -> None:
    """A key may have the one and a token the other; a deployment that names one in its settings means that one."""
    forge = Ed()
    for algorithm in ("EdDSA", "Ed25519"):
        keys = key_set(forge.jwk(alg=named))
        signed = token(forge, header(forge, alg=algorithm))
        assert (await TokenVerifier(TokenRules(algorithms=None), keys).identify(signed)).id == "alice"
        other = {"EdDSA": "Ed25519", "Ed25519": "EdDSA"}[algorithm]
        with pytest.raises(Unauthorized):
            await TokenVerifier(TokenRules(algorithms=(other,)), keys).identify(signed)


SIGNED_OTHERWISE: dict[str, Any] = {
    "PKCS1 under PS256": ("PS256", padding.PKCS1v15()),
    "PSS under RS256": ("RS256", padding.PSS(padding.MGF1(hashes.SHA256()), 32)),
    "no salt": ("PS256", padding.PSS(padding.MGF1(hashes.SHA256()), 0)),
    "a short salt": ("PS256", padding.PSS(padding.MGF1(hashes.SHA256()), 20)),
    "the longest salt": ("PS256", padding.PSS(padding.MGF1(hashes.SHA256()), padding.PSS.MAX_LENGTH)),
    "a mask by another hash": ("PS256", padding.PSS(padding.MGF1(hashes.SHA512()), 32)),
    "a salt of another hash": ("PS512", padding.PSS(padding.MGF1(hashes.SHA512()), 32)),
}


@pytest.mark.parametrize("name", SIGNED_OTHERWISE)
async def test_an_rsa_signature_of_another_scheme_is_refused(name: str) -> None:
    algorithm, padded = SIGNED_OTHERWISE[name]
    forge = Rsa(algorithm=algorithm)
    first, second, _ = parts(forge)
    signature = b64(forge.signed(f"{first}.{second}".encode(), padded))
    with pytest.raises(Unauthorized):
        await verifier(forge).identify(f"{first}.{second}.{signature}")


@pytest.mark.parametrize("algorithm", ["RS256", "PS256"])
async def test_a_key_for_one_rsa_scheme_is_not_used_for_the_other(algorithm: str) -> None:
    forge = Rsa(algorithm=algorithm)
    other = {"RS256": "PS256", "PS256": "RS256"}[algorithm]
    both = TokenRules(algorithms=("RS256", "PS256"))
    with pytest.raises(Unauthorized):
        await TokenVerifier(both, key_set(forge.jwk(alg=other), algorithms=both.algorithms)).identify(token(forge))
    named_by_nobody = key_set(forge.jwk(alg=...), algorithms=both.algorithms)
    assert (await TokenVerifier(both, named_by_nobody).identify(token(forge))).id == "alice"


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
        algorithms=None,
        issuer="http://localhost:3000",
        audience="http://localhost:3000",
        stored_claims=("email", "name"),
    )
    keys = key_set({"crv": "Ed25519", "x": forge.jwk()["x"], "kty": "OKP", "alg": "EdDSA", "kid": forge.kid})
    identity = await TokenVerifier(rules, keys).identify(token(forge, header(forge, typ=...), body))
    assert (identity.id, dict(identity.claims)) == ("alice", {"email": "a@example.com", "name": "Alice"})


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
    assert identity.id == body["sub"]


async def test_issuer_and_audience_are_required_once_configured(issuer: Forge) -> None:
    checking = verifier(issuer, issuer="https://issuer", audience="chat")
    for audience in ("chat", ["other", "chat"]):
        body = claims(iss="https://issuer", aud=audience)
        assert (await checking.identify(token(issuer, body=body))).id == "alice"
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
    assert (await checking.identify(token(issuer, body=claims(email="a@example.com")))).id == "a@example.com"
    with pytest.raises(Unauthorized):
        await checking.identify(token(issuer))


async def test_only_allowed_claims_are_kept_and_only_such_as_can_be_stored(issuer: Forge) -> None:
    checking = verifier(issuer, stored_claims=("name", "roles", "email", "age", "nick", "deep"))
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
    assert (await checking.identify(token(Hmac(SECRETS[name].encode())))).id == "alice"
    for guess in (b"x" * 32, b"s" * 40):
        with pytest.raises(Unauthorized):
            await checking.identify(token(Hmac(guess)))


@pytest.mark.parametrize(
    ("changed", "fault"),
    [
        ({"exp": NOW - 3600}, "expired"),
        ({"exp": "soon"}, "times"),
        ({"nbf": NOW + 3600}, "not valid yet"),
        ({"iss": "https://other.example"}, "issuer"),
        ({"aud": "other"}, "audience"),
        ({"sub": ""}, "user claim"),
    ],
)
async def test_the_log_may_know_which_claim_is_at_fault(issuer: Forge, changed: dict[str, Any], fault: str) -> None:
    rules = {"issuer": "https://issuer.example", "audience": "chat"}
    good = claims(iss="https://issuer.example", aud="chat")
    with pytest.raises(Unauthorized) as refused:
        await verifier(issuer, **rules).identify(token(issuer, body=good | changed))
    assert (refused.value.fault, refused.value.message) == (fault, "Please sign in again.")


async def test_the_log_may_know_that_the_key_is_another_one() -> None:
    with pytest.raises(Unauthorized) as refused:
        await TokenVerifier(TokenRules(), SharedSecret("x" * 32)).identify(mint(SECRET, "a", seconds=60))
    assert refused.value.fault == "signature"
    with pytest.raises(Unauthorized) as refused:
        await verifier(Hmac(algorithm="HS512")).identify(mint(SECRET, "a", seconds=60))
    assert refused.value.fault == "algorithm"
