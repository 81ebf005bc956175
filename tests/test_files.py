"""Files written whole, whatever fails on the way, and locks that die with their holders."""

import errno
import multiprocessing
import os
import signal
import stat
import subprocess
import sys
import threading
import time

import pytest

from squeezekit.errors import InputError, WriteError
from squeezekit.files import LOCK, alone, alone_in, remove_half_written, write_whole

FORKS = multiprocessing.get_context("fork" if sys.platform == "linux" else "spawn")

posix = pytest.mark.skipif(os.name == "nt", reason="needs POSIX")


def names(folder):
    return sorted(path.name for path in folder.iterdir())


def modes(path):
    return stat.S_IMODE(path.stat().st_mode)


@posix
def test_a_new_file_has_the_mode_of_any_new_file(tmp_path):
    write_whole(tmp_path / "ours", b"1")
    (tmp_path / "any").write_bytes(b"1")
    assert modes(tmp_path / "ours") == modes(tmp_path / "any")


@posix
def test_a_file_keeps_its_mode(tmp_path):
    path = tmp_path / "a"
    path.write_bytes(b"old")
    path.chmod(0o600)
    write_whole(path, b"new")
    assert (modes(path), path.read_bytes()) == (0o600, b"new")


@posix
@pytest.mark.parametrize("there", [True, False])
def test_a_link_stays_and_its_target_is_replaced(tmp_path, there):
    (tmp_path / "folder").mkdir()
    target = tmp_path / "folder" / "target"
    if there:
        target.write_bytes(b"old")
    one, two = tmp_path / "one", tmp_path / "two"
    one.symlink_to("folder/target")
    two.symlink_to(one)
    write_whole(two, b"new")
    assert one.is_symlink()
    assert two.is_symlink()
    assert target.read_bytes() == b"new"
    assert not target.is_symlink()
    assert names(tmp_path / "folder") == ["target"]


@posix
def test_what_cannot_be_replaced(tmp_path):
    read_only, pipe, folder = tmp_path / "file", tmp_path / "pipe", tmp_path / "folder"
    read_only.write_bytes(b"old")
    read_only.chmod(0o444)
    os.mkfifo(pipe)
    folder.mkdir()
    loop = tmp_path / "loop"
    loop.symlink_to(loop)
    for path, why in (
        (read_only, "it is read-only"),
        (pipe, "not a file"),
        (folder, "Is a directory"),
        (loop, "symbolic links"),
        (tmp_path / "none" / "file", "No such file"),
        (read_only / "file", "Not a directory"),
    ):
        with pytest.raises(WriteError, match=why) as caught:
            write_whole(path, b"new")
        assert str(caught.value).startswith(f"{path}: cannot be written")
    assert read_only.read_bytes() == b"old"
    assert names(tmp_path) == ["file", "folder", "loop", "pipe"]


def test_the_longest_names(tmp_path):
    """Parts of two such files may share their beginning, and stay apart."""
    first, second = tmp_path / ("ä" * 125 + "1.sqz"), tmp_path / ("ä" * 125 + "2.sqz")
    for path in (first, second):
        write_whole(path, path.name.encode())
    assert [path.read_bytes().decode() for path in (first, second)] == [first.name, second.name]
    assert len(names(tmp_path)) == 2


@posix
@pytest.mark.parametrize("code", [errno.ENOSPC, errno.EIO, errno.EDQUOT])
def test_what_fails_at_any_step_leaves_what_was_there(tmp_path, monkeypatch, code):
    """Each call to the system fails in turn; it is reported, and the old file is whole."""
    failed = 0
    for name in ("open", "fsync", "replace", "fchmod"):
        real = getattr(os, name)
        for number in range(4):
            path = tmp_path / f"{name}-{number}"
            path.write_bytes(b"old")
            calls = []

            def fails(*arguments, _real=real, _calls=calls, _number=number, **options):
                _calls.append(arguments)
                if len(_calls) == _number + 1:
                    raise OSError(code, os.strerror(code))
                return _real(*arguments, **options)

            with monkeypatch.context() as patched:
                patched.setattr(os, name, fails)
                try:
                    write_whole(path, b"new")
                    wrong = None
                except WriteError as error:
                    wrong = str(error)
            assert path.read_bytes() == b"new" or (path.read_bytes() == b"old" and wrong)
            if wrong:
                failed += 1
                assert os.strerror(code) in wrong
            assert [each for each in names(tmp_path) if each.startswith(".")] == []
    assert failed >= 4


@posix
def test_a_disk_that_is_full(tmp_path):
    """The system itself refuses the bytes: a limit of the process stands for the disk's."""
    path = tmp_path / "a"
    path.write_bytes(b"old")
    code = (
        "import resource, sys; from pathlib import Path\n"
        "from squeezekit.files import write_whole\n"
        "resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, 100_000))\n"
        "write_whole(Path(sys.argv[1]), bytes(200_000))"
    )
    run = subprocess.run([sys.executable, "-c", code, path], capture_output=True, text=True)
    assert "WriteError" in run.stderr
    assert path.read_bytes() == b"old"
    assert names(tmp_path) == ["a"]


def write_for_ever(path, ready):
    """Be in the middle of a write until killed."""
    os.fsync = lambda handle: (ready.set(), time.sleep(600))
    write_whole(path, b"never")


def hold(path, ready):
    with alone(path):
        ready.set()
        time.sleep(600)


def started(target, *arguments):
    ready = FORKS.Event()
    process = FORKS.Process(target=target, args=(*arguments, ready))
    process.start()
    assert ready.wait(60)
    return process


@posix
def test_the_next_writer_removes_what_a_killed_one_left(tmp_path):
    """And leaves what one that lives is writing."""
    path, other = tmp_path / "a", tmp_path / "b"
    killed, lives = started(write_for_ever, path), started(write_for_ever, path)
    elsewhere = started(write_for_ever, other)
    os.kill(killed.pid, signal.SIGKILL)
    killed.join()
    assert len(names(tmp_path)) == 3
    write_whole(path, b"new")
    assert len(names(tmp_path)) == 3  # a, and the parts of the two that live
    for process in (lives, elsewhere):
        os.kill(process.pid, signal.SIGKILL)
        process.join()
    write_whole(path, b"newer")
    assert len(names(tmp_path)) == 2  # what belongs to b is another one's
    (tmp_path / ".own.part").write_bytes(b"")
    remove_half_written(tmp_path)
    assert names(tmp_path) == [".own.part", "a"]
    assert path.read_bytes() == b"newer"


@posix
def test_many_writers_of_one_file(tmp_path):
    """None takes another's part for a dead one's."""
    path = tmp_path / "a"
    failures = []

    def write(value):
        try:
            for _ in range(50):
                write_whole(path, bytes([value]) * 100)
        except Exception as error:
            failures.append(error)

    threads = [threading.Thread(target=write, args=(value,)) for value in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert failures == []
    data = path.read_bytes()
    assert data == bytes([data[0]]) * 100
    assert names(tmp_path) == ["a"]


@posix
def test_a_lock_dies_with_its_holder(tmp_path):
    holder = started(hold, tmp_path / LOCK)
    with (
        pytest.raises(InputError, match=f"another squeezekit works in {tmp_path}"),
        alone_in(tmp_path),
    ):
        pass
    os.kill(holder.pid, signal.SIGKILL)
    holder.join()
    with alone_in(tmp_path):
        assert names(tmp_path) == [LOCK]
    assert names(tmp_path) == []


def test_one_after_the_other(tmp_path):
    """Those who wait get it in turn, though each removes the file."""
    inside, most = [], []

    def work():
        for _ in range(25):
            with alone(tmp_path / "lock"):
                inside.append(1)
                most.append(len(inside))
                time.sleep(0.0005)
                inside.pop()

    threads = [threading.Thread(target=work) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert (len(most), max(most)) == (100, 1)
    assert names(tmp_path) == []


def test_a_lock_that_cannot_be_made(tmp_path):
    with pytest.raises(WriteError, match="cannot be written"), alone(tmp_path / "none" / "lock"):
        pass
