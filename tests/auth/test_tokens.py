"""The first table of tokens that must not pass."""

import base64
import hashlib
import hmac
import itertools
import json
import time
from typing import Any

import pytest

from app.auth.tokens import TokenRules, TokenVerifier, mint
from app.errors import Unauthorized

SECRET = "k" * 48
RULES = TokenRules(key=SECRET)


def signed(header: Any, claims: Any, *, key: str = SECRET, digest: str = "sha256") -> str:
    def part(value: Any) -> bytes:
        raw = value if isinstance(value, bytes) else json.dumps(value).encode()
        return base64.urlsafe_b64encode(raw).rstrip(b"=")

    body = part(header) + b"." + part(claims)
    signature = hmac.new(key.encode(), body, digest).digest()
    return (body + b"." + base64.urlsafe_b64encode(signature).rstrip(b"=")).decode()


def claims(**changes: Any) -> dict[str, Any]:
    made = {"sub": "alice", "exp": int(time.time()) + 60} | changes
    return {name: value for name, value in made.items() if value is not ...}


HS256 = {"alg": "HS256", "typ": "JWT"}


def test_a_token_of_ours_is_accepted() -> None:
    assert TokenVerifier(RULES).user_id(mint(RULES, "alice", seconds=60)) == "alice"
    assert TokenVerifier(RULES).user_id(signed(HS256, claims())) == "alice"


@pytest.mark.parametrize(
    "token",
    [
        "",
        "a.b",
        "a.b.c.d",
        "....",
        "ü.ü.ü",
        "a" * 9000,
        signed(HS256, claims(), key="another key of the right length....."),
        signed({"alg": "none"}, claims()),
        signed({"alg": "none"}, claims()).rpartition(".")[0] + ".",
        signed({"alg": "HS512"}, claims(), digest="sha512"),
        signed({"alg": "hs256"}, claims()),
        signed({"alg": ["HS256"]}, claims()),
        signed({"alg": None}, claims()),
        signed({}, claims()),
        signed([], claims()),
        signed(HS256 | {"crit": ["exp"]}, claims()),
        signed(b'{"alg":' + b"[" * 3000, claims()),
        signed(HS256, claims(exp=...)),
        signed(HS256, claims(exp=int(time.time()) - 60)),
        signed(HS256, claims(exp="soon")),
        signed(HS256, claims(exp=None)),
        signed(HS256, claims(nbf=int(time.time()) + 600)),
        signed(HS256, claims(sub=...)),
        signed(HS256, claims(sub="")),
        signed(HS256, claims(sub=7)),
        signed(HS256, claims(sub=["alice"])),
        signed(HS256, claims(sub=" alice")),
        signed(HS256, claims(sub="ali\x00ce")),
        signed(HS256, claims(sub="ali\nce")),
        signed(HS256, claims(sub="x" * 256)),
        signed(HS256, claims(aud="another-service")),
        signed(HS256, []),
        signed(HS256, b"not json"),
    ],
    ids=itertools.count(),
)
def test_anything_unclean_is_the_same_refusal(token: str) -> None:
    with pytest.raises(Unauthorized) as refused:
        TokenVerifier(RULES).user_id(token)
    assert str(refused.value) == "unauthorized: Please sign in again."


def test_issuer_and_audience_are_required_once_configured() -> None:
    rules = TokenRules(key=SECRET, issuer="https://issuer", audience="chat")
    verifier = TokenVerifier(rules)
    assert verifier.user_id(signed(HS256, claims(iss="https://issuer", aud="chat"))) == "alice"
    assert verifier.user_id(signed(HS256, claims(iss="https://issuer", aud=["other", "chat"]))) == "alice"
    for wrong in ({}, {"iss": "https://issuer"}, {"aud": "chat"}, {"iss": "https://other", "aud": "chat"}):
        with pytest.raises(Unauthorized):
            verifier.user_id(signed(HS256, claims(**wrong)))


def test_another_claim_can_name_the_user() -> None:
    verifier = TokenVerifier(TokenRules(key=SECRET, user_claim="email"))
    assert verifier.user_id(signed(HS256, claims(email="a@example.com"))) == "a@example.com"


def test_a_key_that_looks_like_something_else_is_still_a_secret() -> None:
    key = json.dumps({"kty": "oct", "k": hashlib.sha256(b"x").hexdigest()})
    verifier = TokenVerifier(TokenRules(key=key))
    assert verifier.user_id(signed(HS256, claims(), key=key)) == "alice"
