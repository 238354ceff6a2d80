"""The live page in a real browser: what it shows, who can use it, and what it refuses to do."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from typing import Any, Literal

import pytest
from axe_playwright_python.sync_playwright import Axe
from playwright.sync_api import Browser, BrowserContext, Locator, Page, expect

from bridge.status.page import page as installed_page
from deploy.local.programs import PartError
from tests.conftest import missing
from tests.support.amqp import Reply, Worker
from tests.support.browser import browser, hold_time, look_again
from tests.support.engine import EngineRest
from tests.support.sample_bridge import UNKNOWN_KEY, SampleBridge
from tests.support.snapshots import STORY, Json, snapshot, story, topic, troubled, well
from tests.support.stage import Stage
from tests.support.waiting import eventually

Open = Callable[..., Page]
TRAP = "<img src=x onerror=document.title='trapped'>"
UNKNOWN = "\N{EN DASH}"
SILENT = "The bridge does not answer since"


@pytest.fixture(scope="module")
def chromium() -> Iterator[Browser]:
    try:
        with browser() as started:
            yield started
    except PartError as error:
        missing(error)
        raise


def elsewhere(address: str, home: str) -> list[str]:
    return [] if address.startswith((home, "data:")) else [address]


@pytest.fixture
def visit(chromium: Browser) -> Iterator[Open]:
    """Opens an address.  Whatever the browser complains of, and whatever it asks elsewhere, fails
    the test; `still`: the page looks again when `look_again` tells it to.
    """
    contexts: list[BrowserContext] = []
    wrong: list[str] = []

    def go(url: str, *, still: bool = False, theme: Literal["light", "dark"] = "light") -> Page:
        context = chromium.new_context(color_scheme=theme, timezone_id="UTC")
        contexts.append(context)
        if still:
            hold_time(context)
        page = context.new_page()
        page.on("pageerror", lambda error: wrong.append(f"uncaught: {error}"))
        page.on("console", lambda message: wrong.append(message.text))
        page.on("request", lambda request: wrong.extend(elsewhere(request.url, url)))
        page.goto(url)
        return page

    yield go
    for context in contexts:
        context.close()
    # The browser itself notes an answer that is no success, also one that the page can bear.
    assert [text for text in wrong if "status of 503" not in text] == []


@pytest.fixture
def sample() -> Iterator[SampleBridge]:
    with SampleBridge() as bridge:
        yield bridge


def problems(page: Page) -> Locator:
    return page.get_by_role("region", name="What is wrong now").get_by_role("listitem")


def row(page: Page, name: str) -> Locator:
    heading = page.get_by_role("rowheader").filter(has_text=name)
    return page.get_by_role("row").filter(has=heading)


def said(page: Page) -> Locator:
    """What a screen reader is told without being asked."""
    return page.get_by_role("status")


# -- what is wrong ---------------------------------------------------------------------------


def test_a_well_bridge_has_nothing_wrong(sample: SampleBridge, visit: Open) -> None:
    """An alarm that is always on is none."""
    sample.status = well()

    page = visit(sample.url)

    expect(problems(page)).to_have_text("Nothing that this page can see.")
    expect(page).to_have_title("External Task Bridge · bridge")
    expect(page.locator("#path .mark:visible")).to_have_count(0)
    expect(page.locator(".bad")).to_have_count(0)


TROUBLES: dict[str, tuple[Json, str, str | None]] = {
    "no consumer": (
        snapshot(topic("pay", queue="payments", ready=12, consumers=0)),
        "Queue payments has 12 ready and no consumer: start a worker.",
        "external-task-bridge topics",
    ),
    "no consumer, nothing fetched": (
        snapshot(topic("pay", queue="payments", ready=0, waiting=1, consumers=0)),
        "1 task of topic pay waits in the engine and queue payments has no consumer",
        "external-task-bridge topics",
    ),
    "no attempts left": (
        snapshot(topic("pay", stuck=2)),
        "2 tasks of topic pay have no attempts left.",
        "external-task-bridge incidents --topic pay",
    ),
    "purged": (
        snapshot(topic("pay", queue="payments", consumers=0, unacked=0, oldestSeconds=61.0)),
        "Topic pay: 4 in flight, but queue payments is empty and nobody consumes",
        "external-task-bridge release --topic pay --older-than 0s",
    ),
    "paused": (
        snapshot(
            topic("pay", circuit="open", problem="queue payments is full"),
            problems={"topic pay": "queue payments is full"},
        ),
        "Topic pay is paused: queue payments is full",
        "external-task-bridge check",
    ),
    "results not consumed": (
        snapshot(topic("pay", problem="deleted"), problems={"queue pay.results": "deleted"}),
        "Topic pay: deleted",
        "external-task-bridge check",
    ),
    "engine": (
        snapshot(engine={"url": "http://e", "problem": "connection refused"}, ready=False),
        "The engine cannot be used: connection refused",
        "external-task-bridge check",
    ),
    "publisher": (
        snapshot(publisher={"problem": "blocked by RabbitMQ"}),
        "RabbitMQ takes no messages: blocked by RabbitMQ",
        "external-task-bridge check",
    ),
    "consumer": (
        snapshot(consumer={"problem": "no connection"}, problems={"consumer": "no connection"}),
        "RabbitMQ gives no results: no connection",
        "external-task-bridge check",
    ),
    "another part": (
        snapshot(problems={"topology": "exchange bridge.dead differs"}),
        "topology: exchange bridge.dead differs",
        "external-task-bridge check",
    ),
    "parked": (
        snapshot(parked=3),
        "3 messages lie parked: nobody could apply them.",
        "external-task-bridge parked list",
    ),
    "late": (
        snapshot(topic("pay", lockMarginSeconds=-1.5)),
        "Locks of topic pay are renewed late: one has lapsed.",
        "external-task-bridge check",
    ),
}


@pytest.mark.parametrize("kind", TROUBLES)
def test_a_trouble_is_named_with_the_command_that_helps(
    sample: SampleBridge, visit: Open, kind: str
) -> None:
    """The operator at night reads one sentence, and it is said once."""
    sample.status, text, command = TROUBLES[kind]

    page = visit(sample.url)

    expect(problems(page)).to_have_count(1)
    expect(problems(page)).to_contain_text(text)
    expect(problems(page)).to_contain_text("trouble")
    expect(problems(page).locator("code")).to_have_text(command or "")
    expect(page).to_have_title("(1) External Task Bridge · bridge")


@pytest.mark.parametrize(
    ("status", "text"),
    [
        (snapshot(waitingResults=1), "1 result waits to be tried again"),
        (snapshot(topic("pay", inFlight=10, capacity=10, waiting=7)), "Topic pay is full: 10 in"),
        (snapshot(topic("pay", oldestSeconds=7300.0)), "topic pay has had no answer for 2 h"),
    ],
)
def test_what_may_be_as_it_should_is_a_note(
    sample: SampleBridge, visit: Open, status: Json, text: str
) -> None:
    """Slow work and a busy day are no trouble: red is kept for that."""
    sample.status = status

    page = visit(sample.url)

    expect(problems(page)).to_contain_text(text)
    expect(problems(page)).to_contain_text("note")
    expect(page).to_have_title("External Task Bridge · bridge")


def test_new_incidents_are_told_while_they_are_new(sample: SampleBridge, visit: Open) -> None:
    """The count since the start says nothing of now."""
    sample.status = snapshot(topic("pay", events={"incident": 7}))
    page = visit(sample.url, still=True)
    expect(problems(page)).to_have_text("Nothing that this page can see.")

    sample.grows = {"pay": {"incident": 1}}
    look_again(page, 2)

    expect(problems(page)).to_contain_text("Topic pay: 1 new incident in the last")
    expect(problems(page).locator("code")).to_have_text(
        "external-task-bridge incidents --topic pay"
    )
    sample.grows = {}
    look_again(page)
    sample.status["uptimeSeconds"] += 120
    look_again(page)
    expect(problems(page)).to_have_text("Nothing that this page can see.")


def test_a_bridge_that_does_not_answer_is_told_and_its_return_too(
    sample: SampleBridge, visit: Open
) -> None:
    """Numbers that stand still look like peace."""
    page = visit(sample.url, still=True)
    expect(row(page, "demo-worker")).to_be_visible()

    sample.broken = "stopping"
    look_again(page)

    expect(problems(page)).to_contain_text(SILENT)
    expect(problems(page)).to_contain_text("stopping")
    expect(page.locator("#who")).to_contain_text("no answer")
    expect(row(page, "demo-worker")).to_be_visible()
    sample.broken = None
    look_again(page)
    expect(problems(page)).to_have_text("Nothing that this page can see.")
    expect(page.locator("#who")).to_contain_text("ready")


def test_a_bridge_that_has_never_answered_is_told(sample: SampleBridge, visit: Open) -> None:
    """A page without numbers must not look like one of zeros."""
    sample.broken = "starting"

    page = visit(sample.url)

    expect(problems(page)).to_contain_text(SILENT)
    expect(page.locator("#n-waiting")).to_have_text(UNKNOWN)


# -- numbers ---------------------------------------------------------------------------------


def test_the_path_carries_the_sums_of_all_topics(sample: SampleBridge, visit: Open) -> None:
    """One look says where the tasks are."""
    sample.status = snapshot(
        topic("a", waiting=1000, ready=30, unacked=5, consumers=2, inFlight=35, capacity=100),
        topic("b", waiting=204, ready=None, unacked=None, consumers=1, oldestSeconds=130.0),
        parked=2,
    )
    sample.grows = {"a": {"fetched": 6, "completed": 4, "failed": 1}, "b": {"bpmn_error": 2}}

    page = visit(sample.url, still=True)
    look_again(page)

    shown = {
        "waiting": "1,204",
        "ready": "30",
        "unacked": "5",
        "consumers": "3",
        "flight": "39 of 1,100 in flight, oldest 2 min",
        "fetched": "3.0 / s",
        "done": "3.0 / s done",
        "errors": "0.5 / s errors",
        "parked": "2 parked",
    }
    for name, text in shown.items():
        expect(page.locator(f"#n-{name}")).to_have_text(text)
    expect(page.get_by_role("img", name="In the engine 1,204 tasks wait; 3.0 / s")).to_be_visible()


def test_a_row_tells_all_of_its_topic(sample: SampleBridge, visit: Open) -> None:
    """Errors by their kind, done as a line with a text beside it for who cannot see it."""
    events = {"completed": 50, "failed": 2, "deadline_missed": 1, "incident": 1, "parked": 2}
    sample.status = snapshot(
        topic("pay", queue="payments", waiting=7, ready=6, unacked=None, events=events)
    )
    sample.grows = {"pay": {"completed": 3, "bpmn_error": 1}}

    page = visit(sample.url, still=True)
    look_again(page, 3)

    expect(row(page, "pay").get_by_role("rowheader")).to_contain_text("queue payments")
    kinds = "2 failed, 1 unanswered, 1 incident"
    cells = row(page, "pay").get_by_role("cell")
    expect(cells).to_have_text(
        ["7", "6", UNKNOWN, "2", "4 / 1,000", "2 s", "2.0", f"4{kinds}", "flowing"]
    )
    line = "done per second in the last two minutes: now 2.0, at most 2.0"
    expect(row(page, "pay").get_by_role("img", name=line)).to_be_visible()


def test_a_restarted_bridge_begins_at_nothing(sample: SampleBridge, visit: Open) -> None:
    """Its counts begin anew: a rate below zero, or a giant one, would be nonsense."""
    sample.status = snapshot(topic("pay", events={"completed": 5000}))
    sample.grows = {"pay": {"completed": 10}}
    page = visit(sample.url, still=True)
    look_again(page, 2)
    expect(row(page, "pay").locator("td.rate")).to_have_text("5.0")

    sample.status["uptimeSeconds"] = 1.0
    sample.status["topics"][0]["events"] = {}
    look_again(page)
    expect(row(page, "pay").locator("td.rate")).to_have_text(UNKNOWN)
    look_again(page)

    expect(row(page, "pay").locator("td.rate")).to_have_text("5.0")


def test_a_topic_that_comes_or_goes_changes_the_rows(sample: SampleBridge, visit: Open) -> None:
    """Settings are loaded anew without a restart."""
    page = visit(sample.url, still=True)
    expect(row(page, "demo-worker")).to_be_visible()

    sample.status["topics"] = [topic("fresh")]
    look_again(page)

    expect(row(page, "fresh")).to_be_visible()
    expect(row(page, "demo-worker")).to_have_count(0)


def test_a_hidden_tab_asks_nothing(sample: SampleBridge, visit: Open) -> None:
    """A forgotten tab must not keep the bridge counting queues for ever."""
    page = visit(sample.url, still=True)
    expect(row(page, "demo-worker")).to_be_visible()
    look_again(page)

    hide(page, hidden=True)
    before = sample.looks
    page.evaluate("next()")
    assert page.evaluate("looking") is False
    assert sample.looks == before

    hide(page, hidden=False)
    eventually(lambda: sample.looks > before)


def hide(page: Page, *, hidden: bool) -> None:
    """What the browser does when another tab comes to the front."""
    page.evaluate(
        "value => { Object.defineProperty(document, 'hidden', {value, configurable: true});"
        " document.dispatchEvent(new Event('visibilitychange')); }",
        hidden,
    )


# -- the story of a task ---------------------------------------------------------------------


def ask(page: Page, key: str) -> Locator:
    page.get_by_label("Why is it stuck?").fill(key)
    page.get_by_role("button", name="Ask", exact=True).click()
    return page.get_by_role("region", name=f"Why: {key}")


def test_a_search_tells_the_story_of_a_task(sample: SampleBridge, visit: Open) -> None:
    """What it waits for, the command that helps, and every fact in order of time."""
    sample.stories[STORY["key"]] = STORY
    page = visit(sample.url)

    answer = ask(page, STORY["key"])

    expect(answer.get_by_role("heading", level=3)).to_contain_text("payment-processing: failed")
    expect(answer).to_contain_text("Waits for an operator: no retries left, incident: card")
    expect(answer.locator("code")).to_have_text(f"external-task-bridge retry {STORY['key']}")
    facts = answer.get_by_role("listitem")
    expect(facts).to_have_count(7)
    expect(facts.nth(0)).to_have_text(
        "2026-11-21 09:41:07enginecreated for topic payment-processing of process payment"
    )
    expect(facts.nth(4)).to_have_text(
        "nowenginean incident, no retries left: card service timed out"
    )
    page.reload()  # the address keeps the question: it can be sent to a colleague
    expect(facts).to_have_count(7)


def test_an_unknown_key_is_said_to_be_unknown(sample: SampleBridge, visit: Open) -> None:
    """A typing error must not look like a healthy task."""
    page = visit(sample.url)

    expect(ask(page, "no/such?key&#")).to_contain_text(UNKNOWN_KEY)


def test_a_search_that_cannot_be_answered_says_why(sample: SampleBridge, visit: Open) -> None:
    """The engine may be away just when it is asked for."""
    page = visit(sample.url)
    expect(row(page, "demo-worker")).to_be_visible()
    sample.broken = "the engine cannot be reached"

    expect(ask(page, "4711")).to_contain_text("the engine cannot be reached")


def test_from_a_topic_to_its_oldest_task_to_its_story(sample: SampleBridge, visit: Open) -> None:
    """The way that an operator takes who sees an old task in the table."""
    held = {"taskId": "t-1", "topic": "demo-worker", "retries": None, "seconds": 500.0}
    times = {"confirmed": True, "leased": True, "lockSecondsLeft": 400.0}
    sample.tasks["demo-worker"] = [{**held, **times, "deadlineSecondsLeft": 80_000.0}]
    sample.stories["t-1"] = story("t-1")
    page = visit(sample.url)

    row(page, "demo-worker").get_by_role("button").click()
    task = page.get_by_role("region", name="Tasks of demo-worker in flight")
    expect(task.get_by_role("row").nth(1)).to_have_text(
        f"t-1: why?{UNKNOWN}8 min agoleased6 min22 h"
    )
    task.get_by_role("button", name="t-1").click()

    expect(page.get_by_role("region", name="Why: t-1")).to_contain_text("Task t-1 of topic")


# -- for everybody ---------------------------------------------------------------------------


@pytest.mark.parametrize("theme", ["light", "dark"])
def test_axe_finds_nothing(
    sample: SampleBridge, visit: Open, theme: Literal["light", "dark"]
) -> None:
    """Names, roles, landmarks, contrast: with trouble, an answer and a list of tasks in sight."""
    sample.status = troubled()
    sample.stories["t-1"] = story("t-1", *STORY["tasks"][0]["facts"])
    sample.tasks["transcodeVideo"] = [
        {"taskId": "t-1", "retries": 2, "seconds": 5.0, "confirmed": False, "leased": False,
         "lockSecondsLeft": 50.0, "deadlineSecondsLeft": 80_000.0}
    ]  # fmt: skip
    page = visit(sample.url, theme=theme)
    row(page, "transcodeVideo").get_by_role("button").click()
    expect(page.get_by_role("button", name="t-1")).to_be_visible()
    expect(ask(page, "t-1").get_by_role("listitem")).to_have_count(7)

    found = Axe().run(page).response

    told = [(rule["id"], [node["html"] for node in rule["nodes"]]) for rule in found["violations"]]
    assert told == []
    assert len(found["passes"]) > 20


def focused(page: Page) -> str:
    return str(page.evaluate("document.activeElement.textContent || document.activeElement.id"))


def test_everything_is_reached_by_tab_and_seen_to_be(sample: SampleBridge, visit: Open) -> None:
    """In the order in which it stands there, with a ring around it."""
    sample.status = snapshot(topic("a"), topic("b"))
    page = visit(sample.url)
    expect(row(page, "b")).to_be_visible()
    controls = page.locator("a:visible, button:visible, input:visible, .scroll:visible")
    wanted = controls.evaluate_all("all => all.map(one => one.textContent || one.id)")

    reached = []
    for _ in wanted:
        page.keyboard.press("Tab")
        reached.append(focused(page))
        ring = page.evaluate("getComputedStyle(document.activeElement).outlineStyle")
        assert ring != "none", reached[-1]

    assert len(wanted) == 17
    assert reached == wanted


def test_a_slash_leads_to_the_search_and_enter_to_the_answer(
    sample: SampleBridge, visit: Open
) -> None:
    """The focus goes where the news is, and back when it is closed."""
    sample.stories["4711"] = story("4711")
    page = visit(sample.url)
    expect(row(page, "demo-worker")).to_be_visible()

    page.keyboard.press("/")
    page.keyboard.type("4711")
    page.keyboard.press("Enter")

    expect(page.get_by_role("heading", name="Why: 4711")).to_be_focused()
    page.keyboard.press("Tab")
    expect(page.get_by_role("button", name="Close")).to_be_focused()
    page.keyboard.press("Enter")
    expect(page.get_by_label("Why is it stuck?")).to_be_focused()
    expect(page.get_by_role("region", name="Why: 4711")).to_have_count(0)
    page.keyboard.type("/")
    expect(page.get_by_label("Why is it stuck?")).to_have_value("4711/")


def test_headings_sort_by_key_and_say_how(sample: SampleBridge, visit: Open) -> None:
    """The largest first, what is not known last; the focus stays through the next look."""
    sample.status = snapshot(
        topic("a", waiting=3), topic("b", waiting=None), topic("c", waiting=20)
    )
    page = visit(sample.url, still=True)
    names = page.locator("tbody th button")
    expect(names).to_contain_text(["a", "b", "c"])
    heading = page.get_by_role("columnheader", name="Waiting")

    heading.get_by_role("button").focus()
    page.keyboard.press("Enter")
    expect(names).to_contain_text(["c", "a", "b"])
    expect(heading).to_have_attribute("aria-sort", "descending")
    page.keyboard.press("Enter")
    expect(names).to_contain_text(["a", "c", "b"])
    expect(heading).to_have_attribute("aria-sort", "ascending")
    expect(page.locator("[aria-sort]")).to_have_count(1)

    names.nth(1).focus()
    sample.status["topics"][0]["waiting"] = 30
    look_again(page)
    expect(names).to_contain_text(["c", "a", "b"])
    expect(names.nth(0)).to_be_focused()


def test_a_screen_reader_hears_of_news_alone(sample: SampleBridge, visit: Open) -> None:
    """Numbers change with every look: who reads them aloud each time is switched off."""
    page = visit(sample.url, still=True)
    expect(said(page)).to_have_text("Nothing is wrong now.")
    page.evaluate(
        "window.heard = []; new MutationObserver(() => heard.push(say.textContent))"
        ".observe(say, {childList: true, subtree: true, characterData: true})"
    )

    sample.status["topics"][0].update(ready=12, consumers=0)
    look_again(page)
    expect(problems(page)).to_contain_text("12 ready")
    sample.status["topics"][0].update(ready=13)
    look_again(page)
    expect(problems(page)).to_contain_text("13 ready")
    sample.status["parked"] = 1
    look_again(page)
    expect(problems(page)).to_have_count(2)
    sample.status["topics"][0].update(ready=0, consumers=1)
    sample.status["parked"] = 0
    look_again(page)
    expect(problems(page)).to_have_text("Nothing that this page can see.")

    worker = "Queue demo-worker has 12 ready and no consumer: start a worker."
    parked = "1 message lies parked: nobody could apply it."
    assert page.evaluate("heard") == [worker, parked, "Nothing is wrong now."]
    assert page.locator("[aria-live], [role=alert], [role=log]").count() == 0


# -- what it refuses to do -------------------------------------------------------------------


def test_whatever_the_bridge_tells_is_text(sample: SampleBridge, visit: Open) -> None:
    """Topic names, ids and an engine's messages come from others: none may become a page."""
    sample.status = snapshot(topic(TRAP, queue=TRAP, circuit="open", problem=TRAP), workerId=TRAP)
    sample.stories[TRAP] = story(
        TRAP, {"at": TRAP, "source": TRAP, "text": TRAP}, topic=TRAP, state=TRAP, command=TRAP
    )
    page = visit(sample.url)

    expect(ask(page, TRAP).get_by_role("listitem")).to_have_text(TRAP * 3)

    expect(row(page, TRAP)).to_be_visible()
    expect(problems(page)).to_contain_text(TRAP)
    assert page.locator("img").count() == 0
    assert "trapped" not in page.title().split(TRAP)


def test_the_page_is_one_small_file(chromium: Browser) -> None:
    """Nothing to build, nothing to fetch: it works where the internet does not."""
    body = installed_page().body
    context = chromium.new_context(offline=True)
    page = context.new_page()
    page.set_content(body.decode())

    assert len(body) < 60_000
    assert page.locator("[src], link:not([href^='data:']), iframe, [style]").count() == 0
    expect(problems(page)).to_contain_text(SILENT)
    context.close()


def test_a_missing_browser_is_named_with_its_cure(monkeypatch: pytest.MonkeyPatch) -> None:
    """It fails continuous integration and skips on a laptop, as every part that is missing."""
    monkeypatch.setenv("PATH", "")

    with pytest.raises(PartError, match=r"apt-get install .* chromium"), browser():
        pass


# -- a real bridge ---------------------------------------------------------------------------


@pytest.fixture(scope="module")
def stage(engine: EngineRest, shared_amqp_url: str) -> Iterator[Stage]:
    topics: dict[str, dict[str, Any]] = {"seen": {}, "lonely": {}}
    with Stage(engine, shared_amqp_url, topics) as stage:
        yield stage


def test_a_sample_has_what_a_real_bridge_tells(stage: Stage, visit: Open) -> None:
    """The tests above are worth what their samples are."""
    page = visit(f"{stage.bridge.status_url()}/")
    told = page.evaluate("fetch('status.json').then(answer => answer.json())")

    def keys(status: Json) -> tuple[set[str], set[str]]:
        return set(status), {key for topic in status["topics"] for key in topic}

    assert keys(json.loads(json.dumps(well()))) == keys(told)


def test_the_page_of_a_real_bridge_follows_its_work(stage: Stage, visit: Open) -> None:
    """From the engine's and the broker's own numbers to the sentence that helps."""
    page = visit(f"{stage.bridge.status_url()}/")
    lonely, seen = stage.names["lonely"], stage.names["seen"]
    expect(row(page, seen).locator("td.flight")).to_have_text("0 / 1,000")

    stuck = stage.begin("lonely")
    expect(problems(page).filter(has_text=lonely)).to_have_text(
        f"troubleQueue {lonely} has 1 ready and no consumer: start a worker."
        "external-task-bridge topics"
    )
    expect(row(page, lonely).locator("td.flight")).to_have_text("1 / 1,000")
    expect(row(page, lonely).locator("td.consumers")).to_have_text("none")
    with Worker(stage.url, seen, lambda _: Reply({})):
        stage.begin("seen").end()
    eventually(lambda: stage.count("seen", "completed") == 1)

    row(page, lonely).get_by_role("button").click()
    task = stuck.task()
    assert task is not None
    page.get_by_role("button", name=task["id"]).click()
    answer = page.get_by_role("region", name=f"Why: {task['id']}")
    expect(answer.get_by_role("article")).to_contain_text(
        f"Waits for a consumer: queue {lonely} has 1 ready"
    )
    expect(answer.locator("time").first).to_be_visible()
    with Worker(stage.url, lonely, lambda _: Reply({})):
        stuck.end()
        expect(problems(page)).to_have_text("Nothing that this page can see.")
