"""A folder of documents: which are read, which are named as skipped, which are passed over."""

from __future__ import annotations

import hashlib
import os
import unicodedata
from pathlib import Path

import pytest

from services.embedder import knowledge
from services.embedder.knowledge import read_folder


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    root = tmp_path / "docs"
    (root / "sub").mkdir(parents=True)
    (root / "b.md").write_text("# B\n\ntext", encoding="utf-8")
    (root / "sub" / "a.TXT").write_text("text", encoding="utf-8")
    return root


def reasons(root: Path) -> dict[str, str]:
    return {skipped.source: skipped.reason for skipped in read_folder(root).skipped}


class TestDocuments:
    def test_documents_are_found_below_the_folder_in_order(self, folder: Path) -> None:
        assert list(read_folder(folder).documents) == ["b.md", "sub/a.TXT"]

    def test_document_carries_title_type_and_hash(self, folder: Path) -> None:
        found = read_folder(folder).documents["b.md"]
        digest = hashlib.sha256(b"# B\n\ntext").hexdigest()
        assert (found.title, found.media_type, found.data_hash) == ("B", "text/markdown", digest)

    def test_source_is_composed_unicode(self, folder: Path) -> None:
        (folder / unicodedata.normalize("NFD", "환불.md")).write_text("x", encoding="utf-8")
        assert "환불.md" in read_folder(folder).documents

    def test_known_documents_are_not_read_again(self, folder: Path) -> None:
        known = {source: found.data_hash for source, found in read_folder(folder).documents.items()}
        (folder / "b.md").write_text("changed", encoding="utf-8")
        again = read_folder(folder, known=known)
        assert (list(again.documents), list(again.unchanged)) == (["b.md"], ["sub/a.TXT"])

    def test_progress_counts_every_file(self, folder: Path) -> None:
        (folder / "empty.md").touch()
        seen: list[tuple[int, int]] = []
        read_folder(folder, lambda done, total: seen.append((done, total)))
        assert seen == [(1, 3), (2, 3), (3, 3)]

    def test_empty_folder_is_empty(self, tmp_path: Path) -> None:
        found = read_folder(tmp_path)
        assert (found.documents, found.skipped) == ({}, ())

    def test_missing_folder_is_named(self, tmp_path: Path) -> None:
        with pytest.raises(FileNotFoundError, match=r"knowledge folder .*nowhere does not exist"):
            read_folder(tmp_path / "nowhere")

    def test_file_is_no_folder(self, folder: Path) -> None:
        with pytest.raises(NotADirectoryError, match="not a folder"):
            read_folder(folder / "b.md")


class TestSkipped:
    def test_unreadable_file_is_named_with_its_reason(self, folder: Path) -> None:
        (folder / "broken.pdf").write_bytes(b"%PDF-1.7 nothing")
        assert reasons(folder)["broken.pdf"].startswith("broken PDF")

    def test_the_rest_goes_on_beside_an_unreadable_file(self, folder: Path) -> None:
        (folder / "a.txt").write_bytes(b"\0\1\2")
        assert set(read_folder(folder).documents) == {"b.md", "sub/a.TXT"}

    def test_document_of_another_type_is_named(self, folder: Path) -> None:
        (folder / "plan.docx").touch()
        assert reasons(folder) == {"plan.docx": "unsupported type"}

    @pytest.mark.parametrize(
        "name", [".hidden.md", ".git/x.md", "~$plan.docx", "a.md~", "Thumbs.db", "logo.PNG", "LICENSE"]
    )
    def test_what_nobody_meant_as_a_document_is_passed_over(self, folder: Path, name: str) -> None:
        (folder / name).parent.mkdir(exist_ok=True)
        (folder / name).write_text("x", encoding="utf-8")
        found = read_folder(folder)
        assert (set(found.documents), found.skipped) == ({"b.md", "sub/a.TXT"}, ())

    def test_too_large_file_is_named(self, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setitem(knowledge.MAX_BYTES, ".md", 1024**2)
        (folder / "big.md").write_bytes(b"x" * (1024**2 + 1))
        assert reasons(folder) == {"big.md": "larger than 1 MB"}

    def test_link_out_of_the_folder_is_not_read(self, folder: Path) -> None:
        (folder.parent / "secret.md").write_text("secret", encoding="utf-8")
        (folder / "link.md").symlink_to(folder.parent / "secret.md")
        assert reasons(folder) == {"link.md": "a link out of the folder"}

    def test_link_within_the_folder_is_read(self, folder: Path) -> None:
        (folder / "link.md").symlink_to(folder / "b.md")
        assert "link.md" in read_folder(folder).documents

    def test_link_to_a_folder_is_not_followed(self, folder: Path) -> None:
        (folder / "sub" / "loop").symlink_to(folder)
        assert reasons(folder) == {"sub/loop": "a link to a folder is not followed"}

    def test_link_to_itself_is_named(self, folder: Path) -> None:
        (folder / "self.md").symlink_to(folder / "self.md")
        assert reasons(folder)["self.md"].startswith("cannot be read")

    def test_pipe_does_not_block(self, folder: Path) -> None:
        os.mkfifo(folder / "pipe.md")
        assert reasons(folder) == {"pipe.md": "not a regular file"}

    def test_name_that_is_no_unicode_can_be_stored(self, folder: Path) -> None:
        Path(os.fsdecode(os.fsencode(folder) + b"/\xff.md")).write_text("x", encoding="utf-8")
        assert "�.md" in read_folder(folder).documents

    def test_second_file_of_one_unicode_name_is_named(self, folder: Path) -> None:
        for form in ("NFC", "NFD"):
            (folder / unicodedata.normalize(form, "환불.md")).write_text(form, encoding="utf-8")
        assert reasons(folder) == {"환불.md": "another file has the same name in another Unicode form"}
