"""Makes generations of a token and its key with PyJWT.

    rotate.py DIRECTORY GENERATIONS

writes token-N of key N, and the key sets jwks-N.json, with the keys N and N - 1, and only-N.json.
"""

import json
import pathlib
import sys
import time

import jwt
from cryptography.hazmat.primitives.asymmetric import ec


def main():
    directory, generations = pathlib.Path(sys.argv[1]), int(sys.argv[2])
    now, before = int(time.time()), []
    for number in range(generations):
        key, kid = ec.generate_private_key(ec.SECP256R1()), f"key-{number}"
        jwk = json.loads(jwt.algorithms.ECAlgorithm.to_jwk(key.public_key()))
        own = [{**jwk, "kid": kid, "use": "sig"}]
        (directory / f"jwks-{number}.json").write_text(json.dumps({"keys": before + own}))
        (directory / f"only-{number}.json").write_text(json.dumps({"keys": own}))
        claims = {
            "iss": "https://issuer.example",
            "aud": "uploads",
            "sub": "owner",
            "tenant": "a",
            "exp": now + 3600,
        }
        token = jwt.encode(claims, key, algorithm="ES256", headers={"kid": kid})
        (directory / f"token-{number}").write_text(token)
        before = own


main()
