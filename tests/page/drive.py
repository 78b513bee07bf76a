"""Uses the front page as people do, in a headless Chromium: drive.py URL CHROMIUM SCREENSHOTS.

What an operator is to do meanwhile it asks for by a line on standard output, the arguments of `bazaar stock` as JSON, or what
is to become of policy and gateway, and reads a line for an answer. Ends with an error where something is not as it should be. What the browser refuses by the page's policy,
and what the page's script fails at, counts."""

import json
import re
import sys
from pathlib import Path
from urllib.parse import quote

from playwright.sync_api import Page, Request, Route, expect, sync_playwright

HOSTILE = "<img src=x onerror=alert(1)>"

# Most bytes of the page and what it asks for, as they come over the wire, and most layout shift, as Lighthouse counts it.
WIRE_BYTES_MAX = 200_000
SHIFT_MAX = 0.02

WATCH_SHIFT = """
window.shift = 0;
window.shifted = [];
new PerformanceObserver((list) => {
  for (const entry of list.getEntries().filter(({ hadRecentInput }) => !hadRecentInput)) {
    window.shift += entry.value;
    const places = entry.sources.map(({ node }) => node?.id || node?.className || node?.nodeName || "?");
    window.shifted.push(`${entry.value.toFixed(4)} of ${places.join(", ")}`);
  }
}).observe({ type: "layout-shift", buffered: true });
"""

# What is said of the stream of events, one after the other.
WATCH_LIVE = """() => {
  const live = document.getElementById("live");
  document.body.dataset.said = "";
  new MutationObserver(() => { document.body.dataset.said += `|${live.textContent}`; }).observe(live, { childList: true });
}"""

# The page as it is while another tab is shown: a headless browser shows all of its pages.
HIDE = """(isHidden) => {
  Object.defineProperty(document, "hidden", { configurable: true, get: () => isHidden });
  document.dispatchEvent(new Event("visibilitychange"));
}"""

# A phone where there is little network.
SLOW = {"offline": False, "latency": 400, "downloadThroughput": 20_000, "uploadThroughput": 10_000}


def operate(*arguments: str) -> None:
    print(json.dumps(arguments), flush=True)
    sys.stdin.readline()


class Visitor:
    """Somebody with a browser, and a window in it."""

    def __init__(self, browser, faults: list[str], **options):
        self.context = browser.new_context(locale="en-GB", **options)
        self.context.add_init_script(WATCH_SHIFT)
        self.requested: list[str] = []
        self.context.on("request", lambda request: self.requested.append(request.url))
        self.page = self.window(faults)
        self.devtools = self.context.new_cdp_session(self.page)
        self.devtools.send("Network.enable")

    def window(self, faults: list[str]) -> Page:
        page = self.context.new_page()
        page.on("pageerror", lambda error: faults.append(f"script: {error}"))
        page.on("console", lambda said: said.type == "error" and faults.append(f"console: {said.text}"))
        page.on("dialog", lambda dialog: faults.append(f"dialog: {dialog.message}"))
        asked: set[Request] = set()

        def begin(request: Request) -> None:
            if "/stocks?" not in request.url:
                return
            if asked:
                faults.append("the list is asked for while it is on its way")
            asked.add(request)

        page.on("request", begin)
        page.on("requestfinished", lambda request: asked.discard(request))
        page.on("requestfailed", lambda request: asked.discard(request))
        page.on("framenavigated", lambda _: asked.clear())
        return page

    def throttle(self, conditions: dict) -> None:
        self.devtools.send("Network.emulateNetworkConditions", conditions)


def is_still(page: Page) -> float:
    """How far things have moved by themselves, which must not be far."""
    shift, places = page.evaluate("[window.shift, window.shifted]")
    assert shift <= SHIFT_MAX, f"layout shift of {shift}: {places}"
    return shift


def first_paint_ms(page: Page) -> float:
    return page.evaluate("performance.getEntriesByName('first-contentful-paint')[0].startTime")


def is_live(page: Page) -> None:
    expect(page.locator("#live")).to_have_text("Live")
    expect(page.locator("#more")).to_have_text("813 more: search for them.")


def row(page: Page, name: str):
    return page.locator("#rows tr", has=page.get_by_role("rowheader", name=name, exact=True))


def price(page: Page, name: str):
    return row(page, name).locator("td").nth(0)


def shares(page: Page, name: str):
    return row(page, name).locator("td").nth(1)


def trade(page: Page, name: str, label: str, quantity: str) -> None:
    page.get_by_role("button", name=f"{label} {name}", exact=True).click()
    page.get_by_label("Shares").fill(quantity)
    page.get_by_role("dialog").get_by_role("button", name=label, exact=True).click()


def posts(visitor: Visitor) -> int:
    return sum(1 for url in visitor.requested if url.endswith("/orders"))


def trade_and_see(desktop: Visitor, other: Page, screenshots: Path) -> None:
    page = desktop.page
    # What one buys, the other sees.
    trade(page, "nvidia", "Buy", "10")
    expect(page.locator("#said")).to_contain_text("Bought 10 nvidia: order no. 0")
    for window in (page, other):
        expect(shares(window, "nvidia")).to_have_text("990")
        expect(window.locator("#latest li").first).to_contain_text("10 nvidia")
    expect(page.locator("#mine li")).to_have_count(1)
    page.screenshot(path=screenshots / "desktop.png")

    # By the keyboard alone.
    page.get_by_label("Search").fill("ama")
    expect(page.locator("#rows tr")).to_have_count(1)
    page.get_by_role("button", name="Sell amazon").press("Enter")
    page.get_by_label("Shares").fill("5")
    page.screenshot(path=screenshots / "desktop-trade.png")
    page.get_by_label("Shares").press("Enter")
    expect(shares(other, "amazon")).to_have_text("1,005")
    expect(page.locator("#mine li")).to_have_count(2)

    # What cannot be is said in words.
    trade(page, "amazon", "Buy", "5000")
    expect(page.locator("#trade-error")).to_have_text("Not enough stocks available to buy.")
    page.screenshot(path=screenshots / "refused.png")
    page.get_by_label("Shares").fill("-1")
    page.get_by_role("dialog").get_by_role("button", name="Buy", exact=True).click()
    expect(page.locator("#trade-error")).to_contain_text("whole number")
    page.keyboard.press("Escape")
    expect(page.get_by_role("dialog")).to_have_count(0)

    # Of the stocks that are not shown, the search finds each.
    page.get_by_label("Search").fill("zenith 1000")
    expect(page.locator("#rows tr")).to_have_count(1)
    trade(page, "zenith 1000", "Buy", "3")
    expect(page.locator("#said")).to_contain_text("Bought 3 zenith 1000")
    expect(shares(page, "zenith 1000")).to_have_text("97")
    page.get_by_label("Search").fill("nobody")
    expect(page.locator("#more")).to_have_text("No stock has “nobody” in its name.")
    page.get_by_label("Search").fill("")


def see_what_operators_do(page: Page, other: Page) -> None:
    other.get_by_label("Search").fill("1000")
    expect(shares(other, "zenith 1000")).to_have_text("97")
    page.get_by_role("button", name="Buy apple").focus()
    operate("restock", "nvidia", "50")
    operate("price", "tesla", "200.5")
    operate("add", "acme", "--price=7", "--quantity=70")
    operate("delist", "amc")
    operate("restock", "zenith 1000", "3")
    expect(shares(page, "nvidia")).to_have_text("1,040")
    expect(price(page, "tesla")).to_have_text("200.50")
    expect(shares(page, "acme")).to_have_text("70")
    expect(row(page, "amc")).to_have_count(0)
    expect(page.get_by_role("button", name="Buy apple")).to_be_focused()
    expect(page.locator("#rows tr").nth(1)).to_contain_text("acme")
    # Also far down the list, where that is what is shown.
    expect(shares(other, "zenith 1000")).to_have_text("100")
    other.get_by_label("Search").fill("")


def bought(number: int, name: str, quantity: int) -> dict:
    """An order, as the page keeps it."""
    return {"number": number, "name": name, "type": "buy", "quantity": quantity}


def markup_is_text(desktop: Visitor, other: Page, url: str, faults: list[str]) -> None:
    page = desktop.page
    # A stock's name, wherever it is shown.
    expect(page.get_by_role("rowheader", name=HOSTILE, exact=True)).to_be_visible()
    trade(page, HOSTILE, "Buy", "1")
    expect(page.locator("#said")).to_contain_text(f"Bought 1 {HOSTILE}")
    expect(shares(other, HOSTILE)).to_have_text("99")
    expect(other.locator("#latest li").first).to_contain_text(f"1 {HOSTILE}")
    # What is searched for, what this browser keeps, and all else of a request.
    page.get_by_label("Search").fill(HOSTILE + HOSTILE)
    expect(page.locator("#more")).to_contain_text(f"No stock has “{HOSTILE}{HOSTILE}” in its name.")
    desktop.context.set_extra_http_headers({name: HOSTILE for name in ("x-request-id", "x-forwarded-for", "forwarded", "cookie", "traceparent")})
    # Of what it keeps that is forgotten which is no order, or not this bazaar's: another journal has others by these numbers.
    kept = [HOSTILE, 3, {"it": HOSTILE}, bought(3, HOSTILE, 1), bought(1, "nvidia", 10), bought(10**9, "nvidia", 10), bought(0, "nvidia", 10)]
    page.evaluate("(kept) => localStorage.setItem('bazaar.orders', JSON.stringify(kept))", kept)
    page.goto(f"{url}?after={quote(HOSTILE)}&{HOSTILE}#{HOSTILE}")
    is_live(page)
    expect(page.locator("#mine li")).to_have_count(2)
    expect(page.locator("#mine li").first).to_contain_text(f"1 {HOSTILE}")
    expect(page.locator("#mine li").last).to_contain_text("10 nvidia")
    numbers = page.evaluate("JSON.parse(localStorage.getItem('bazaar.orders')).map(({ number }) => number)")
    assert numbers == [3, 0], numbers
    trade(page, "intel", "Buy", "1")
    expect(page.locator("#said")).to_contain_text("Bought 1 intel")
    for window in (page, other):
        assert window.locator("img, main script").count() == 0
    # And the API itself, for whoever is made to open it.
    for target in ("stocks/", "stocks?limit=1&after=", "orders?limit=1&stock=", "orders?after=", "nowhere/"):
        page.goto(url + target + quote(HOSTILE))
        assert page.locator("img, script").count() == 0, page.content()
    desktop.context.set_extra_http_headers({})
    page.goto(url)


def slow_network(browser, url: str, faults: list[str], screenshots: Path) -> tuple[float, float]:
    visitor = Visitor(browser, faults, viewport={"width": 360, "height": 740})
    page = visitor.page
    visitor.throttle(SLOW)
    page.goto(url, wait_until="commit")
    expect(page.locator("#rows")).to_have_text("Loading the stocks…")
    page.screenshot(path=screenshots / "phone-loading.png")
    # The first ones are there before the others, and can be traded meanwhile.
    expect(page.locator("#more")).to_have_text("Loading the other stocks…")
    page.get_by_label("Search").press_sequentially("nike")
    expect(page.locator("#rows tr")).to_have_count(1)
    page.get_by_role("button", name="Buy nike").click()
    page.keyboard.press("Escape")
    page.get_by_label("Search").press("ControlOrMeta+A")
    page.get_by_label("Search").press("Delete")
    is_live(page)
    painted, shift = first_paint_ms(page), is_still(page)

    # An order that is on its way is not sent again.
    visitor.throttle({**SLOW, "latency": 2_000})
    trade(page, "nike", "Buy", "4")
    place = page.locator("#place")
    expect(place).to_have_text("Sending…")
    expect(place).to_be_disabled()
    page.get_by_label("Shares").press("Enter")
    place.click(force=True)
    page.evaluate("document.getElementById('order').requestSubmit()")
    page.screenshot(path=screenshots / "phone-sending.png")
    expect(page.locator("#said")).to_contain_text("Bought 4 nike")
    expect(page.get_by_role("dialog")).to_have_count(0)
    assert posts(visitor) == 1, visitor.requested

    # One whose answer is lost is placed once, too.
    visitor.throttle({**SLOW, "latency": 0})
    keys: list[str] = []

    def lose_the_first(route: Route) -> None:
        keys.append(route.request.headers["idempotency-key"])
        if len(keys) == 1:
            route.fetch()
            route.abort()
        else:
            route.continue_()

    page.route("**/orders", lose_the_first)
    trade(page, "nike", "Buy", "6")
    expect(page.locator("#said")).to_contain_text("Bought 6 nike")
    assert len(keys) == 2 and keys[0] == keys[1], keys
    page.unroute("**/orders")
    expect(shares(page, "nike")).to_have_text("990")
    expect(page.locator("#mine li")).to_have_count(2)
    faults[:] = [fault for fault in faults if "net::ERR_FAILED" not in fault]
    visitor.context.close()
    return painted, shift


def wire_bytes(page: Page, url: str) -> int:
    finished: list[Request] = []

    def note(request: Request) -> None:
        finished.append(request)

    page.on("requestfinished", note)
    page.goto(url)
    is_live(page)
    page.remove_listener("requestfinished", note)
    # Asked for here and not as they finish: that would still be under way when all is added up, and when the page closes.
    sizes = [request.sizes() for request in finished]
    return sum(size["responseBodySize"] + size["responseHeadersSize"] for size in sizes)


def main(url: str, chromium: str, screenshots: Path) -> None:
    expect.set_options(timeout=30_000)  # on a busy machine
    faults: list[str] = []
    figures: list[str] = []
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=chromium, args=["--no-sandbox"])
        desktop = Visitor(browser, faults, viewport={"width": 1280, "height": 900})
        page = desktop.page
        size = wire_bytes(page, url)
        assert 0 < size <= WIRE_BYTES_MAX, f"{size} bytes"
        figures.append(f"{size} bytes")
        figures.append(f"desktop painted after {first_paint_ms(page):.0f} ms, layout shift {is_still(page):.4f}")
        other = desktop.window(faults)
        other.goto(url)
        is_live(other)
        for window in (page, other):
            expect(window.locator("#rows tr")).to_have_count(200)
            expect(shares(window, "nvidia")).to_have_text("1,000")

        trade_and_see(desktop, other, screenshots)
        see_what_operators_do(page, other)
        markup_is_text(desktop, other, url, faults)

        # One's own orders are there again, and the reference is what the server says.
        page.reload()
        expect(page.locator("#mine li")).to_have_count(3)
        is_live(page)
        is_still(page)
        page.get_by_text("For programs").click()
        expect(page.locator("#operations")).to_contain_text("/orders/{number}")
        expect(page.locator("#operations h3").last).to_have_text("All of these")
        page.locator("#api").screenshot(path=screenshots / "reference.png")
        bottom = "document.querySelector('aside > div').getBoundingClientRect().bottom"
        assert page.evaluate(f"{bottom} < document.getElementById('api').getBoundingClientRect().top"), "it is covered"
        page.get_by_role("button", name="Forget them").click()
        expect(page.locator("#mine li")).to_have_count(0)

        # Who does not look asks for nothing, and is shown everything once they look again.
        page.evaluate(HIDE, True)
        page.wait_for_load_state("networkidle")
        asked: list[str] = []
        page.on("request", lambda request: asked.append(request.url))
        painted, shift = slow_network(browser, url, faults, screenshots)  # which takes longer than from one look to the next
        figures.append(f"slow network: painted after {painted:.0f} ms, layout shift {shift:.4f}")
        assert not asked, asked
        expect(shares(page, "nike")).to_have_text("1,000")
        page.evaluate(HIDE, False)
        expect(shares(page, "nike")).to_have_text("990")
        expect(page.locator("#live")).to_have_text("Live")

        # In the dark, and on a phone.
        page.emulate_media(color_scheme="dark")
        page.evaluate("scrollTo(0, 0)")
        page.screenshot(path=screenshots / "desktop-dark.png")
        for scheme in ("light", "dark"):
            phone = Visitor(browser, faults, viewport={"width": 360, "height": 740}, color_scheme=scheme)
            small = phone.page
            small.goto(url)
            is_live(small)
            figures.append(f"phone painted after {first_paint_ms(small):.0f} ms, layout shift {is_still(small):.4f}")
            small.screenshot(path=screenshots / f"phone-{scheme}.png")
            wide = small.evaluate("document.documentElement.scrollWidth - innerWidth")
            assert wide <= 0, f"the page is {wide} pixels wider than the phone"
            small.get_by_role("button", name="Buy nvidia").click()
            small.screenshot(path=screenshots / f"phone-{scheme}-trade.png")
            small.keyboard.press("Escape")
            small.get_by_label("Search").fill("net")
            small.screenshot(path=screenshots / f"phone-{scheme}-end.png", full_page=True)
            phone.context.close()

        # Where its gateway is gone it says so, and where that has no events for it, why; then it comes back by itself.
        faults_before = len(faults)
        page.evaluate(WATCH_LIVE)
        operate("another policy")
        operate("another gateway")
        expect(page.locator("#live")).to_have_text(re.compile("^Not live: (?!reconnecting)"))
        operate("this policy")
        expect(page.locator("#live")).to_have_text("Live")
        said = page.evaluate("document.body.dataset.said")
        assert "|Not live: reconnecting|" in said, said
        trade(other, "google", "Buy", "2")
        expect(page.locator("#latest li").first).to_contain_text("2 google")
        del faults[faults_before:]

        # A refusal is an answer that is no success, which browsers note.
        faults = [fault for fault in faults if not any(status in fault for status in ("400 (Bad", "404 (Not"))]
        assert not faults, "\n".join(faults)
        foreign = [asked for asked in desktop.requested if not asked.startswith((url, "data:"))]
        assert not foreign, foreign
        print("; ".join(figures), file=sys.stderr)
        browser.close()


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2], Path(sys.argv[3]))
