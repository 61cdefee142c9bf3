"""Makes keys and tokens with PyJWT, not with the code under test.

    mint.py DIRECTORY

writes DIRECTORY/jwks.json, and DIRECTORY/tokens.json: tokens by the name of what is right or wrong with them.
"""

import base64
import hashlib
import hmac
import json
import pathlib
import sys
import time

import jwt
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa

ISSUER = "https://issuer.example"
AUDIENCE = "uploads"


def public(algorithm, key, kid):
    jwk = json.loads(algorithm.to_jwk(key.public_key()))
    return {**jwk, "kid": kid, "use": "sig"}


def claims(**changes):
    now = int(time.time())
    usual = {
        "iss": ISSUER,
        "aud": AUDIENCE,
        "sub": "owner",
        "tenant": "a",
        "iat": now,
        "exp": now + 3600,
    }
    return {name: value for name, value in {**usual, **changes}.items() if value is not None}


def encoded(value):
    return base64.urlsafe_b64encode(value).rstrip(b"=").decode()


def by_hand(header, content, sign):
    parts = [encoded(json.dumps(part).encode()) for part in (header, content)]
    message = ".".join(parts)
    return f"{message}.{encoded(sign(message.encode()))}"


def main():
    directory = pathlib.Path(sys.argv[1])
    keys = {
        "rsa": (rsa.generate_private_key(65537, 2048), jwt.algorithms.RSAAlgorithm, "RS256"),
        "ec": (ec.generate_private_key(ec.SECP256R1()), jwt.algorithms.ECAlgorithm, "ES256"),
        "ed": (ed25519.Ed25519PrivateKey.generate(), jwt.algorithms.OKPAlgorithm, "EdDSA"),
    }
    jwks = [public(algorithm, key, kid) for kid, (key, algorithm, _) in keys.items()]
    # Entra ID's keys name no algorithm.
    for jwk in jwks:
        jwk.pop("alg", None)
    (directory / "jwks.json").write_text(json.dumps({"keys": jwks}))
    foreign = rsa.generate_private_key(65537, 2048)
    pem = keys["rsa"][0].public_key().public_bytes(
        serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo
    )
    now = int(time.time())

    def token(kid="rsa", key=None, header=None, **changes):
        known, _, algorithm = keys[kid]
        headers = {"kid": kid, **(header or {})}
        return jwt.encode(claims(**changes), key or known, algorithm=algorithm, headers=headers)

    tokens = {
        "owner": token(),
        "owner-ec": token("ec"),
        "owner-ed": token("ed"),
        "owner-within-leeway": token(exp=now - 5),
        "owner-several-audiences": token(aud=["other", AUDIENCE]),
        "same-tenant": token(sub="other"),
        "support": token(sub="helper", roles=["support"]),
        "admin": token(sub="boss", roles=["admin"]),
        "operator": token(sub="ops", tenant=None, roles=["operator"]),
        "other-tenant": token(tenant="b"),
        "other-admin": token(tenant="b", sub="boss", roles=["admin", "support"]),
        "expired": token(exp=now - 600),
        "not-yet-valid": token(nbf=now + 600),
        "no-expiry": token(exp=None),
        "wrong-audience": token(aud="other"),
        "no-audience": token(aud=None),
        "wrong-issuer": token(iss="https://other.example"),
        "no-subject": token(sub=None),
        "no-tenant": token(tenant=None),
        "foreign-key": token(key=foreign),
        "unknown-key": token(key=foreign, header={"kid": "unknown"}),
        "no-key-id": jwt.encode(claims(), keys["rsa"][0], algorithm="RS256"),
        "wrong-algorithm": jwt.encode(
            claims(), keys["rsa"][0], algorithm="RS512", headers={"kid": "rsa"}
        ),
        "critical-extension": token(header={"crit": ["x"], "x": 1}),
        "own-key-in-header": by_hand(
            {"alg": "RS256", "kid": "rsa", "jwk": public(jwt.algorithms.RSAAlgorithm, foreign, "rsa")},
            claims(),
            lambda message: jwt.algorithms.RSAAlgorithm(jwt.algorithms.RSAAlgorithm.SHA256).sign(
                message, foreign
            ),
        ),
        "alg-none": by_hand({"alg": "none", "kid": "rsa"}, claims(), lambda _: b""),
        "hs256-with-public-key": by_hand(
            {"alg": "HS256", "kid": "rsa"},
            claims(),
            lambda message: hmac.new(pem, message, hashlib.sha256).digest(),
        ),
        "no-token": "x.y.z",
        "empty": "..",
    }
    (directory / "tokens.json").write_text(json.dumps(tokens))


main()
