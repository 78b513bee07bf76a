"""Says on every reply, the gateway's own errors included, which pages may read it (CORS) and how browsers
are to treat it. As `cors.rs`, with the same configuration:

    {"origins": ["https://shop.example", "http://localhost:3000"]}

Pages of these origins may read what they ask for, and send orders, without cookies. No origin is allowed
that is not on the list.
"""

import json
import re
from dataclasses import replace

import policy as base
from componentize_py_types import Err
from policy import decide
from wit_world.imports.types import (
    Action_Respond,
    Decision,
    Manifest,
    Method,
    ReplyHeader,
    Request,
    Response,
)

# One header is added for each.
ORIGINS_MAX = 50
# As browsers send it: neither `*`, which allows all, nor `null`, which any page can be.
ORIGIN = re.compile(r"https?://[a-z0-9.:\[\]-]+")

# A browser that asks before it sends says this.
ASKS = "access-control-request-method"

# What every reply says to browsers: it is data, and nothing of it loads, runs or is shown in a page.
ALWAYS = [
    ("content-security-policy", "default-src 'none'; frame-ancestors 'none'"),
    ("cross-origin-resource-policy", "same-origin"),
    ("referrer-policy", "no-referrer"),
    ("x-content-type-options", "nosniff"),
    ("access-control-expose-headers", "cache-status, etag, retry-after"),
]

# What pages may do, besides what all may.
ALLOWED = [
    ("access-control-allow-methods", "GET, HEAD, POST"),
    ("access-control-allow-headers", "authorization, content-type, idempotency-key"),
    ("access-control-max-age", "600"),
]


class Policy(base.Policy):
    def configure(self, config: bytes) -> Manifest:
        allow = [
            ReplyHeader("access-control-allow-origin", origin, ("origin", origin))
            for origin in parse(config)
        ]
        always = [ReplyHeader(name, value, None) for name, value in ALWAYS]
        manifest = super().configure(b"")
        return replace(
            manifest,
            name="cors",
            headers=[*manifest.headers, ASKS],
            # The gateway adds them, so that kept responses and its own errors have them as well.
            reply_headers=[*allow, *always],
        )

    def on_request(self, request: Request) -> Decision:
        asks = any(name == ASKS for name, _ in request.headers)
        if request.method is not Method.OPTIONS or not asks:
            return super().on_request(request)
        # A browser goes on only if its page's origin is allowed, too.
        return decide(Action_Respond(Response(204, ALLOWED, b"", None)))


def parse(config: bytes) -> list[str]:
    form = 'write {"origins": ["https://HOST"]}'
    try:
        written = json.loads(config)
    except ValueError as error:
        raise Err(f"{form}: {error}") from None
    if not isinstance(written, dict) or list(written) != ["origins"]:
        raise Err(form)
    origins = written["origins"]
    if not isinstance(origins, list) or len(origins) > ORIGINS_MAX:
        raise Err(f"`origins` must be a list of at most {ORIGINS_MAX}")
    for origin in origins:
        if not isinstance(origin, str) or not ORIGIN.fullmatch(origin):
            raise Err(f"`{origin}` is not an origin: https://HOST or https://HOST:PORT, in lower case")
    return origins
