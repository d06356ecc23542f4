"""Tokens that must not pass, by what is wrong with them. Each is made for a given issuer, and signed by it where the
signature is not the point."""

import base64
import json
import time
from collections.abc import Callable, Iterator
from typing import Any

from tests.support.forge import Ec, Ed, Forge, Hmac, Rsa, b64, claims, document, header, parts, signed_as_is, token

Make = Callable[[Forge], str]
Row = tuple[str, Make]

NOW = int(time.time())
LETTERS = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_"
STRANGERS: dict[str, Forge] = {"HS256": Hmac(b"o" * 48), "RS256": Rsa(kid="stranger"), "ES256": Ec(), "EdDSA": Ed()}


def head(**changes: Any) -> Make:
    return lambda forge: token(forge, header(forge, **changes))


def body(**changes: Any) -> Make:
    return lambda forge: token(forge, body=claims(**changes))


def raw_head(raw: bytes) -> Make:
    return lambda forge: token(forge, raw)


def raw_body(raw: bytes) -> Make:
    return lambda forge: token(forge, body=raw)


def swapped(**others: str) -> Make:
    """Signed, then another part put in."""

    def make(forge: Forge) -> str:
        first, second, signature = parts(forge)
        return ".".join([others.get("head", first), others.get("body", second), others.get("signature", signature)])

    return make


def written(change: Callable[[str], str], which: str) -> Make:
    """Only the writing of a part is wrong: what is signed is changed before it is signed."""

    def make(forge: Forge) -> str:
        first, second, signature = parts(forge)
        if which == "header":
            return signed_as_is(forge, change(first), second)
        if which == "claims":
            return signed_as_is(forge, first, change(second))
        return f"{first}.{second}.{change(signature)}"

    return make


def spare_bits(part: str) -> str:
    """The same bytes, written with another last letter. A part without spare bits gets a letter too many."""
    return part + "A" if len(part) % 4 == 0 else part[:-1] + LETTERS[LETTERS.index(part[-1]) ^ 1]


def flipped(position: int) -> Make:
    def make(forge: Forge) -> str:
        first, second, signature = parts(forge)
        raw = bytearray(base64.urlsafe_b64decode(signature + "=="))
        raw[position] ^= 1
        return f"{first}.{second}.{b64(bytes(raw))}"

    return make


def unsigned(algorithm: str) -> Make:
    return lambda forge: swapped(head=b64(document(header(forge, alg=algorithm))), signature="")(forge)


def own_key(**links: Any) -> Make:
    """Signed with the attacker's key, which the header kindly names."""

    def make(forge: Forge) -> str:
        evil = forge.other("e")
        named = {name: evil.jwk() if value == "own" else value for name, value in links.items()}
        return token(evil, header(forge, **named))

    return make


def no_tokens() -> Iterator[Row]:
    for text in ("", ".", "..", "...", "a.b", "a.b.c", "a.b.c.d", "null", " ", "\x00", "ü.ü.ü", "a" * 9000, "é" * 10):
        yield f"not a token: {text[:8]!r}", lambda _, text=text: text  # type: ignore[misc] # bound here
    yield "longer than 8 KiB", body(note="x" * 9000)
    yield "with a space before", lambda forge: " " + token(forge)
    yield "with a line break behind", lambda forge: token(forge) + "\n"
    yield "a part too many", lambda forge: token(forge) + ".e30"
    yield "without the last dot", lambda forge: token(forge).rpartition(".")[0]
    yield "the JSON serialisation", lambda forge: json.dumps(dict(zip("pqs", parts(forge), strict=True)))
    yield "a nested token as claims", lambda forge: token(forge, body=token(forge).encode())
    for part in ("head", "body", "signature"):
        yield f"empty {part}", swapped(**{part: ""})
    for part in ("header", "claims", "signature"):
        yield f"{part} with padding", written(lambda text: text + "=" * (-len(text) % 4 or 4), part)
        yield f"{part} with spare bits", written(spare_bits, part)
        yield f"{part} with a letter of another alphabet", written(lambda text: text[:-1] + "+", part)
        yield f"{part} with a line break", written(lambda text: text[:4] + "\n" + text[4:], part)
        yield f"{part} of one letter more", written(lambda text: text + "A", part)


def another_algorithm(algorithm: str) -> Make:
    """In the header; an issuer whose own it is is given one that nobody has."""
    return lambda forge: head(alg=algorithm if algorithm != forge.algorithm else "ES256K")(forge)


def headers() -> Iterator[Row]:
    for algorithm in (
        "none",
        "None",
        "NONE",
        "nOnE",
        "",
        "HS1",
        "RS257",
        "PS256",
        "PS384",
        "RS256",
        "ES256K",
        "EdDSA",
        "Ed25519",
        "Ed448",
        "HS256 ",
        "dir",
    ):
        yield f"alg {algorithm!r}", another_algorithm(algorithm)
        yield f"alg {algorithm!r}, unsigned", unsigned(algorithm)
    no_strings: list[Any] = [None, 7, ["HS256"], {"a": 1}, True, ...]
    for value in no_strings:
        yield f"alg {value!r}", head(alg=value)
    yield "alg in other letters", lambda forge: token(forge, header(forge, alg=forge.algorithm.swapcase()))
    for name, setting in (("crit", ["exp"]), ("crit", []), ("b64", False), ("zip", "DEF"), ("enc", "A128GCM")):
        yield f"header {name} {setting!r}", head(**{name: setting})
    for kind in ("JWE", "dpop+jwt", "logout+jwt", "secevent+jwt", "", None, 1, ["JWT"]):
        yield f"typ {kind!r}", head(typ=kind)
    for kid in (None, 7, "", "k" * 300, ["main"], {"main": 1}):
        yield f"kid {kid!r:.20}", head(kid=kid)
    yield (
        "alg twice",
        lambda forge: token(
            forge, b'{"alg":"none","alg":"%s","kid":"%s"}' % (forge.algorithm.encode(), forge.kid.encode())
        ),
    )


def documents() -> Iterator[Row]:
    for name, raw in {
        "a list": b"[]",
        "a string": b'"x"',
        "null": b"null",
        "empty": b"",
        "not JSON": b"{",
        "not UTF-8": b'{"a":"\xff"}',
        "with a byte order mark": b"\xef\xbb\xbf{}",
        "nested without end": b'{"a":' * 1000,
        "nested lists": b'{"a":' + b"[" * 5000,
    }.items():
        yield f"header is {name}", raw_head(raw)
        yield f"claims are {name}", raw_body(raw)
    for name, exp in {"NaN": b"NaN", "Infinity": b"Infinity", "1e400": b"1e400", "5000 digits": b"9" * 5000}.items():
        yield f"exp {name}", raw_body(b'{"sub":"alice","exp":%s}' % exp)
    yield "sub twice", raw_body(b'{"sub":"bob","sub":"alice","exp":%d}' % (NOW + 600))
    yield "exp twice", raw_body(b'{"exp":1,"sub":"alice","exp":%d}' % (NOW + 600))


def contents() -> Iterator[Row]:
    expiries: tuple[Any, ...] = (
        ...,
        None,
        "",
        "soon",
        str(NOW + 600),
        [],
        {},
        True,
        -1,
        0,
        NOW - 60,
        NOW - 31,
        10**17,
        1.5,
    )
    # Numbered: several are moments, and every process that collects these has its own.
    for number, value in enumerate(expiries):
        yield f"exp {number}", body(exp=value)
    for name in ("nbf", "iat"):
        times: tuple[Any, ...] = (None, "now", str(NOW), [], True, NOW + 600, -5, 10**18)
        for number, wrong in enumerate(times):
            yield f"{name} {number}", body(**{name: wrong})
    users: list[Any] = [..., None, "", " ", " alice", "alice ", "ali\x00ce", "ali\nce", "ali\ud800ce", "\u200b"]
    users += ["\u202ealice", "x" * 256, 7, 1.5, True, ["alice"], {"a": 1}]
    for user in users:
        yield f"sub {user!r:.20}", body(sub=user)
    audiences: tuple[Any, ...] = ("chat", ["chat"], [], [7], 7, None, {}, "")
    for audience in audiences:
        yield f"aud {audience!r}, and none is configured", body(aud=audience)
    for name, other in (("iss", 7), ("iss", None), ("iss", ["x"]), ("jti", 7), ("jti", None), ("jti", {})):
        yield f"{name} {other!r}", body(**{name: other})


def signatures() -> Iterator[Row]:
    for position in (0, 10, 31, -1):
        yield f"signature with bit {position} flipped", flipped(position)
    yield "signature of zeros", lambda forge: swapped(signature=b64(bytes(len(forge.raw(b"")))))(forge)
    yield "signature of nothing", lambda forge: swapped(signature=b64(forge.raw(b"")))(forge)
    yield "signature too short", written(lambda text: text[:-4], "signature")
    yield "signature too long", written(lambda text: text + "AAAA", "signature")
    yield "signature of another token", lambda forge: swapped(signature=parts(forge, body=claims(sub="bob"))[2])(forge)
    yield "claims of another token", lambda forge: swapped(body=parts(forge, body=claims(sub="bob"))[1])(forge)
    yield "header of another token", lambda forge: swapped(head=b64(document(header(forge, extra=1))))(forge)
    for algorithm, stranger in STRANGERS.items():
        yield f"signed by a stranger's {algorithm} key", lambda forge, s=stranger: token(s, header(forge))  # type: ignore[misc] # bound here
        yield f"signed by a stranger's {algorithm} key, and says so", lambda _, s=stranger: token(s)  # type: ignore[misc] # bound here
    yield "brings its own key", own_key(jwk="own")
    for name in ("jku", "x5u", "x5c", "x5t"):
        yield f"names its own key in {name}", own_key(**{name: "https://evil.example/key"})


HOSTILE: dict[str, Make] = {
    name: make for rows in (no_tokens, headers, documents, contents, signatures) for name, make in rows()
}
