"""Text files are read whatever mark an editor put in front, and never guessed."""

from __future__ import annotations

import pytest
from likeness.nodes.errors import LikenessError
from likeness.nodes.media.texts import read_text

TEXT = "ohwx man, caf\u00e9\nohwx, smiling\n"


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16"])
@pytest.mark.parametrize("ending", ["\n", "\r\n"])
def test_marks_and_line_ends_are_no_part_of_the_text(tmp_path, encoding, ending):
    file = tmp_path / "a.txt"
    file.write_bytes(TEXT.replace("\n", ending).encode(encoding))
    assert read_text(file) == TEXT


@pytest.mark.parametrize(("data", "told"), [
    (TEXT.encode("cp1252"), r"a.txt is no UTF-8 text \(line 1 holds the byte 0xe9\)"),
    (b"one\ntwo\xff", r"line 2 holds the byte 0xff.*save it as UTF-8"),
    (b"\xff\xfea", "a.txt is no UTF-16 text")])
def test_other_encodings_are_named_with_the_line(tmp_path, data, told):
    file = tmp_path / "a.txt"
    file.write_bytes(data)
    with pytest.raises(LikenessError, match=told):
        read_text(file)


def test_a_missing_file_is_the_caller_s_to_tell(tmp_path):
    with pytest.raises(FileNotFoundError):
        read_text(tmp_path / "none.txt")
    with pytest.raises(LikenessError, match="cannot be read"):
        read_text(tmp_path)
