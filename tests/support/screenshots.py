"""The pictures of the live page in the README, taken with made-up bridges.  `make screenshots`."""

from __future__ import annotations

import argparse
import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from playwright.sync_api import Browser, Page, ViewportSize

from tests.support.browser import browser, hold_time, look_again
from tests.support.sample_bridge import SampleBridge
from tests.support.snapshots import STORY, Json, troubled, well

FOLDER = Path(__file__).parents[2] / "deploy" / "screenshots"
LOOKS = 60  # fills the sparklines
SIZE: ViewportSize = {"width": 1180, "height": 640}


@dataclass(frozen=True)
class Picture:
    """One file, and what is seen in it."""

    name: str
    status: Json
    theme: Literal["light", "dark"]
    key: str | None = None


def pictures() -> tuple[Picture, ...]:
    """What the README shows."""
    story = STORY["tasks"][0]["taskId"]
    return (
        Picture("page-light", well(), "light"),
        Picture("page-dark", well(), "dark"),
        Picture("page-trouble", troubled(), "light"),
        Picture("page-why", troubled(), "dark", key=story),
    )


def take(folder: Path) -> Iterator[Path]:
    """Write the pictures into the folder; gives each file when it is there."""
    folder.mkdir(parents=True, exist_ok=True)
    with browser() as chromium:
        for picture in pictures():
            yield _take(chromium, picture, folder)


def _take(chromium: Browser, picture: Picture, folder: Path) -> Path:
    file = folder / f"{picture.name}.png"
    with (
        SampleBridge(picture.status) as bridge,
        chromium.new_context(
            color_scheme=picture.theme, viewport=SIZE, timezone_id="UTC"
        ) as context,
    ):
        bridge.stories[STORY["key"]] = STORY
        hold_time(context)
        page = context.new_page()
        bridge.grows = _growth(0, bridge.status)
        page.goto(bridge.url)
        _pass_time(page, bridge)
        if picture.key is not None:
            page.get_by_label("Why is it stuck?").fill(picture.key)
            page.get_by_role("button", name="Ask", exact=True).click()
            page.get_by_role("article").wait_for()
            page.locator("#answer").screenshot(path=file)
        else:
            page.screenshot(path=file, full_page=True)
    return file


def _pass_time(page: Page, bridge: SampleBridge) -> None:
    for look in range(LOOKS):
        bridge.grows = _growth(look, bridge.status)
        look_again(page)


def _growth(look: int, status: Json) -> Mapping[str, Mapping[str, int]]:
    """Some life for the lines: a wave each, of its own length."""

    def wave(mean: float, swing: float, period: float) -> int:
        return round(mean + swing * math.sin(look / period) + swing / 3 * math.sin(look * 1.9))

    payments, credit = wave(84, 14, 5), wave(17, 5, 3)
    lives = {
        "payment-processing": {
            "fetched": payments,
            "completed": payments,
            "failed": look % 29 == 7,
        },
        "creditScoreChecker": {"fetched": credit, "completed": credit},
        "transcodeVideo": {"completed": int(look % 11 in {3, 4})},
    }
    still = {t["name"] for t in status["topics"] if not t["consumers"] or t["problem"]}
    return {name: life for name, life in lives.items() if look < LOOKS / 2 or name not in still}


def main() -> None:
    """`python -m tests.support.screenshots [--folder deploy/screenshots]`."""
    parser = argparse.ArgumentParser(prog="tests.support.screenshots", description=__doc__)
    parser.add_argument("--folder", type=Path, default=FOLDER)
    for file in take(parser.parse_args().folder):
        print(f"{file}: {file.stat().st_size // 1024} kB")  # noqa: T201


if __name__ == "__main__":
    main()
