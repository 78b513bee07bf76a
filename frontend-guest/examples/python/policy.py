"""The default policy of Bazaar's front end, in Python: the same routes, checks, messages, caching
and elections as `frontend-guest/src` has in Rust. Edit, build, push: see README.md.

A policy is a pure function over values. It does no I/O and keeps nothing between calls but its
configuration: Bazaar may throw an instance away at any time, and every thread has its own. What it raises, other than an
`ApiError`, is a failure: the last good version decides in its place.

The world is `wit/policy.wit`, as `componentize-py` makes Python of it: names are snake_case, a
variant has one class for each case, and an absent option is None.
"""

import json
import re
import unicodedata
from urllib.parse import quote, unquote_to_bytes

from componentize_py_types import Err
from wit_world import exports
from wit_world.imports.types import (
    Action,
    Action_ListOrders,
    Action_ListStocks,
    Action_ReadOrder,
    Action_ReadStock,
    Action_Respond,
    Action_Trade,
    CacheSettings,
    Caching,
    Decision,
    Eviction,
    Freshness_Linearizable,
    ListOrders,
    ListStocks,
    Manifest,
    Method,
    OnFailure,
    Order,
    OrderPage,
    Outcome,
    Outcome_Order,
    Outcome_Orders,
    Outcome_Refused,
    Outcome_Stock,
    Outcome_Stocks,
    Outcome_Traded,
    Outcome_Unavailable,
    Page,
    ReadOrder,
    ReadStock,
    Refusal,
    Request,
    Response,
    Side,
    Stock,
    Trade,
    Unavailability,
    View,
)

NAME_BYTES_MAX = 64
KEY_BYTES_MAX = 128
QUANTITY_MAX = 2**63 - 1
ORDER_NUMBER_MAX = 2**64 - 1
ORDER_NESTING_MAX = 32
# Stocks on a page: of a request that does not say, and at most. A page has fewer where that many would
# take Python more than a small part of the 50 ms that a decision may take.
LIMIT_DEFAULT = 1_000
LIMIT_MAX = 10_000
LISTED_MAX = 1_000
# Orders that a replica may lack and still lead at once: fetched in some 10 ms.
ORDERS_BEHIND_MAX = 4_096
# Within the freshness that is asked for. Orders never change; this only bounds memory.
STOCK_KEEP_MS = 60_000
ORDER_KEEP_MS = 3_600_000
# For caches in front of Bazaar. Of the rest the host says that it is not to be kept, or only with
# a question before each use.
ORDER_CACHE_CONTROL = ("cache-control", "public, max-age=31536000, immutable")

# ---- the four functions of the world ----


class Policy(exports.Policy):
    def configure(self, config: bytes) -> Manifest:
        """Takes the configuration that an operator gave, at most 64 KiB, and says what the policy is.
        Called once, before anything else: what it makes of a configuration may be kept in a variable
        of the module. An `Err` says what is wrong with it. This policy has none."""
        if config:
            raise Err("this policy takes no configuration")
        return Manifest(
            name="python",
            version="0.1.0",
            headers=["idempotency-key"],
            connection=False,
            cache=CacheSettings(stocks_max=10_000, orders_max=100_000, eviction=Eviction.LRU),
            on_failure=OnFailure.LAST_GOOD,
            buckets=[],
            counters=[],
            reply_headers=[],
        )

    def on_request(self, request: Request) -> Decision:
        """What to do about a request: route it, validate it, and read or trade."""
        try:
            return decide(route(request))
        except ApiError as error:
            return decide(Action_Respond(error.response()))

    def on_outcome(self, request: Request, memo: bytes, outcome: Outcome) -> Decision:
        """What to do about the outcome of the action decided last: answer it."""
        return decide(Action_Respond(render(request, outcome)))

    def elect(self, view: View) -> int | None:
        """Who should lead, or None for as it is: a leader that works stays, else the highest id
        that works and can lead at once takes over."""
        working = [
            replica for replica in view.replicas if replica.healthy and replica.reaches_catalog
        ]
        if any(replica.id == view.leader for replica in working):
            return None
        furthest = max((replica.orders for replica in working), default=0)
        able = (
            replica.id
            for replica in working
            if replica.in_sync or replica.orders + ORDERS_BEHIND_MAX >= furthest
        )
        return max(able, default=None)


def decide(action: Action) -> Decision:
    """A decision that needs no memo."""
    return Decision(action, memo=b"", observations=[], log=[])


# ---- errors: all that can go wrong with a request, as the client is told ----


class ApiError(Exception):
    def __init__(self, status: int, message: str, *headers: tuple[str, str]):
        super().__init__(message)
        self.status = status
        self.message = message
        self.headers = headers

    def response(self) -> Response:
        """It is never kept."""
        error = json_text({"error": {"code": self.status, "message": self.message}})
        return response(self.status, error, *self.headers)


RETRY_AFTER = ("retry-after", "1")

REFUSALS = {
    Refusal.STOCK_NOT_FOUND: (404, "stock not found"),
    Refusal.NOT_ENOUGH: (404, "not enough stocks available to buy"),
    Refusal.ORDER_NOT_FOUND: (404, "transaction not found"),
    Refusal.KEY_CONFLICT: (409, "the Idempotency-Key was used for a different order"),
    Refusal.TOO_MANY: (400, "the quantity would take the stock past the most it can have"),
}

UNAVAILABILITIES = {
    Unavailability.NO_CATALOG: (503, "catalog unavailable, try again", RETRY_AFTER),
    Unavailability.NO_REPLICA: (503, "no order replica available, try again", RETRY_AFTER),
}


def refused(refusal: Refusal) -> ApiError:
    return ApiError(*REFUSALS[refusal])


def invalid_query(problem: str) -> ApiError:
    return ApiError(400, f"the query's {problem}")


def invalid_body(message: str) -> ApiError:
    return ApiError(400, message)


def invalid_key(reason: str) -> ApiError:
    return ApiError(400, f"the Idempotency-Key {reason}")


# ---- routes ----

# Never older than what any client has already seen.
# No response of this policy depends on anything but the stock or order: its key is empty.
LINEARIZABLE = Caching(Freshness_Linearizable(), stale_on_error_ms=0, vary_key=b"")


def route(request: Request) -> Action:
    """The action that a request asks for."""
    if request.method is Method.OTHER:
        raise ApiError(501, "no such method")
    path = re.split("[?#]", request.target, maxsplit=1)[0]
    if stock := re.fullmatch("/stocks/([^/]*)", path):
        allow(request, Method.GET, Method.HEAD)
        return Action_ReadStock(ReadStock(stock_name(stock[1]), LINEARIZABLE))
    if path == "/stocks":
        allow(request, Method.GET, Method.HEAD)
        after, limit = parse_page(request.target)
        return Action_ListStocks(ListStocks(after, min(limit, LISTED_MAX)))
    if path == "/orders":
        allow(request, Method.GET, Method.HEAD, Method.POST)
        if request.method is Method.POST:
            return Action_Trade(parse_order(request.headers, request.body or b""))
        after, limit, stock = parse_order_page(request.target)
        return Action_ListOrders(ListOrders(after, min(limit, LISTED_MAX), stock))
    if order := re.fullmatch("/orders/([^/]*)", path):
        allow(request, Method.GET, Method.HEAD)
        return Action_ReadOrder(ReadOrder(order_number(order[1]), LINEARIZABLE))
    raise ApiError(404, "no such path")


def allow(request: Request, *methods: Method) -> None:
    if request.method not in methods:
        names = ", ".join(method.name for method in methods)
        raise ApiError(405, f"method not allowed, only {names}", ("allow", names))


def stock_name(segment: str) -> str:
    """A segment that is no stock's name is the name of no stock."""
    if re.search("%(?![0-9A-Fa-f]{2})", segment):
        raise refused(Refusal.STOCK_NOT_FOUND)
    try:
        return check_stock_name(unquote_to_bytes(segment).decode())
    except UnicodeDecodeError:
        raise refused(Refusal.STOCK_NOT_FOUND)


def check_stock_name(name: str) -> str:
    is_control = any(unicodedata.category(character) == "Cc" for character in name)
    if is_control or not 1 <= len(name.encode()) <= NAME_BYTES_MAX:
        raise refused(Refusal.STOCK_NOT_FOUND)
    return name


def parse_page(target: str) -> tuple[str | None, int]:
    """Which page of a list a query asks for: `after=` and `limit=`. Other parameters are ignored."""
    given = parameters(target, "after", "limit")
    return page_name(given.get("after", "")), page_limit(given.get("limit", str(LIMIT_DEFAULT)))


def parse_order_page(target: str) -> tuple[int | None, int, str | None]:
    """The same of orders, which has `stock=` as well."""
    given = parameters(target, "after", "limit", "stock")
    after, stock = given.get("after"), given.get("stock")
    return (
        None if after is None else page_number(after),
        page_limit(given.get("limit", str(LIMIT_DEFAULT))),
        None if stock is None else page_stock(stock),
    )


def parameters(target: str, *names: str) -> dict[str, str]:
    given = {}
    for parameter in target.partition("#")[0].partition("?")[2].split("&"):
        name, _, value = parameter.partition("=")
        if name in names:
            if name in given:
                raise invalid_query(f"`{name}` was given more than once")
            given[name] = value
    return given


def page_number(value: str) -> int:
    digits = re.fullmatch(b"0*([0-9]{1,20})", unquote_to_bytes(value))
    if digits is None or int(digits[1]) > ORDER_NUMBER_MAX:
        raise invalid_query(
            f"`after` must be the number of an order, an integer from 0 to {ORDER_NUMBER_MAX}"
        )
    return int(digits[1])


def page_stock(value: str) -> str:
    try:
        return stock_name(value.replace("+", " "))
    except ApiError:
        raise invalid_query(
            "`stock` must be the name of a stock, percent-encoded: "
            "1 to 64 bytes of UTF-8 without control characters"
        )


def page_name(value: str) -> str | None:
    """An empty name comes before all others."""
    try:
        return stock_name(value.replace("+", " ")) if value else None
    except ApiError:
        raise invalid_query(
            "`after` must be the name of a stock, percent-encoded: "
            "at most 64 bytes of UTF-8 without control characters"
        )


def page_limit(value: str) -> int:
    digits = re.fullmatch(b"0*([0-9]{1,5})", unquote_to_bytes(value))
    limit = int(digits[1]) if digits else 0
    if not 1 <= limit <= LIMIT_MAX:
        raise invalid_query(f"`limit` must be an integer from 1 to {LIMIT_MAX}")
    return limit


def order_number(segment: str) -> int:
    """A segment that is no number is the number of no order."""
    digits = re.fullmatch("0*([0-9]{1,20})", segment)
    if digits is None or int(digits[1]) > ORDER_NUMBER_MAX:
        raise refused(Refusal.ORDER_NOT_FOUND)
    return int(digits[1])


# ---- an order ----


def parse_order(headers: list[tuple[str, bytes]], body: bytes) -> Trade:
    """From headers and body to a trade. Checked in this order, so that an order with several faults
    always gets the same answer: the key, the body, its fields, its type, its quantity, its stock.
    """
    idempotency_key = parse_key(headers)
    fields = parse_json(body)
    name = field(fields, "name", "a string", is_text)
    side = field(fields, "type", "a string", is_text)
    what = f"an integer of at most {QUANTITY_MAX}"
    quantity = field(fields, "quantity", what, is_integer)
    if side not in ("buy", "sell"):
        raise ApiError(400, "invalid request type")
    if quantity <= 0:
        raise ApiError(404, "invalid number of stocks")
    return Trade(
        check_stock_name(name),
        Side.BUY if side == "buy" else Side.SELL,
        quantity,
        idempotency_key,
    )


def parse_json(body: bytes) -> dict[str, object]:
    try:
        text = body.decode()
    except UnicodeDecodeError:
        raise invalid_body("the body is not UTF-8")
    if nesting(text) > ORDER_NESTING_MAX:
        raise invalid_body("the body is not JSON: nested too deep")
    try:
        fields = json.loads(text, parse_int=parse_integer, parse_constant=refuse_constant)
    except json.JSONDecodeError as error:
        raise invalid_body(f"the body is not JSON: {error}")
    if not isinstance(fields, dict):
        raise invalid_body("the body is not a JSON object")
    return fields


def nesting(text: str) -> int:
    """How deep brackets nest outside of strings. `json.loads` recurses, and a stack that overflows
    is not an exception here but a trap."""
    depth = deepest = 0
    for bracket in re.findall(r"[][{}]", re.sub(r'"(?:[^"\\]|\\.)*"', "", text, flags=re.DOTALL)):
        depth += 1 if bracket in "[{" else -1
        deepest = max(deepest, depth)
    return deepest


def parse_integer(digits: str) -> int | float:
    """One of so many digits is out of range in any case, and Python refuses to read the longest."""
    return int(digits) if len(digits) <= 20 else float("inf")


def refuse_constant(name: str) -> None:
    """Python reads NaN and Infinity, which are no JSON."""
    raise json.JSONDecodeError(f"{name} is no value", name, 0)


def field(fields: dict[str, object], name: str, what: str, fits) -> object:
    if name not in fields:
        raise invalid_body(f"the field `{name}` is missing")
    if not fits(fields[name]):
        raise invalid_body(f"the field `{name}` must be {what}")
    return fields[name]


def is_text(value: object) -> bool:
    """Half of a surrogate pair, which JSON can spell, is no text."""
    return isinstance(value, str) and not re.search("[\ud800-\udfff]", value)


def is_integer(value: object) -> bool:
    return type(value) is int and -QUANTITY_MAX - 1 <= value <= QUANTITY_MAX


def parse_key(headers: list[tuple[str, bytes]]) -> str | None:
    """The client's idempotency key. The draft has it as a string of RFC 8941, in quotes; one
    without quotes is taken as it is. Parameters after the closing quote are ignored."""
    # A character for each byte: those that are not ASCII are refused below.
    values = (value.decode("latin-1") for name, value in headers if name == "idempotency-key")
    keys = [value.strip(" \t") for value in values]
    if not keys:
        return None
    if len(keys) > 1:
        raise invalid_key("was given more than once")
    key = keys[0]
    if key.startswith('"'):
        quoted = re.fullmatch(r'"((?:[^"\\]|\\["\\])*)"\s*(?:;.*)?', key, flags=re.DOTALL)
        if not quoted:
            raise invalid_key("is not a well-formed quoted string")
        key = re.sub(r"\\(.)", r"\1", quoted[1])
    if not key:
        raise invalid_key("is empty")
    if len(key.encode()) > KEY_BYTES_MAX:
        raise invalid_key("is longer than 128 bytes")
    if not re.fullmatch("[ -~]*", key):
        raise invalid_key("has a character that is not printable ASCII")
    return key


# ---- responses ----


def render(request: Request, outcome: Outcome) -> Response:
    """The response to an outcome of what a request asked for."""
    match outcome:
        case Outcome_Stock(stock):
            return data(stock_json(stock), keep_ms=STOCK_KEEP_MS)
        case Outcome_Stocks(page):
            return page_response(request.target, page)
        case Outcome_Order(order):
            return data(order_json(order), ORDER_CACHE_CONTROL, keep_ms=ORDER_KEEP_MS)
        case Outcome_Orders(page):
            return order_page_response(request.target, page)
        case Outcome_Traded(number):
            return data(json_text({"transaction_number": number}))
        case Outcome_Refused(refusal):
            return refused(refusal).response()
        case Outcome_Unavailable(unavailability):
            return ApiError(*UNAVAILABILITIES[unavailability]).response()


def page_response(target: str, page: Page) -> Response:
    """A page, which says where the next one is."""
    listed = f"[{','.join(map(stock_json, page.stocks))}]"
    if not page.more:
        return data(listed)
    _, limit = parse_page(target)
    following = f"/stocks?limit={limit}&after={quote(page.stocks[-1].name, safe='')}"
    return response(200, f'{{"data":{listed},"next":{json_text(following)}}}')


def order_page_response(target: str, page: OrderPage) -> Response:
    """A page of orders, which says where the next one is."""
    listed = f"[{','.join(map(order_json, page.orders))}]"
    if page.next_after is None:
        return data(listed)
    _, limit, stock = parse_order_page(target)
    of = "" if stock is None else f"&stock={quote(stock, safe='')}"
    following = f"/orders?limit={limit}&after={page.next_after}{of}"
    return response(200, f'{{"data":{listed},"next":{json_text(following)}}}')


def stock_json(stock: Stock) -> str:
    name, price = json_text(stock.name), decimal(stock.price_minor)
    return f'{{"name":{name},"price":{price},"quantity":{stock.quantity}}}'


def order_json(order: Order) -> str:
    return json_text(
        {
            "number": order.number,
            "name": order.name,
            "type": "buy" if order.side is Side.BUY else "sell",
            "quantity": order.quantity,
        }
    )


def decimal(minor: int) -> str:
    """Minor units as a decimal number: `240.63`, and `20.0` for a whole one."""
    whole, cents = divmod(minor, 100)
    return f"{whole}.{cents // 10}" if cents % 10 == 0 else f"{whole}.{cents:02}"


def data(text: str, *headers: tuple[str, str], keep_ms: int | None = None) -> Response:
    return response(200, f'{{"data":{text}}}', *headers, keep_ms=keep_ms)


def response(
    status: int, text: str, *headers: tuple[str, str], keep_ms: int | None = None
) -> Response:
    content_type = ("content-type", "application/json")
    return Response(status, [content_type, *headers], text.encode(), keep_ms)


def json_text(value: object) -> str:
    return json.dumps(value, ensure_ascii=False, separators=(",", ":"))
