"""Lets in who sends an API key that it knows, and has refused whatever it fails to decide about: nobody
gets in because something went wrong. As `api-keys.rs`, with the same configuration:

    {"keys": {"alice": "${file:alice}", "bob": "${env:BAZAAR_SECRET_BOB}"}}

A client sends its key as `Authorization: Bearer KEY`. Idempotency keys are each client's own.
"""

import json
import re
from dataclasses import replace
from hashlib import sha256

import policy as base
from componentize_py_types import Err
from policy import ApiError, decide
from wit_world.imports.types import (
    Action_Respond,
    Action_Trade,
    Decision,
    Manifest,
    OnFailure,
    Outcome,
    Outcome_Order,
    Request,
)

HEADER = "authorization"
SCHEME = b"Bearer "
# Shorter keys can be guessed.
KEY_BYTES_MIN = 16

# The clients, by the SHA-256 of their keys: how long it takes to find one says nothing about the keys.
clients: dict[bytes, str] = {}


class Policy(base.Policy):
    def configure(self, config: bytes) -> Manifest:
        for name, key in parse(config).items():
            if not re.fullmatch(r"[A-Za-z0-9_-]{1,32}", name):
                raise Err(f"`{name}` is not a name of letters, digits, - and _")
            if not isinstance(key, str) or not re.fullmatch(rf"[!-~]{{{KEY_BYTES_MIN},}}", key):
                raise Err(f"the key of `{name}` must have {KEY_BYTES_MIN} visible ASCII characters at least")
            other = clients.setdefault(sha256(key.encode()).digest(), name)
            if other != name:
                raise Err(f"`{other}` has the key of another client")
        if not clients:
            raise Err("nobody has a key: nobody could get in")
        manifest = super().configure(b"")
        return replace(
            manifest,
            name="api-keys",
            headers=[*manifest.headers, HEADER],
            on_failure=OnFailure.REFUSE,
        )

    def on_request(self, request: Request) -> Decision:
        name = client(request)
        if name is None:
            return unauthorized()
        decision = super().on_request(request)
        if isinstance(decision.action, Action_Trade):
            trade = decision.action.value
            if trade.idempotency_key is not None:
                # However long both are. No name has a colon.
                scoped = sha256(f"{name}:{trade.idempotency_key}".encode()).hexdigest()
                trade.idempotency_key = f"api-keys-{scoped}"
        return decision

    def on_outcome(self, request: Request, memo: bytes, outcome: Outcome) -> Decision:
        decision = super().on_outcome(request, memo, outcome)
        if isinstance(outcome, Outcome_Order):
            # A cache that several people share would let in those who have no key.
            private = ("cache-control", "private, max-age=31536000, immutable")
            response = decision.action.value
            response.headers = [
                private if header[0] == "cache-control" else header for header in response.headers
            ]
        return decision


def parse(config: bytes) -> dict:
    form = 'write {"keys": {"NAME": "KEY"}}'
    try:
        written = json.loads(config)
    except ValueError as error:
        raise Err(f"{form}: {error}") from None
    if not isinstance(written, dict) or list(written) != ["keys"] or not isinstance(written["keys"], dict):
        raise Err(form)
    return written["keys"]


def client(request: Request) -> str | None:
    """Who sent a request."""
    sent = [value for name, value in request.headers if name == HEADER]
    if len(sent) != 1 or not sent[0].startswith(SCHEME):
        return None
    return clients.get(sha256(sent[0][len(SCHEME) :]).digest())


def unauthorized() -> Decision:
    asks = ("www-authenticate", 'Bearer realm="bazaar"')
    error = ApiError(401, "send an API key: Authorization: Bearer KEY", asks)
    return decide(Action_Respond(error.response()))
