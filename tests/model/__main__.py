"""`python -m tests.model`: search every world and say what was found.

With the name of a rule: the protocol without it, and the shortest way to what then breaks.  With
the name of a world: that one only.  With `--deep`: the large worlds too, which takes minutes.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Sequence

from tests.model.search import Search
from tests.model.variants import VARIANTS
from tests.model.worlds import DEEP_WORLDS, WORLDS


def main(arguments: Sequence[str]) -> int:
    """Exit code 0 if every world holds (or the variant breaks as foretold), else 1."""
    names = [argument for argument in arguments if argument != "--deep"]
    worlds = [*WORLDS, *(DEEP_WORLDS if "--deep" in arguments or names else ())]
    chosen = [world for world in worlds if not names or world.name in names]
    variants = [variant for variant in VARIANTS if variant.without in names]
    if not chosen and not variants:
        return _usage()
    failed = False
    for world in chosen:
        began = time.monotonic()
        found = Search(world).run()
        _say(f"{world.name} ({time.monotonic() - began:.1f} s)\n{found}")
        failed |= bool(found.breach)
    for variant in variants:
        found = Search(variant.world, variant.rules, beyond=variant.beyond).run()
        _say(f"without the rule {variant.without}\n{found}")
        failed |= found.breach != variant.breach
    return int(failed)


def _usage() -> int:
    rules = dict.fromkeys(variant.without for variant in VARIANTS)
    worlds = [world.name for world in (*WORLDS, *DEEP_WORLDS)]
    _say("\n  ".join(["no such rule or world; the rules are", *rules]))
    _say("\n  ".join(["the worlds are", *worlds]))
    return 2


def _say(text: str) -> None:
    sys.stdout.write(text + "\n")
    sys.stdout.flush()


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
