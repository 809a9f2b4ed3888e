"""TensorBoard reads what a run writes, and a full disk does not stop it."""

import struct
from pathlib import Path

import pytest
from tensorboardX.proto.event_pb2 import Event

from bert_jax.training.tensorboard import TensorBoardWriter


def events(folder: Path) -> list[Event]:
    """Records: length, checksum, bytes, checksum."""
    (file,) = folder.iterdir()
    content, read = file.read_bytes(), []
    while content:
        (size,) = struct.unpack("Q", content[:8])
        read.append(Event.FromString(content[12 : 12 + size]))
        content = content[16 + size :]
    return read


def test_scalars_are_there_by_step_after_a_mark_of_where_they_begin(tmp_path: Path) -> None:
    board = TensorBoardWriter(tmp_path, 3)
    board.add({"loss": 0.5, "rate": 2.0}, 3)
    board.close()
    _, begin, scalars = events(tmp_path)
    assert begin.step == 3
    assert begin.HasField("session_log")
    assert scalars.step == 3
    assert [(v.tag, v.simple_value) for v in scalars.summary.value] == [("loss", 0.5), ("rate", 2)]


def test_a_folder_that_cannot_be_written_is_no_reason_to_stop(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    (tmp_path / "tensorboard").write_text("a file in its place")
    board = TensorBoardWriter(tmp_path / "tensorboard", 1)
    board.add({"loss": 0.5}, 1)
    board.close()
    assert caplog.text.count("TensorBoard's event file cannot be written (File exists)") == 1


def test_a_full_disk_ends_the_file_and_not_the_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    board = TensorBoardWriter(tmp_path, 1)
    monkeypatch.setattr("tensorboardX.event_file_writer.EventsWriter.write_event", full)
    for step in range(100):
        board.add({"loss": 0.5}, step)
    board.close()
    assert caplog.text.count("No space left on device") == 1
