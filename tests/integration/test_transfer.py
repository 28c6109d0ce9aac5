"""Votes in and out of the ledger: `feedback-loop import FILE` and `feedback-loop export`."""

from __future__ import annotations

import csv
import io
import json
import uuid
from collections.abc import Callable
from pathlib import Path
from typing import Any

import click
import pytest

from services.commands.errands import import_votes
from services.commands.transfer.exporting import Request, export_votes
from services.commands.transfer.formats import Wanted
from services.commands.transfer.importing import Order, import_file
from shared.postgres.database import Database
from shared.settings import Settings

KEY = ("app", "conversation_id", "message_id", "user_id", "name", "row_key")
SAID = ("value", "reason_code", "comment", "citations", "generation", "metadata", "created_at")
FORMATS = ("csv", "jsonl", "langfuse", "phoenix", "openwebui")
HOSTILE = ["=1+1", "'=1+1", "''@x", "'tis so", " +82 10", 'a "quoted", line\nand another', "\ttab", "끝\r\n"]


class Shell:
    """The two commands on the test's database, and what they print."""

    def __init__(
        self, make: Callable[..., Settings], folder: Path, capsys: pytest.CaptureFixture[str]
    ) -> None:
        self._make, self._folder, self._capsys = make, folder, capsys

    async def take(
        self, rows: object, form: str = "jsonl", *, app: str | None = None, dry: bool = False, **given: Any
    ) -> str:
        """Import rows, or a file's text. Returns what is printed."""
        path = self._folder / f"{uuid.uuid4().hex}.txt"
        text = rows if isinstance(rows, str) else json.dumps(rows, ensure_ascii=False)
        path.write_bytes(text.encode())  # line breaks as they are
        wanted = Wanted(app, given.pop("score", "user_feedback"))
        await import_file(self._make(**given), Order(path, form, wanted, dry))
        return self._capsys.readouterr().out

    async def give(self, form: str, **given: Any) -> str:
        """The file that is exported."""
        path = self._folder / uuid.uuid4().hex
        await export_votes(self._make(), Request(form, path, **given))
        assert not path.with_name(path.name + ".part").exists()
        return path.read_bytes().decode()


@pytest.fixture
def shell(make_settings: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> Shell:
    return Shell(make_settings, tmp_path, capsys)


async def emptied(database: Database) -> None:
    """The ledger as one elsewhere that has nothing yet."""
    async with database.connection() as connection:
        await connection.execute("delete from feedback_loop.vote; delete from feedback_loop.conversation")


async def ledger(database: Database, *names: str) -> list[dict[str, Any]]:
    async with database.connection() as connection:
        rows = await connection.fetch("select * from feedback_loop.vote order by created_at, conversation_id")
    return [{name: row[name] for name in names} if names else dict(row) for row in rows]


async def sql(database: Database, statement: str, *given: object) -> Any:
    async with database.connection() as connection:
        return await connection.fetchval(statement, *given)


# --- our own form ------------------------------------------------------------------------------


async def test_an_owners_csv_is_imported_with_its_times(shell: Shell, database: Database) -> None:
    said = await shell.take(
        "id,conversation_id,feedback,reason,created_at\n"
        "1,c1,like,,2025-10-17 09:00:00+09\n"
        "2,c2,dislike,outdated,2025-10-17 09:00:01.5+09:00\n"
        '3,c3,👎?,"",\n'.replace("👎?", "thumbsDown")
    )
    assert "3 votes: 3 new, 0 changed" in said
    votes = await ledger(database, "conversation_id", "value", "reason_code", "source")
    assert [tuple(vote.values()) for vote in votes] == [
        ("c1", 1, None, "import"), ("c2", 0, "outdated", "import"), ("c3", 0, None, "import"),
    ]  # fmt: skip
    assert (await ledger(database))[0]["created_at"].isoformat() == "2025-10-17T00:00:00+00:00"


async def test_each_form_of_file_is_read(shell: Shell, database: Database) -> None:
    for rows in (
        '{"conversation_id": "c", "value": 1}\n\n{"conversation_id": "d", "value": 0}',
        '[{"conversation_id": "c", "value": true},\n {"conversation_id": "d", "value": -1}]',
        '{"items": [{"conversation_id": "c", "value": "up"},\n {"conversation_id": "d", "value": "down"}]}',
        "\ufeffconversation_id,user_feedback\r\nc,1\r\nd,0\r\n",
    ):
        await emptied(database)
        await shell.take(rows)
        assert [vote["value"] for vote in await ledger(database)] == [1, 0], rows


async def test_an_import_again_changes_nothing(shell: Shell, database: Database) -> None:
    rows = [
        {"conversation_id": f"c{n}", "value": n % 2, "comment": "왜", "created_at": "2026-01-01T00:00:00Z"}
        for n in range(5)
    ]
    await shell.take(rows)
    before = await ledger(database)
    assert "5 votes: 0 new, 0 changed, 5 there already" in await shell.take(rows)
    assert await ledger(database) == before


async def test_a_dry_run_says_what_would_happen_and_does_nothing(shell: Shell, database: Database) -> None:
    said = await shell.take([{"conversation_id": "c", "value": 1, "question": "Q?"}], dry=True)
    assert "1 new" in said and "1 answers recorded" in said and "nothing was imported" in said
    assert await ledger(database) == []


async def test_a_vote_cast_here_later_is_not_touched(shell: Shell, database: Database) -> None:
    await sql(database, "insert into feedback_loop.vote (conversation_id, value) values ('c', 0)")
    said = await shell.take([{"conversation_id": "c", "value": 1, "created_at": "2026-01-01T00:00:00Z"}])
    assert "0 new, 0 changed, 1 there already or replaced since" in said
    assert [vote["value"] for vote in await ledger(database)] == [0]


async def test_of_two_rows_about_one_vote_the_later_stands(shell: Shell, database: Database) -> None:
    said = await shell.take(
        [{"conversation_id": "c", "value": 1, "created_at": "2026-01-02T00:00:00Z"},
         {"conversation_id": "c", "value": 0, "created_at": "2026-01-01T00:00:00Z"}]
    )  # fmt: skip
    assert "1 new" in said and "1 rows are about a vote that another row is about" in said
    assert [vote["value"] for vote in await ledger(database)] == [1]


WRONG = [
    ('{"conversation_id": "c", "value": 1}\n{"conversation_id": "d"}', ":2: value: is missing"),
    ("conversation_id,value\nc,1\n\n,1\n", ":4: conversation_id: "),
    ('conversation_id,value\n"c\nd",meh\n', ":2: value: unknown vote"),
    ("conversation_id,value\nc\n", "line 2: 1 cells, but the head of the file names 2"),
    ('[{"conversation_id": "c", "value": 1},\n 7]', "line 2: must be a JSON object"),
    ('{"conversation_id": "c", "value": 1}\n{"conv', "line 2: not JSON"),
    ("conversation_id,value,created_at\nc,1,yesterday\n", ":2: created_at: "),
    ("conversation_id,value,metadata\nc,1,{x\n", ":2: metadata: not JSON"),
    ('{"conversation_id": "c", "value": 1, "created_at": "2999-01-01T00:00:00Z"}', "5 minutes in the future"),
]


async def test_what_is_wrong_is_told_by_line_and_field_and_nothing_is_imported(
    shell: Shell, database: Database
) -> None:
    for rows, told in WRONG:
        with pytest.raises(click.ClickException) as refused:
            await shell.take(rows)
        assert told in refused.value.message, refused.value.message
        assert "nothing was imported" in refused.value.message
    assert await ledger(database) == []


async def test_a_file_that_is_no_text_is_refused(shell: Shell, tmp_path: Path, make_settings: Any) -> None:
    path = tmp_path / "votes.csv"
    path.write_bytes(b"conversation_id,value\nc,\xff\n")
    with pytest.raises(click.ClickException, match="not UTF-8"):
        await import_file(make_settings(), Order(path, "csv", Wanted()))


# --- other systems -----------------------------------------------------------------------------

LANGFUSE = """\
"id","traceId","sessionId","datasetRunId","timestamp","source","name","dataType","value","stringValue",\
"comment","metadata","observationId","traceName","userId","traceTags","environment","authorUserName"
"s1","t1","","","2026-03-01T10:00:00.000Z","API","user_feedback","BOOLEAN","1","True","","{}","","chat","kim",\
"[]","default",""
"s2","t2","chat-9","","2026-03-01T11:00:00.000Z","API","thumbs","CATEGORICAL","0","thumbs-down","no",\
"{""page"":""/help""}","","chat","lee","[]","default",""
"s3","t3","","","2026-03-01T12:00:00.000Z","EVAL","hallucination","NUMERIC","0.25","","","{}","","chat","",\
"[]","default",""
"""


async def test_a_langfuse_export_is_imported(shell: Shell, database: Database) -> None:
    said = await shell.take(LANGFUSE, "langfuse", app="shop", score="thumbs")
    assert "2 votes: 2 new" in said and "1 rows are no votes" in said
    votes = await ledger(database, *KEY[:4], "value", "comment", "metadata", "source")
    assert [tuple(vote.values()) for vote in votes] == [
        ("shop", "t1", "", "kim", 1, None, {}, "langfuse"),
        ("shop", "chat-9", "t2", "lee", 0, "no", {"page": "/help"}, "langfuse"),
    ]


async def test_a_score_that_is_no_thumb_is_named(shell: Shell) -> None:
    with pytest.raises(click.ClickException, match=r":1: value: unknown vote"):
        await shell.take(
            [{"traceId": "t", "name": "user_feedback", "value": 0.5, "dataType": "NUMERIC"}], "langfuse"
        )


@pytest.mark.parametrize(
    "rows",
    [
        {"data": [
            {"id": "U3Bhbk", "span_id": "9f" * 8, "name": "user_feedback", "annotator_kind": "HUMAN",
             "result": {"label": "thumbs-down", "score": 0.0, "explanation": "old"}, "metadata": {},
             "identifier": "kim", "created_at": "2026-03-01T10:00:00+00:00", "source": "API"},
            {"id": "U3Bhbl", "span_id": "9f" * 8, "name": "correctness", "annotator_kind": "LLM",
             "result": {"score": 0.3}, "metadata": {}},
        ], "next_cursor": None},
        f"span_id,annotation_name,annotator_kind,metadata,identifier,result.label,result.score,"
        f"result.explanation,created_at\n{'9f' * 8},user_feedback,HUMAN,{{}},kim,,0.0,old,"
        f"2026-03-01T10:00:00+00:00\n{'9f' * 8},correctness,LLM,{{}},,,0.3,,2026-03-01T10:00:00+00:00\n",
    ],
    ids=["api", "dataframe"],
)  # fmt: skip
async def test_a_phoenix_export_is_imported(shell: Shell, database: Database, rows: object) -> None:
    assert "1 votes: 1 new" in await shell.take(rows, "phoenix")
    (vote,) = await ledger(database, *KEY[:4], "value", "comment", "source")
    assert tuple(vote.values()) == ("default", "9f" * 8, "", "kim", 0, "old", "phoenix")


async def test_an_open_webui_export_is_imported_with_its_answers(shell: Shell, database: Database) -> None:
    messages = {
        "m1": {"id": "m1", "parentId": None, "role": "user", "content": "When do you open?"},
        "m2": {"id": "m2", "parentId": "m1", "role": "assistant", "content": "At nine."},
    }
    feedback = {
        "id": "f1", "user_id": "u1", "version": 0, "type": "rating",
        "data": {"rating": -1, "model_id": "llama", "reason": "not_factually_correct", "comment": "At ten.",
                 "tags": [], "details": {"rating": 3}},
        "meta": {"model_id": "llama", "message_id": "m2", "message_index": 1, "chat_id": "chat1"},
        "snapshot": {"chat": {"id": "chat1", "chat": {"history": {"currentId": "m2", "messages": messages}}}},
        "created_at": 1772359200, "updated_at": 1772359300,
    }  # fmt: skip
    arena = {**feedback, "id": "f2", "data": {"rating": None}, "meta": {"arena": True}}
    said = await shell.take([feedback, arena], "openwebui")
    assert "1 votes: 1 new" in said and "1 rows are no votes" in said and "1 answers recorded" in said
    (vote,) = await ledger(database, *KEY[:4], "value", "reason_code", "comment", "metadata", "source")
    assert tuple(vote.values()) == (
        "default", "chat1", "m2", "u1", 0, "wrong", "At ten.", {"model_id": "llama"}, "openwebui",
    )  # fmt: skip
    assert (await ledger(database))[0]["created_at"].timestamp() == 1772359200
    answer = "select question || answer from feedback_loop.conversation where message_id = 'm2'"
    assert await sql(database, answer) == "When do you open?At nine."


async def test_a_terminal_obeys_nothing_that_a_file_says(shell: Shell) -> None:
    row = {"conversation_id": "c", "value": 1, "citations": {"\x1b[2J" + "x" * 600: 1}}
    with pytest.raises(click.ClickException, match=":1: citations") as failed:
        await shell.take([row])
    assert failed.value.message.replace("\n", "").isprintable()


@pytest.mark.parametrize("at", ["1e400", "-1e400", "NaN", "1" + "0" * 400, "-1", "true", "[]"])
async def test_a_time_that_is_none_is_told_by_its_line(shell: Shell, database: Database, at: str) -> None:
    row = '{"type": "rating", "data": {"rating": 1}, "meta": {"chat_id": "c"}, "created_at": ' + at + "}"
    with pytest.raises(click.ClickException, match=r":1: created_at: .*\nnothing was imported"):
        await shell.take(row, "openwebui")
    assert not await ledger(database)


async def test_an_answer_that_is_recorded_stays_as_it_is(shell: Shell, database: Database) -> None:
    await sql(
        database, "insert into feedback_loop.conversation (conversation_id, question) values ('c', 'Q')"
    )
    await shell.take([{"conversation_id": "c", "value": 1, "question": "Another?"}])
    assert await sql(database, "select question from feedback_loop.conversation") == "Q"


# --- out ---------------------------------------------------------------------------------------


async def _furnish(database: Database) -> None:
    async with database.transaction() as connection:
        for n, text in enumerate(HOSTILE):
            await connection.execute(
                "insert into feedback_loop.vote (app, conversation_id, message_id, user_id, value, comment,"
                " reason_code, citations, generation, metadata, created_at, name) values ($1, $2, $3, $4, $5,"
                " $6, 'wrong', $7, $8, $9, timestamptz '2026-01-01Z' + make_interval(secs => $10), $11)",
                "shop" if n % 2 else "default", f"c{n}", ["", "9f" * 16, "ab" * 8][n % 3], text, n % 2, text,
                {"a.md": 1}, n or None, {"page": text, "n": [n, None]}, float(n) + 0.125,
                "helpful" if n == 5 else "user_feedback",
            )  # fmt: skip
        await connection.execute(
            "insert into feedback_loop.conversation (conversation_id, question, answer, citations)"
            " values ('c0', '=Q', 'A', '[{\"source\": \"a.md\", \"rank\": 1}]')"
        )


async def test_what_is_exported_and_imported_elsewhere_is_the_same_ledger(
    shell: Shell, database: Database
) -> None:
    await _furnish(database)
    for form in FORMATS:
        names = (*KEY, *SAID, *(("source",) if form in ("csv", "jsonl") else ()))
        before, text = await ledger(database, *names), await shell.give(form)
        await emptied(database)
        await shell.take(text, form)
        assert await ledger(database, *names) == before, form


async def test_answers_go_along_in_our_own_forms(shell: Shell, database: Database) -> None:
    for form in ("csv", "jsonl"):
        await emptied(database)
        await _furnish(database)
        text = await shell.give(form)
        await emptied(database)
        assert "1 answers recorded" in await shell.take(text, form)
        answer = "select question || answer || (citations -> 0 ->> 'source') from feedback_loop.conversation"
        assert await sql(database, answer) == "=QAa.md"


async def test_a_ledger_that_takes_its_own_export_does_not_change(shell: Shell, database: Database) -> None:
    await _furnish(database)
    before = await ledger(database)
    for form in FORMATS:
        said = await shell.take(await shell.give(form), form)
        assert f"0 new, 0 changed, {len(HOSTILE)} there" in said, form
        assert await ledger(database) == before, form


async def test_the_negative_form_counts_dislikes_and_is_read_back(shell: Shell, database: Database) -> None:
    await sql(database, "insert into feedback_loop.vote (conversation_id, value) values ('c', 0), ('d', 1)")
    before = await ledger(database, *KEY, *SAID)
    for form in ("csv", "jsonl", "langfuse", "phoenix"):
        text = await shell.give(form, negative=True)
        assert "negative_user_feedback" in text
        await emptied(database)
        await shell.take(text, form)
        assert await ledger(database, *KEY, *SAID) == before, form


async def test_the_votes_of_the_owners_table_stay_a_vote_each(
    shell: Shell, database: Database, make_settings: Any, capsys: pytest.CaptureFixture[str]
) -> None:
    await sql(
        database,
        "create table public.feedback_log as select g as id, 'c' as conversation_id, 'like' as feedback,"
        " now() as created_at from generate_series(1, 100) g",
    )
    await import_votes(make_settings())
    assert "100 votes" in capsys.readouterr().out
    text = await shell.give("csv")
    await emptied(database)
    assert "100 votes: 100 new" in await shell.take(text, "csv")


async def test_no_cell_of_a_csv_is_a_formula(shell: Shell, database: Database) -> None:
    await _furnish(database)
    text = await shell.give("csv")
    assert text.startswith("\ufeff")
    rows = list(csv.reader(io.StringIO(text.removeprefix("\ufeff"), newline="")))
    assert not [cell for row in rows for cell in row if cell.lstrip().startswith(("=", "+", "-", "@"))]


async def test_an_export_can_be_of_an_app_and_of_some_days(shell: Shell, database: Database) -> None:
    await sql(
        database,
        "insert into feedback_loop.vote (app, conversation_id, value, created_at) values ('a', 'old', 1,"
        " now() - interval '9 days'), ('a', 'new', 1, now()), ('b', 'other', 1, now())",
    )
    (line,) = (await shell.give("jsonl", app="a", days=7)).splitlines()
    assert json.loads(line)["conversation_id"] == "new"


async def test_nothing_is_exported_as_a_file_that_is_whole(shell: Shell) -> None:
    for form in (*FORMATS, "dataset"):
        text = await shell.give(form)
        lines = text.strip("\ufeff").split()
        assert len(lines) == 1 if form == "csv" else lines in ([], ["[]"]), form


async def test_the_dataset_has_question_answer_chunks_and_vote(shell: Shell, database: Database) -> None:
    async with database.transaction() as connection:
        await connection.execute(
            "insert into feedback_loop.chunk (hash, heading, text)"
            " values (repeat('a', 64), 'Hours', 'We open at nine.')"
        )
        await connection.execute(
            "insert into feedback_loop.conversation (conversation_id, question, answer, citations) values"
            " ('c', 'When?', 'At nine.', jsonb_build_array("
            " jsonb_build_object('chunk', repeat('a', 64), 'rank', 1),"
            " jsonb_build_object('source', 'gone.md', 'rank', 2))), ('silent', '', '', '[]')"
        )
        await connection.execute(
            "insert into feedback_loop.vote (conversation_id, value, citations) values"
            " ('c', 0, jsonb_build_object(repeat('a', 64), 1)), ('silent', 1, '{}')"
        )
    (line,) = (await shell.give("dataset")).splitlines()
    example = json.loads(line)
    assert (example["question"], example["answer"], example["user_feedback"]) == ("When?", "At nine.", 0)
    first, second = example["contexts"]
    assert (first["text"], first["heading"], first["vote"]) == ("We open at nine.", "Hours", 1)
    assert (second["source"], second["text"], second["vote"]) == ("gone.md", None, None)
