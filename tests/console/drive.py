"""Uses the console as operators do, in a headless Chromium: drive.py URL CHROMIUM SCREENSHOTS TOKEN READ_TOKEN.

What is to happen behind the browser's back it asks for by a line on standard output, and reads a line for an answer. Ends with
an error where something is not as it should be. What the browser refuses by the page's policy, and what the page's script
fails at, counts."""

import json
import re
import sys
import time
from pathlib import Path

from playwright.sync_api import BrowserContext, Page, Request, expect, sync_playwright

HOSTILE = "<img src=x onerror=alert(1)>"

# Most bytes of the page, as it comes over the wire, and most layout shift, as Lighthouse counts it.
WIRE_BYTES_MAX = 200_000
SHIFT_MAX = 0.05

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

ALARMS = """
async () => {
  const { alarms } = await import("/console/alarms.js");
  const { History, quantile, SECONDS } = await import("/console/figures.js");
  const replica = (id, more) => ({ id, healthy: true, role: id === 3 ? "leader" : "follower", reaches_catalog: true, said: null, ...more });
  const moment = (more) => ({
    at_ms: 1e12, leader: 3, catalog: { reachable: true, in_sync: [1, 2, 3], journal_rows: 9 },
    catalogs: [{ url: "http://c", role: "active", said: null }], replicas: [1, 2, 3].map((id) => replica(id)),
    gateways: [{ key: "g", report: { why_not_ready: null, figures: {} } }], ...more,
  });
  const names = (more, policies) => alarms({ now: moment(more), policies }).map(({ name }) => name);
  const counted = (family, samples, at) => ({ ...moment(), at_ms: at, gateways: [{ key: "g", report: { figures: { [family]: samples } } }] });
  const history = new History();
  const took = (status, many) => [["trade", "none", status], many, [many, ...Array(19).fill(0)]];
  history.add(counted("bazaar_request_duration_seconds", [took("2xx", 100), took("5xx", 0)], 1000));
  history.add(counted("bazaar_request_duration_seconds", [took("2xx", 150), took("5xx", 50)], 31000));
  const failing = alarms({ now: moment(), minute: history.over(60) });
  history.add(counted("bazaar_request_duration_seconds", [took("2xx", 7)], 32000));
  return {
    well: names(),
    silent: names({ catalog: { reachable: false, in_sync: [] } }),
    leaderless: names({ replicas: [1, 2, 3].map((id) => replica(id, { role: "follower" })) }),
    down: names({ replicas: [replica(1, { healthy: false }), replica(2), replica(3)] }),
    alone: names({ catalog: { reachable: true, in_sync: [3], journal_rows: 9 } }),
    lags: names({ replicas: [replica(1, { said: { figures: { bazaar_order_lag_seconds: [[[], 9]] } } }), replica(2), replica(3)] }),
    standby: names({ catalogs: [{ url: "http://c", role: "active" }, { url: "http://d", role: "silent" }] }),
    expires: names({ gateways: [{ key: "g", report: { figures: { bazaar_certificate_expiry_timestamp_seconds: [[["service"], 1e9 + 86400]] } } }] }),
    expired: names({ gateways: [{ key: "g", report: { figures: { bazaar_certificate_expiry_timestamp_seconds: [[["service"], 1e9 - 1]] } } }] }),
    unready: names({ gateways: [{ key: "g", report: { why_not_ready: "no session", figures: {} } }] }),
    takenOut: names({}, { g: { policy: { active: { name: "p" }, changes: [{ what: "rollback", at_ms: 1e12 - 5000, why: "it failed" }] } } }),
    byPeople: names({}, { g: { policy: { active: { name: "p" }, changes: [{ what: "rollback", at_ms: 1e12 - 5000, why: "no", known_by: "token" }] } } }),
    failing: failing.map(({ name }) => name),
    restarted: history.over(1).sum("bazaar_request_duration_seconds"),
    median: quantile({ count: 4, buckets: [0, 2, 2, ...Array(17).fill(0)] }, 0.5),
    beyond: quantile({ count: 1, buckets: [...Array(19).fill(0), 1] }, 0.5) === Infinity,
    bounds: [SECONDS[0], SECONDS[18]],
  };
}
"""

EXPECTED = {
    "well": [],
    "silent": ["BazaarNoActiveCatalog"],
    "leaderless": ["BazaarNotReady"],
    "down": ["BazaarDown"],
    "alone": ["BazaarFollowerFails", "BazaarFollowerFails", "BazaarOneInSyncReplica"],
    "lags": ["BazaarReplicaLags"],
    "standby": ["BazaarDown", "BazaarDown"],
    "expires": ["BazaarCertificateExpires"],
    "expired": ["BazaarCertificateExpired"],
    "unready": ["BazaarNotReady"],
    "takenOut": ["BazaarPolicyTakenOut"],
    "byPeople": [],
    "failing": ["BazaarRequestsFail"],
    "restarted": 7,
    "beyond": True,
}


# What an operator looks for first, as the page has it at the top.
LAGGING, SLOW, TAKEN_BACK = (f'#glance [data-key="{key}"]' for key in ("lagging", "slow", "taken-back"))


# So many trades are made at a wish.
TRADES = 20

wishes: list[str] = []


def wish(what: str) -> str:
    wishes.append(what)
    print(what, flush=True)
    return sys.stdin.readline().strip()


# A phone where there is little network: less in a second than there is to say in it.
SLOW_NETWORK = {"offline": False, "latency": 400, "downloadThroughput": 5_000, "uploadThroughput": 5_000}


class Operator:
    """Somebody with a browser."""

    def __init__(self, browser, url: str, faults: list[str], **options):
        self.url = url
        self.context: BrowserContext = browser.new_context(locale="en-GB", **options)
        self.context.add_init_script(WATCH_SHIFT)
        self.requested: list[str] = []
        self.context.on("request", lambda request: self.requested.append(request.url))
        self.page: Page = self.context.new_page()
        self.page.on("pageerror", lambda error: faults.append(f"script: {error}"))
        self.page.on("console", lambda said: said.type == "error" and faults.append(f"console: {said.text}"))
        self.page.on("dialog", lambda dialog: faults.append(f"dialog: {dialog.message}"))

    def open(self, token: str) -> Page:
        self.page.goto(self.url)
        self.page.get_by_label("Token").fill(token)
        self.page.get_by_role("button", name="Open the console").click()
        expect(self.page.locator("#live")).to_have_text("Live")
        expect(self.page.locator("#map .node")).not_to_have_count(0)
        return self.page

    def first_paint_ms(self) -> float:
        return self.page.evaluate("performance.getEntriesByName('first-contentful-paint')[0]?.startTime ?? 0")

    def shift(self) -> float:
        """How far things have moved by themselves, which must not be far."""
        shift, places = self.page.evaluate("[window.shift, window.shifted]")
        assert shift <= SHIFT_MAX, f"layout shift of {shift}: {places}"
        return shift


def node(page: Page, key: str):
    return page.locator(f'#map [data-key="{key}"]')


def fact(page: Page, key: str, name: str):
    return node(page, key).locator(".fact", has=page.get_by_text(name, exact=True)).locator("dd")


def find_at_a_glance(page: Page) -> None:
    """The three answers are on the first screen, whole, where nobody has scrolled."""
    expect(page.locator("#glance .answer")).to_have_count(3)
    assert page.evaluate("scrollY") == 0
    height = page.viewport_size["height"]
    for answer in (LAGGING, SLOW, TAKEN_BACK):
        box = page.locator(answer).bounding_box()
        assert box["y"] >= 0 and box["y"] + box["height"] <= height, f"{answer} is at {box} of {height}"


def wire_bytes(operator: Operator) -> int:
    finished: list[Request] = []

    def note(request: Request) -> None:
        finished.append(request)

    operator.page.on("requestfinished", note)
    operator.page.goto(operator.url)
    expect(operator.page.get_by_label("Token")).to_be_visible()
    operator.page.remove_listener("requestfinished", note)
    # Asked for here and not as they finish: that would still be under way when all is added up, and when the page closes.
    sizes = [request.sizes() for request in finished]
    return sum(size["responseBodySize"] + size["responseHeadersSize"] for size in sizes)


def main(url: str, chromium: str, screenshots: Path, token: str, read_token: str) -> None:
    expect.set_options(timeout=30_000)  # on a busy machine
    faults: list[str] = []
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=chromium, args=["--no-sandbox"])
        desktop = Operator(browser, url, faults, viewport={"width": 1440, "height": 1000})
        page = desktop.page

        size = wire_bytes(desktop)
        assert 0 < size <= WIRE_BYTES_MAX, f"{size} bytes"
        # A wrong token is said to be one, and is not kept.
        page.screenshot(path=screenshots / "locked.png")
        page.get_by_label("Token").fill("guessed")
        page.get_by_label("Token").press("Enter")
        expect(page.locator("#unlock-error")).to_have_text("That is not a token that this gateway knows.")
        page.reload()
        expect(page.get_by_label("Token")).to_be_visible()
        expect(page.locator("#board")).to_be_hidden()

        # Who leads, how everybody is, and what is asked for.
        page = desktop.open(token)
        leader = wish("leader")
        expect(node(page, f"replica {leader}")).to_contain_text("leader")
        expect(page.locator('#map [data-key^="gateway"]')).to_have_count(2)
        expect(page.locator("#map .node")).to_have_count(6)
        expect(page.locator('#map .node[data-state="bad"]')).to_have_count(0)
        expect(page.locator("#alarms-title")).to_have_text(re.compile("All is well|alarm"))
        for _ in range(3):
            wish("trade")
        trades = page.locator('#routes [data-key="trade"] .number')
        expect(trades.first).not_to_have_text("0")
        # What another gateway does counts from when it has first said how it is.
        other = page.locator('#map [data-key^="gateway"]').nth(1)
        expect(other).to_contain_text("ready")
        wish("look up at the other gateway")
        expect(other.locator("dd").first).not_to_have_text(re.compile("^[0–] /s$"), timeout=15_000)
        stock = page.locator('#routes [data-key="stock"] .number')
        page.locator("#of-gateway").select_option(index=2)
        expect(trades.first).to_have_text("0")
        expect(stock.first).not_to_have_text("0")
        page.locator("#of-gateway").select_option(index=0)
        expect(trades.first).not_to_have_text("0")
        # Each trade takes a stock out of the cache that is looked up next, and another one stays in it.
        for ratio in (stock.nth(1), page.locator('#tiles [data-key="hits"] .value')):
            expect(ratio).to_have_text(re.compile(r"^[3-8]\d\.\d %$"))
        for quantile in (4, 5, 6):
            expect(stock.nth(quantile)).to_have_text(re.compile(r"\d [µm]?s$"))
        expect(fact(page, f"replica {leader}", "epoch")).to_have_text(re.compile(r"^\d+$"))
        expect(fact(page, f"replica {leader}", "lag")).to_have_text("0 rows")
        expect(other).to_contain_text("held, of ")
        expect(page.locator("#routes .tag.slow")).to_have_count(1)
        for stage in ("place", "lead", "commit", "queue", "store", "show", "append"):
            expect(page.locator(f'#stages [data-key="{stage}"] b')).to_have_text(re.compile(r"\d [µm]?s$"))
        expect(page.locator("#ledger-table tbody tr")).to_have_count(4)
        expect(page.locator("#ledger-table tbody tr").first).to_contain_text("what counts")
        expect(page.locator("#ledger-table .mark", has_text="the same as the journal")).to_have_count(3)
        wrong = page.evaluate(Path(__file__).with_name("functions.js").read_text())
        assert not wrong, "\n".join(wrong)
        expect(page.locator(LAGGING)).to_contain_text("None")
        expect(page.locator(SLOW)).to_contain_text("one in 100 takes longer")
        expect(page.locator(TAKEN_BACK)).to_contain_text("None was")
        found = page.evaluate(ALARMS)
        wrong = {name: (found[name], expected) for name, expected in EXPECTED.items() if found[name] != expected}
        assert not wrong, wrong
        assert abs(found["median"] - 20e-6) < 1e-9 and found["bounds"] == [1e-5, 10], found
        page.screenshot(path=screenshots / "desktop-light.png", full_page=True)
        painted, shifted = desktop.first_paint_ms(), desktop.shift()

        # A bad policy is rolled back, and the page says why, with the trace.
        wish("push a bad policy")
        expect(page.locator("#alarm-list")).to_contain_text("rolled its policy back by itself")
        change = page.locator(".timeline li").first
        expect(change).to_contain_text("Rolled back")
        expect(change).to_contain_text("by the gateway itself")
        expect(change.locator(".cause")).not_to_be_empty()
        change.get_by_text("Trace").click()
        expect(change.locator("pre").first).to_contain_text("<b>sprung</b> on")
        expect(page.locator(".timeline")).to_contain_text(HOSTILE)
        page.locator("#policy").screenshot(path=screenshots / "rolled-back.png")
        expect(page.locator(TAKEN_BACK)).to_contain_text("by the gateway itself")
        # As a new operator finds it, on a screen that is not large.
        laptop = Operator(browser, url, faults, viewport={"width": 1280, "height": 800})
        small = laptop.open(token)
        for _ in range(2):
            wish("trade")
        expect(small.locator(SLOW)).to_contain_text("one in 100 takes longer")
        expect(small.locator(TAKEN_BACK)).to_contain_text(re.compile(r"failures of .*unreachable"))
        find_at_a_glance(small)
        small.screenshot(path=screenshots / "first-screen.png")
        small.locator(TAKEN_BACK).click()
        expect(small.locator(".timeline li").first).to_be_in_viewport()
        laptop.shift()
        laptop.context.close()

        # Differences, and a candidate that is promoted from the page, with a reason that is asked for.
        wish("shadow")
        for _ in range(2):
            wish("trade")
        expect(page.locator(".differences tbody tr").first).to_contain_text("marked")
        page.get_by_text("Examples", exact=True).click()
        expect(page.locator(".example").first).to_contain_text('x-policy: "marked"')
        page.locator("#policy").screenshot(path=screenshots / "differences.png")
        page.get_by_role("button", name="Promote…").click()
        page.get_by_role("dialog").get_by_role("button", name="Promote").click()
        expect(page.locator("#act-error")).to_contain_text("Say why")
        page.screenshot(path=screenshots / "reason.png")
        page.get_by_label("Why?").fill("für den Test, “so”")
        page.get_by_label("Your name").fill("Ada")
        page.get_by_label("Your name").press("Enter")
        expect(page.locator("#said")).to_have_text("Promote: done.")
        expect(page.locator(".timeline li").first).to_contain_text("für den Test, “so”")
        assert wish("active") == "marked"
        change = json.loads(wish("last change"))
        assert (change["who"], change["why"], change["known_by"]) == ("Ada", "für den Test, “so”", "token"), change
        # What somebody else has changed since the operator looked is not changed again.
        page.get_by_role("button", name="Roll back…").click()
        wish("somebody else activates another")
        page.get_by_label("Why?").fill("it was a test")
        page.get_by_label("Why?").press("Enter")
        expect(page.locator("#act-error")).to_contain_text("Nothing was changed")
        expect(page.locator("#act-error")).to_contain_text("is active by now")
        page.screenshot(path=screenshots / "changed-meanwhile.png")
        page.get_by_role("button", name="Cancel").click()
        assert wish("active") == "traps"
        wish("somebody else puts it back")
        expect(page.locator(".version h3").first).to_contain_text("marked")
        # And back, by the keyboard alone.
        page.get_by_role("button", name="Roll back…").press("Enter")
        page.keyboard.type("it was a test")
        page.keyboard.press("Enter")
        expect(page.locator(".timeline li").first).to_contain_text("it was a test")
        assert wish("active") == "default"

        # Markup is text, wherever a policy or a client put it.
        wish("shadow a hostile one")
        for _ in range(2):
            wish("trade")
        expect(page.locator(".version h3", has_text=HOSTILE)).to_be_visible()
        expect(page.locator(".differences tbody tr", has_text=HOSTILE).first).to_be_visible()
        expect(page.locator("img, main script")).to_have_count(0)

        # A reader sees the same, and has nothing to change it with.
        reader = Operator(browser, url, faults, viewport={"width": 1440, "height": 1000}, color_scheme="dark")
        read = reader.open(read_token)
        expect(read.locator("#right")).to_have_text("read only")
        expect(read.locator(".version h3", has_text=HOSTILE)).to_be_visible()
        expect(read.locator("[data-do]")).to_have_count(0)
        assert page.locator("[data-do]").count() > 0
        # Of another gateway's policy it shows the same, and changes nothing.
        tabs = page.locator("#policy-of .tab")
        tabs.nth(1).click()
        expect(page.locator("#policy-body")).to_contain_text("at that gateway's own console")
        expect(page.locator("[data-do]")).to_have_count(0)
        tabs.nth(0).click()
        expect(page.locator("[data-do]")).not_to_have_count(0)
        for _ in range(2):
            wish("trade")
        read.screenshot(path=screenshots / "desktop-dark.png", full_page=True)

        # What is on trial is dropped, another version rolled out, with the intervals of its verdict, and paused.
        page.get_by_role("button", name="Drop…").click()
        page.get_by_label("Why?").fill("it has markup in it")
        page.get_by_role("dialog").get_by_role("button", name="Drop").click()
        expect(page.locator(".none")).to_be_visible()
        wish("roll out")
        for _ in range(2):
            wish("trade")
        expect(page.locator(".rollout")).to_contain_text("Step 1 of 4")
        expect(page.locator(".measures li")).not_to_have_count(0)
        expect(page.locator(".measures .intervals svg").first).to_be_visible()
        page.get_by_role("button", name="Pause…").click()
        page.get_by_label("Why?").fill("to look at it first")
        page.get_by_label("Why?").press("Enter")
        expect(page.locator(".rollout .tag")).to_have_text("paused")
        expect(page.get_by_role("button", name="Resume…")).to_be_visible()
        expect(page.locator(".timeline li").first).to_contain_text("to look at it first")
        page.locator("#policy").screenshot(path=screenshots / "rollout.png")

        # Where the network is slow an event takes longer to come than a gateway may be silent. Meanwhile all else goes on.
        far = Operator(browser, url, faults, viewport={"width": 390, "height": 844})
        far.page.goto(url)
        devtools = far.context.new_cdp_session(far.page)
        devtools.send("Network.enable")
        devtools.send("Network.emulateNetworkConditions", SLOW_NETWORK)
        far.page.get_by_label("Token").fill(token)
        far.page.get_by_role("button", name="Open the console").click()

        # A phone, in both.
        for scheme in ("light", "dark"):
            phone = Operator(browser, url, faults, viewport={"width": 390, "height": 844}, color_scheme=scheme, device_scale_factor=2)
            small = phone.open(token)
            wish("trade")
            expect(small.locator('#routes [data-key="trade"] .number').first).not_to_have_text("0")
            expect(small.locator(SLOW)).to_contain_text("one in 100 takes longer")
            find_at_a_glance(small)
            small.screenshot(path=screenshots / f"phone-first-screen-{scheme}.png")
            small.screenshot(path=screenshots / f"phone-{scheme}.png", full_page=True)
            wide = small.evaluate("document.documentElement.scrollWidth - innerWidth")
            assert wide <= 0, f"the page is {wide} pixels wider than the phone"
            phone.shift()
            phone.context.close()

        expect(far.page.locator("#map .node")).not_to_have_count(0)
        far.context.close()

        # All trades since the start are there, whichever versions decided about them, of which some are gone.
        page.get_by_text("Since start", exact=True).click()
        expect(trades.first).to_have_text(str(TRADES * wishes.count("trade")))
        page.locator("#lately").click()

        # The leader is killed: the map changes, and the alarms say so.
        killed = wish("kill the leader")
        began = time.monotonic()
        expect(node(page, f"replica {killed}")).to_have_attribute("data-state", "bad")
        expect(node(page, f"replica {killed}")).to_contain_text("does not answer")
        expect(page.locator("#alarm-list")).to_contain_text(f"Replica {killed} does not answer")
        expect(page.locator(LAGGING)).to_contain_text(f"Replica {killed} does not answer")
        expect(page.locator('#map .tag', has_text=re.compile("^leader$"))).to_have_count(1)
        seen_after = time.monotonic() - began
        page.evaluate("scrollTo(0, 0)")
        page.screenshot(path=screenshots / "leader-killed.png", full_page=True)
        assert wish("leader") != killed

        # A gateway is: it was there, and is said to be gone.
        wish("kill a gateway")
        gone = page.locator('#map .node[data-state="off"]')
        expect(gone).to_have_count(1, timeout=20_000)
        expect(gone).to_contain_text("no session any more")

        # The page comes back by itself where its gateway does.
        desktop.page.set_default_timeout(30_000)
        faults_before = len(faults)
        wish("restart the gateway")
        expect(page.locator("#stale")).to_be_visible(timeout=20_000)
        page.screenshot(path=screenshots / "lost.png")
        expect(page.locator("#live")).to_have_text("Live", timeout=60_000)
        expect(page.locator("#stale")).to_be_hidden()

        # While a gateway is away its browser notes what it cannot reach; a refused token, and a refused change, too, are answers that are no success.
        del faults[faults_before:]
        faults = [fault for fault in faults if not any(said in fault for said in ("401 (Unauthorized)", "409 (Conflict)"))]
        assert not faults, "\n".join(faults)
        foreign = [asked for asked in desktop.requested + reader.requested if not asked.startswith((url, "data:"))]
        assert not foreign, foreign
        print(f"{size} bytes, painted after {painted:.0f} ms, layout shift {shifted:.4f}, a killed leader seen after {seen_after:.1f} s", file=sys.stderr)
        browser.close()


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2], Path(sys.argv[3]), sys.argv[4], sys.argv[5])
