"""Signers for the tests about signed text."""

import hashlib

from asgi_token_auth.signing import SigningSecrets, TokenSigner

SECRET = "s3cret"
ALPHABET = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_"


def secrets_of(*values: str) -> SigningSecrets:
    # Not SigningSecrets.of(), which would refuse the short secret of the published examples.
    return SigningSecrets(values)


def sha1_signer(*values: str, salt: str = "token") -> TokenSigner:
    return TokenSigner(secrets_of(*(values or (SECRET,))), salt=salt, digest=hashlib.sha1)
