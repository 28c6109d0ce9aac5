"""What the notifier's tests publish, and what they look at."""

from __future__ import annotations

import uuid
from datetime import UTC, datetime, timedelta
from typing import Any
from zoneinfo import ZoneInfo

from shared.bus.envelope import Envelope
from shared.events import FeedbackEvaluate, ReportReady, RetrainCompleted, RetrainRequested
from shared.runtime import Runtime
from tests.support.events import wait_until

SEOUL = ZoneInfo("Asia/Seoul")
NINE = datetime(2025, 10, 17, 0, 0, tzinfo=UTC)  # 09:00 in Seoul
URL = "https://loop.example.com"
OWNER_S_REPORT = """\
🧠 AI Feedback Loop Report
- 👍 좋아요: 87
- 👎 싫어요: 13
- 총 피드백: 100
- 부정 비율: 13.0%
- 상태: ✅ 정상 유지
- 생성 시각: 2025-10-17 09:00
<https://loop.example.com|📊 실시간 Dashboard 보기>"""

MARK = "\n(재전송)"


def facts(likes: int = 87, dislikes: int = 13, **more: Any) -> dict[str, Any]:
    total = likes + dislikes
    return {
        "run": uuid.uuid4(),
        "as_of": NINE,
        "window_start": NINE - timedelta(days=1),
        "window_end": NINE,
        "likes": likes,
        "dislikes": dislikes,
        "total": total,
        "ratio": dislikes / total if total else None,
        "interval": None,
        "verdict": "ok",
        "reason": "within_threshold",
        "explanation": "",
        "policy": "wilson",
        "threshold": 0.3,
        **more,
    }


def report(**more: Any) -> ReportReady:
    return ReportReady(**facts(**more))


def a_run() -> Envelope:
    """The event that a run starts with; its id is the run's."""
    return Envelope.root(FeedbackEvaluate(as_of=NINE, requested_by="cron-job.org"), "/feedback-loop/trigger")


def retrain(run: Envelope) -> RetrainRequested:
    return RetrainRequested(**facts(59, 41, verdict="act", run=run.id, retrain=uuid.uuid4()))


def outcome(run: Envelope | None = None, **more: Any) -> RetrainCompleted:
    given = {"outcome": "promoted", "reason": "feedback", "run": run.id if run else None, **more}
    return RetrainCompleted(**given)


async def settled(runtime: Runtime, *envelopes: Envelope, by: str = "notifier") -> None:
    """Wait until the notifier (or its webhook) is done with the events: processed or dead."""

    async def done() -> bool:
        async with runtime.kernel.database.connection() as connection:
            found = await connection.fetchval(
                "select count(*) from feedback_loop.inbox where event_id = any($1::uuid[]) and consumer = $2",
                [envelope.id for envelope in envelopes],
                by,
            )
        return bool(found == len(envelopes))

    await wait_until(done)


async def row_of(runtime: Runtime, key: str) -> dict[str, Any]:
    async with runtime.kernel.database.connection() as connection:
        row = await connection.fetchrow("select * from feedback_loop.notification where key = $1", key)
    assert row is not None
    return dict(row)


async def state_of(runtime: Runtime, envelope: Envelope) -> tuple[str, str | None]:
    async with runtime.kernel.database.connection() as connection:
        row = await connection.fetchrow(
            "select state, reason from feedback_loop.inbox where event_id = $1", envelope.id
        )
    assert row is not None
    return row["state"], row["reason"]
