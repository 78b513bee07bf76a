"""Lets each client do so much in a time: who has used that up gets 429, with `Retry-After`. As
`client-limits.rs`, with the same configuration:

    {"requests": 50, "period_ms": 1000, "burst": 100, "client_header": "x-client"}

Clients are told apart by their addresses, or networks of IPv6; with `client_header` by that header where a
request has it. Only a proxy that lets no client choose it may set that header.
"""

import json
from dataclasses import replace
from hashlib import sha256
from ipaddress import IPv4Address, ip_address

import policy as base
from componentize_py_types import Err
from policy import ApiError, decide
from wit_world.imports.types import (
    Action_Respond,
    Action_Take,
    Bucket,
    Decision,
    Manifest,
    OnFailure,
    Outcome,
    Outcome_Denied,
    Outcome_Granted,
    Request,
    Take,
)

BUCKET = "requests"
U32_MAX = 2**32 - 1

client_header: str | None = None


class Policy(base.Policy):
    def configure(self, config: bytes) -> Manifest:
        global client_header
        written = parse(config)
        client_header = written.get("client_header")
        manifest = super().configure(b"")
        bucket = Bucket(BUCKET, written["requests"], written["period_ms"], written["burst"])
        return replace(
            manifest,
            name="client-limits",
            headers=[*manifest.headers, *([client_header] if client_header else [])],
            connection=True,
            # Nobody gets more because something went wrong.
            on_failure=OnFailure.REFUSE,
            buckets=[bucket],
        )

    def on_request(self, request: Request) -> Decision:
        return decide(Action_Take(Take(BUCKET, client(request), cost=1)))

    def on_outcome(self, request: Request, memo: bytes, outcome: Outcome) -> Decision:
        if isinstance(outcome, Outcome_Granted):
            return super().on_request(request)
        if isinstance(outcome, Outcome_Denied):
            seconds = max(1, -(-outcome.value // 1000))
            retry = ("retry-after", str(seconds))
            error = ApiError(429, "too many requests, try again later", retry)
            return decide(Action_Respond(error.response()))
        return super().on_outcome(request, memo, outcome)


def parse(config: bytes) -> dict:
    form = 'write {"requests": 50, "period_ms": 1000, "burst": 100}'
    try:
        written = json.loads(config)
    except ValueError as error:
        raise Err(f"{form}: {error}") from None
    numbers = {"requests", "period_ms", "burst"}
    if not isinstance(written, dict) or not numbers <= set(written) <= numbers | {"client_header"}:
        raise Err(form)
    if not all(type(written[name]) is int and 0 < written[name] <= U32_MAX for name in numbers):
        raise Err(form)
    if not isinstance(written.get("client_header", ""), str):
        raise Err(form)
    return written


def client(request: Request) -> bytes:
    """What tells a request's client from others. Of those who cannot be told apart all share one key."""
    named = [value for name, value in request.headers if name == client_header]
    if len(named) > 1:
        # A client sent one of them, and nobody knows which.
        return b""
    if named:
        # However long it is, and never an address.
        return sha256(named[0]).digest()
    if request.connection is None:
        return b""
    address = ip_address(request.connection.client)
    if isinstance(address, IPv4Address):
        return address.packed
    # Who has a network has all its addresses.
    return address.ipv4_mapped.packed if address.ipv4_mapped else address.packed[:8]
