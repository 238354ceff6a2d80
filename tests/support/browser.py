"""A real browser without a screen: the system's Chromium.  Downloads none."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager

from playwright.sync_api import Browser, BrowserContext, Error, Page, expect, sync_playwright

from deploy.local.programs import PartError
from deploy.local.system import TOOLCHAINS, install_command
from tests.support.waiting import eventually

PATIENCE_MS = 30_000


@contextmanager
def browser() -> Iterator[Browser]:
    """The browser, until the block ends; every `expect` waits for up to half a minute.

    PartError with the cure where there is none, or where it does not start.
    """
    program = shutil.which("chromium")
    if program is None:
        raise PartError(f"no Chromium: {install_command((TOOLCHAINS['chromium'],))}")
    expect.set_options(timeout=PATIENCE_MS)
    with sync_playwright() as playwright:
        try:
            # Without its sandbox as root only: there it refuses to start with one.
            started = playwright.chromium.launch(
                executable_path=program, chromium_sandbox=os.geteuid() != 0, timeout=PATIENCE_MS * 2
            )
        except Error as error:
            raise PartError(f"Chromium does not start: {error.message}") from error
        yield started
        started.close()


def hold_time(context: BrowserContext) -> None:
    """Let no timer of the context's pages run out, but by `look_again`."""
    context.add_init_script("window.setTimeout = (next) => { window.next = next; return 1; }")


def look_again(page: Page, times: int = 1) -> None:
    """Let the live page look at its bridge; when this returns, it has drawn what it saw."""
    for _ in range(times):
        _wait_for_timer(page)
        page.evaluate("() => { const next = window.next; window.next = null; next(); }")
        _wait_for_timer(page)


def _wait_for_timer(page: Page) -> None:
    eventually(
        lambda: page.evaluate("!!window.next"), PATIENCE_MS / 1000, what="the page has drawn"
    )
