"""Writes the configuration table of both READMEs from `shared/settings.py`.

    python scripts/config_table.py            writes it between the markers
    python scripts/config_table.py --check    says which README is out of date, and exits with 1

The groups and the order are those of `.env.example`, which a test holds against the settings too. The
Korean words are kept here, under the English ones: a description that changes asks for a new translation.
"""

from __future__ import annotations

import re
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Literal, get_args, get_origin

from pydantic.fields import FieldInfo

from shared.settings import Settings

ROOT = Path(__file__).parents[1]
START, END = "<!-- configuration: start -->", "<!-- configuration: end -->"
READMES = {"README.md": "en", "README.ko.md": "ko"}

KOREAN = {
    # The head and the groups
    "Variable": "변수",
    "Default": "기본값",
    "Meaning": "뜻",
    "One of": "선택지",
    "Where it runs": "실행 환경",
    "Trigger": "트리거",
    "Access": "접근 권한",
    "Mirror": "미러링",
    "Decision": "판정",
    "Report": "보고서",
    "Slack": "Slack",
    "Webhook": "웹훅",
    "Knowledge": "지식 베이스",
    # The descriptions
    "HTTP port to listen on (0: any free port)": "HTTP 포트 (0: 비어 있는 아무 포트)",
    "Address to listen on": "수신 대기할 주소",
    "PostgreSQL with pgvector; not set: an embedded PostgreSQL 18 in `DATA_DIR`": (
        "pgvector가 있는 PostgreSQL. 비워 두면 `DATA_DIR`에 내장 PostgreSQL 18을 띄웁니다"
    ),
    "Most connections one process opens to PostgreSQL": "프로세스 하나가 PostgreSQL에 여는 최대 연결 수",
    "RabbitMQ (`amqp://` or `amqps://`); not set: the bus within one process. `${NAME}` in it, as in"
    " `DATABASE_URL`, stands for another variable": (
        "RabbitMQ 주소(`amqp://` 또는 `amqps://`). 비워 두면 프로세스 안의 버스를 씁니다."
        " `DATABASE_URL`에서처럼 `${NAME}`은 다른 환경 변수의 값으로 채웁니다"
    ),
    "Kind of RabbitMQ queue to declare": "선언할 RabbitMQ 큐의 종류",
    "Topic exchange, and the prefix of every queue's name": "토픽 익스체인지 이름이자 모든 큐 이름의 접두사",
    "`0`: the user of `AMQP_URL` may not declare queues; `doctor --fix` has made them": (
        "`0`: `AMQP_URL`의 사용자는 큐를 선언할 수 없습니다. `doctor --fix`가 만들어 둡니다"
    ),
    "RabbitMQ's HTTP API with an administrator's user and password, for `doctor --fix` alone": (
        "관리자 계정이 든 RabbitMQ HTTP API 주소. `doctor --fix`만 씁니다"
    ),
    "Passwords of the services' own users, such as `trigger=…,collector=…`, for `migrate --roles` and"
    " `doctor --fix` alone": (
        "서비스별 사용자의 비밀번호(예: `trigger=…,collector=…`). `migrate --roles`와 `doctor --fix`만 씁니다"
    ),
    "Folder of the embedded PostgreSQL (used when `DATABASE_URL` is not set)": (
        "내장 PostgreSQL의 폴더 (`DATABASE_URL`이 없을 때 사용)"
    ),
    "Days after which what users wrote, and who they are, is removed; the counts stay (`0`: never)": (
        "이 일수가 지나면 사용자가 쓴 글과 사용자 정보를 지웁니다. 집계는 남습니다 (`0`: 지우지 않음)"
    ),
    "`production` warns at start about an open trigger; implied on Render": (
        "`production`이면 시작할 때 토큰 없는 트리거를 경고합니다. Render에서는 자동으로 적용됩니다"
    ),
    "Set by Render itself: its disk is not kept": "Render가 직접 설정합니다. 디스크가 보존되지 않습니다",
    "Set by Render itself: the public URL of this service": "Render가 직접 설정합니다. 이 서비스의 공개 URL",
    "Logs for people or as JSON lines": "사람이 읽는 로그 또는 JSON 줄 로그",
    "Least level logged": "기록할 최소 로그 레벨",
    "OpenTelemetry collector that traces go to (OTLP over HTTP), such as `http://localhost:4318`; needs the"
    " extra `otel`; not set: no traces": (
        "트레이스를 보낼 OpenTelemetry 수집기(OTLP over HTTP, 예: `http://localhost:4318`). 추가 설치"
        " `otel`이 필요합니다. 비워 두면 트레이스를 남기지 않습니다"
    ),
    "Bearer token for `/run-feedback-loop` and `/events`; not set: open to anyone": (
        "`/run-feedback-loop`와 `/events`의 Bearer 토큰. 비워 두면 누구나 호출할 수 있습니다"
    ),
    "Minutes after a run's start in which further hits join it": (
        "실행이 시작된 뒤, 이후의 호출이 같은 실행에 합류하는 시간(분)"
    ),
    "Where the trigger runs, for the command `feedback-loop trigger` (default: this machine)": (
        "`feedback-loop trigger` 명령이 호출할 트리거의 주소 (기본값: 이 컴퓨터)"
    ),
    "API key of cron-job.org, for `feedback-loop schedule` alone": (
        "cron-job.org의 API 키. `feedback-loop schedule`만 씁니다"
    ),
    "cron-job.org's REST API": "cron-job.org REST API 주소",
    "Bearer token for votes, conversations and search; not set: open to anyone": (
        "투표·대화·검색의 Bearer 토큰. 비워 두면 누구나 호출할 수 있습니다"
    ),
    "Bearer token for the dashboard and search; not set: its figures are open, and in production what"
    " people wrote needs `API_TOKEN`": (
        "대시보드와 검색의 Bearer 토큰. 비워 두면 수치는 공개되고, 운영 환경에서 사용자가 쓴 글은"
        " `API_TOKEN`이 있어야 보입니다"
    ),
    "Bearer token for everything, documents and the dashboard's actions among it (default: `API_TOKEN`)": (
        "문서와 대시보드의 실행 버튼을 포함해 모든 것을 여는 Bearer 토큰 (기본값: `API_TOKEN`)"
    ),
    "Key that signs vote tokens for browsers, 32 characters or more; several with commas between: the first"
    " signs, all are taken; not set: there are none": (
        "브라우저용 투표 토큰을 서명하는 키(32자 이상). 쉼표로 여럿을 적으면 첫 번째로 서명하고"
        " 모두 받아들입니다. 비워 두면 투표 토큰을 쓰지 않습니다"
    ),
    "Origins whose pages may call `/feedback`, such as `https://shop.example`, with commas between; empty:"
    " none": (
        "`/feedback`을 호출할 수 있는 웹 페이지의 오리진(예: `https://shop.example`, 쉼표로 구분)."
        " 비우면 아무도 호출할 수 없습니다"
    ),
    "Requests a minute of one caller without a token; `0`: no limit (default: 600 in production, else"
    " 60,000)": (
        "토큰 없는 호출자 하나의 분당 요청 수. `0`: 제한 없음 (기본값: 운영 환경 600, 그 외 60,000)"
    ),
    "Proxies in front that add to `X-Forwarded-For`; 0: the header is not believed (default: 3 on Render,"
    " else 0)": (
        "`X-Forwarded-For`에 주소를 덧붙이는 앞단 프록시의 수. 0: 헤더를 믿지 않음"
        " (기본값: Render에서 3, 그 외 0)"
    ),
    "`always`: a report of every run; `on_change`: only where the state changes, or acts": (
        "`always`: 실행마다 보고. `on_change`: 상태가 바뀌거나 조치할 때만"
    ),
    "Day of the weekly summary, sent with the first run of that day; `off`: none": (
        "주간 요약 요일. 그날의 첫 실행과 함께 보냅니다. `off`: 보내지 않음"
    ),
    "`0`: nothing that users wrote goes to Slack": "`0`: 사용자가 쓴 글은 Slack으로 보내지 않습니다",
    "Where everything that Slack is told is sent as signed JSON too (`docs/webhook.md`)": (
        "Slack에 알리는 모든 것을 서명한 JSON으로도 보낼 주소 (`docs/webhook.md`)"
    ),
    "Key that signs it, `whsec_` and 24 to 64 bytes in base64; several with commas between: each signs": (
        "서명하는 키. `whsec_`와 base64로 쓴 24–64바이트. 쉼표로 여럿을 쓰면 각각 서명합니다"
    ),
    "Signing secret of the Slack app: turns on `/ai-report` and the buttons": (
        "Slack 앱의 서명 비밀값. `/ai-report`와 버튼을 켭니다"
    ),
    "Ids of the Slack users who may use `/ai-report` and the buttons, with commas between; empty: nobody": (
        "`/ai-report`와 버튼을 쓸 수 있는 Slack 사용자 ID(쉼표로 구분). 비우면 아무도 쓸 수 없습니다"
    ),
    "`langfuse`: votes from now on are scores there too; `off`: nowhere": (
        "`langfuse`: 지금부터의 투표를 Langfuse 점수로도 보냅니다. `off`: 보내지 않음"
    ),
    "Where Langfuse is": "Langfuse 주소",
    "Public key of the Langfuse project": "Langfuse 프로젝트의 공개 키",
    "Secret key of the Langfuse project": "Langfuse 프로젝트의 비밀 키",
    "`0`: comments are not mirrored": "`0`: 의견은 보내지 않습니다",
    "`wilson`: act on what is certain; `ratio`: negative ratio over the threshold": (
        "`wilson`: 통계적으로 확실할 때만 조치, `ratio`: 부정 비율이 기준을 넘으면 조치"
    ),
    "Negative ratio above which retrieval is rebuilt": "이 부정 비율을 넘으면 검색 색인을 다시 만듭니다",
    "Fewest votes in a window for a decision (`POLICY=wilson`)": (
        "판정에 필요한 구간별 최소 투표 수 (`POLICY=wilson`)"
    ),
    "Days of rest after a retrain or a rollback (`POLICY=wilson`)": (
        "재임베딩이나 되돌리기 뒤에 쉬는 일수 (`POLICY=wilson`)"
    ),
    "Time zone of the report": "보고서의 시간대",
    "Language of the report": "보고서의 언어",
    "Votes that the report counts: `since_last` scheduled report, or `24h`, `7d`, …": (
        "보고서가 세는 투표: `since_last`(지난 예약 보고서 이후) 또는 `24h`, `7d` 등"
    ),
    "Address behind the report's link (default: the public URL of this service)": (
        "보고서 링크의 주소 (기본값: 이 서비스의 공개 URL)"
    ),
    "Bot token (`xoxb-…`, scopes `chat:write`, and `files:write` for the picture)": (
        "봇 토큰 (`xoxb-…`, 권한 `chat:write`, 추이 그림에는 `files:write`)"
    ),
    "Channel the bot posts to, name or id": "봇이 글을 올릴 채널의 이름 또는 ID",
    "Incoming webhook, instead of bot and channel": "봇과 채널 대신 쓰는 Incoming Webhook",
    "`1`: also post when a run starts": "`1`: 실행이 시작될 때도 알립니다",
    "Slack's Web API (GovSlack has its own)": "Slack Web API 주소 (GovSlack은 주소가 다릅니다)",
    "Folder of documents (`.md .txt .html .pdf`), read again at every retrain": (
        "문서 폴더(`.md .txt .html .pdf`). 재임베딩할 때마다 다시 읽습니다"
    ),
    "`use`: Universal Sentence Encoder, offline; `openai`: any OpenAI-compatible API": (
        "`use`: 오프라인 Universal Sentence Encoder, `openai`: OpenAI 호환 API"
    ),
    "Base URL of the embeddings API": "임베딩 API의 기본 URL",
    "Key of the embeddings API": "임베딩 API의 키",
    "Model of the embeddings API": "임베딩 API의 모델",
    "File of questions and the documents they should find, that no retrain may make worse": (
        "질문과 그 질문이 찾아야 할 문서를 적은 파일. 어떤 재임베딩도 이를 나쁘게 해서는 안 됩니다"
    ),
    "Chunks in one embedding batch": "임베딩 배치 하나의 청크 수",
}


class Untranslated(Exception):
    """A description has no Korean yet; the text is the description."""


def main(arguments: list[str]) -> int:
    try:
        texts = {name: _replaced(ROOT / name, table(language)) for name, language in READMES.items()}
    except Untranslated as missing:
        print(f"config_table: no Korean for {str(missing)!r}: add it to KOREAN", file=sys.stderr)
        return 1
    stale = [name for name, text in texts.items() if text != (ROOT / name).read_text(encoding="utf-8")]
    if "--check" in arguments:
        for name in stale:
            print(f"config_table: {name} is out of date: run `python {sys.argv[0]}`", file=sys.stderr)
        return 1 if stale else 0
    for name in stale:
        (ROOT / name).write_text(texts[name], encoding="utf-8")
        print(f"{name} written")
    return 0


def _replaced(path: Path, table: str) -> str:
    before, start, rest = path.read_text(encoding="utf-8").partition(START)
    _, end, after = rest.partition(END)
    if not start or not end:
        raise SystemExit(f"config_table: {path.name} lacks the markers {START} and {END}")
    return f"{before}{start}\n{table}\n{end}{after}"


def table(language: str) -> str:
    def said(english: str) -> str:
        if language == "en":
            return english
        if english not in KOREAN:
            raise Untranslated(english)
        return KOREAN[english]

    head = [said("Variable"), said("Default"), said("Meaning")]
    lines = [_row(*head), "|---|---|---|"]
    for kind, name in _example():
        if kind == "group":
            lines.append(f"| **{said(name)}** | | |")
            continue
        field = Settings.model_fields[name.lower()]
        meaning = said(field.description or "")
        if options := _unsaid_options(field):
            meaning += f". {said('One of')}: {', '.join(f'`{option}`' for option in options)}"
        default = _default(field)
        lines.append(_row(f"`{name}`", f"`{default}`" if default else "", meaning))
    return "\n".join(lines)


def _example() -> Iterator[tuple[Literal["group", "setting"], str]]:
    for line in (ROOT / ".env.example").read_text(encoding="utf-8").splitlines():
        if line.startswith("## "):
            yield "group", line[3:]
        elif found := re.match(r"#([A-Z_]+)=", line):
            yield "setting", found[1]


def _default(field: FieldInfo) -> str:
    value = field.default
    if value is None:
        return ""
    return str(int(value)) if isinstance(value, bool) else str(value)


def _unsaid_options(field: FieldInfo) -> tuple[str, ...]:
    """The values that the setting may have, where its description does not name them."""
    if get_origin(field.annotation) is not Literal:
        return ()
    options = get_args(field.annotation)
    description = field.description or ""
    return () if any(f"`{option}`" in description for option in options) else options


def _row(*cells: str) -> str:
    return "|" + "|".join(f" {cell} " if cell else " " for cell in cells) + "|"


if __name__ == "__main__":
    raise SystemExit(main(sys.argv[1:]))
