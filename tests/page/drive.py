"""Uses the front page as people do, in a headless Chromium: drive.py URL CHROMIUM SCREENSHOTS.

Ends with an error where something is not as it should be. What the browser refuses by the page's policy, and what the
page's script fails at, counts."""

import sys
from pathlib import Path

from playwright.sync_api import Page, expect, sync_playwright

HOSTILE = "<img src=x onerror=alert(1)>"


def watched(context, faults: list[str]) -> Page:
    page = context.new_page()
    page.on("pageerror", lambda error: faults.append(f"script: {error}"))
    page.on("console", lambda said: said.type == "error" and faults.append(f"console: {said.text}"))
    page.on("dialog", lambda dialog: faults.append(f"dialog: {dialog.message}"))
    return page


def shares(page: Page, name: str):
    return page.locator("#rows tr", has=page.get_by_role("rowheader", name=name, exact=True)).locator("td").nth(1)


def trade(page: Page, name: str, label: str, quantity: str) -> None:
    page.get_by_role("button", name=f"{label} {name}", exact=True).click()
    page.get_by_label("Shares").fill(quantity)
    page.get_by_role("dialog").get_by_role("button", name=label, exact=True).click()


def main(url: str, chromium: str, screenshots: Path) -> None:
    faults: list[str] = []
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=chromium, args=["--no-sandbox"])
        context = browser.new_context(viewport={"width": 1280, "height": 900}, locale="en-GB")
        requested: set[str] = set()
        context.on("request", lambda request: requested.add(request.url))
        page, other = watched(context, faults), watched(context, faults)
        for window in (page, other):
            window.goto(url)
            expect(window.locator("#live")).to_have_text("Live")
            expect(shares(window, "nvidia")).to_have_text("1,000")

        # What one buys, the other sees.
        trade(page, "nvidia", "Buy", "10")
        expect(page.locator("#said")).to_contain_text("Bought 10 nvidia: order no. 0")
        for window in (page, other):
            expect(shares(window, "nvidia")).to_have_text("990")
            expect(window.locator("#latest li").first).to_contain_text("10 nvidia")
        expect(page.locator("#mine li")).to_have_count(1)
        page.screenshot(path=screenshots / "desktop.png", full_page=True)

        # By the keyboard alone.
        page.get_by_label("Search").fill("ama")
        expect(page.locator("#rows tr")).to_have_count(1)
        page.get_by_role("button", name="Sell amazon").press("Enter")
        page.get_by_label("Shares").fill("5")
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
        page.get_by_label("Search").fill("nobody")
        expect(page.locator("#more")).to_have_text("No stock has “nobody” in its name.")
        page.get_by_label("Search").fill("")

        # A name is text, whatever is in it.
        expect(page.get_by_role("rowheader", name=HOSTILE, exact=True)).to_be_visible()
        trade(page, HOSTILE, "Buy", "1")
        expect(shares(other, HOSTILE)).to_have_text("99")
        expect(other.locator("#latest li").first).to_contain_text(f"1 {HOSTILE}")

        # One's own orders are there again, and the reference is what the server says.
        page.reload()
        expect(page.locator("#mine li")).to_have_count(3)
        page.get_by_text("For programs").click()
        expect(page.locator("#operations")).to_contain_text("/orders/{number}")
        page.get_by_role("button", name="Forget them").click()
        expect(page.locator("#mine li")).to_have_count(0)

        # On a phone, in the dark.
        phone = browser.new_context(viewport={"width": 360, "height": 740}, color_scheme="dark", locale="en-GB")
        small = watched(phone, faults)
        small.goto(url)
        expect(shares(small, "nvidia")).to_have_text("990")
        small.screenshot(path=screenshots / "phone.png", full_page=True)
        wide = small.evaluate("document.documentElement.scrollWidth - innerWidth")
        assert wide <= 0, f"the page is {wide} pixels wider than the phone"
        small.get_by_role("button", name="Buy nvidia").click()
        small.screenshot(path=screenshots / "phone-trade.png")

        # A refusal is an answer that is no success, which browsers note.
        faults = [fault for fault in faults if "404 (Not Found)" not in fault]
        assert not faults, "\n".join(faults)
        foreign = [asked for asked in requested if not asked.startswith((url, "data:"))]
        assert not foreign, foreign
        browser.close()


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2], Path(sys.argv[3]))
