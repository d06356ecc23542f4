"""Names of signature algorithms (RFC 7518, RFC 8037, RFC 9864)."""

PSS_NAMES = ("PS256", "PS384", "PS512")
ED25519_NAMES = ("EdDSA", "Ed25519")
"""Two names of one algorithm."""

FAMILIES: dict[str, tuple[str, ...]] = {
    "HMAC": ("HS256", "HS384", "HS512"),
    "RSA": ("RS256", "RS384", "RS512", *PSS_NAMES),
    "EC": ("ES256", "ES384", "ES512"),
    "EdDSA": ED25519_NAMES,
}
