"""`feedback-loop demo`, as a newcomer runs it."""

from __future__ import annotations

from contextlib import suppress
from pathlib import Path

import psutil  # type: ignore[import-untyped]  # comes with the embedded server

from tests.support.events import wait_until
from tests.support.processes import Process

REPORT = """\
🧠 AI Feedback Loop Report
- 👍 좋아요: {likes}
- 👎 싫어요: {dislikes}
- 총 피드백: 100
- 부정 비율: {ratio}
- 상태: {status}
- 생성 시각: """


async def test_demo_tells_the_story_whatever_the_environment_says(tmp_path: Path) -> None:
    # It must not touch what the environment names: these would fail at once.
    elsewhere = {
        "DATABASE_URL": "postgresql://nobody@127.0.0.1:1/none",
        "AMQP_URL": "amqp://127.0.0.1:1/",
        "SLACK_WEBHOOK_URL": "http://127.0.0.1:1/",
        "DATA_DIR": str(tmp_path / "data"),
        "TMPDIR": str(tmp_path),
    }
    async with Process("demo", **elsewhere) as demo:
        await wait_until(lambda: demo.process.poll() is not None, 110)
        said = demo.output()
        assert demo.process.returncode == 0, said
    fine = REPORT.format(likes=87, dislikes=13, ratio="13.0%", status="✅ 정상 유지")
    acted = REPORT.format(likes=59, dislikes=41, ratio="41.0%", status="🔁 재임베딩 시작")
    order = [
        "48 documents read",
        '200 {"status": "Feedback loop started"}',
        fine,
        "📊 실시간 Dashboard 보기",
        "Feedback loop started → Slack Report sent",
        "Retrain triggered (ratio=0.41)",
        acted,
        "- 세대: 1 → 2",
        "14일 안에 신청",
        "34 countries",
        "Done.",
    ]
    positions = [said.find(text) for text in order]
    assert -1 not in positions, dict(zip(order, positions, strict=True))
    assert positions == sorted(positions), said
    assert not (tmp_path / "data").exists()
    assert not _left_in(tmp_path), "its folder is left behind"
    assert not [line for line in _command_lines() if str(tmp_path) in line], "its database is left running"


def _left_in(folder: Path) -> list[Path]:
    return list(folder.glob("fl-demo-*"))


def _command_lines() -> list[str]:
    lines = []
    for process in psutil.process_iter():
        with suppress(psutil.Error):
            lines.append(" ".join(process.cmdline()))
    return lines
