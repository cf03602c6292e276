"""Background tasks end, also where a cancellation got lost."""

from __future__ import annotations

import asyncio

from portal.inference.ending import end_all


async def test_a_task_that_lost_its_cancellation_is_ended() -> None:
    lost = 0

    async def goes_on() -> None:
        nonlocal lost
        while True:
            try:
                await asyncio.sleep(3600)
            except asyncio.CancelledError:
                lost += 1
                if lost > 1:
                    raise

    async def ends_badly() -> None:
        raise ValueError

    stubborn, failed = asyncio.create_task(goes_on()), asyncio.create_task(ends_badly())
    await asyncio.sleep(0)
    await end_all([stubborn, failed])
    assert stubborn.cancelled()
    assert lost == 2
    assert isinstance(failed.exception(), ValueError)


async def test_nothing_to_end() -> None:
    await end_all([])
