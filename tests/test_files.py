"""Files take their place in one step, and never that of what is no file."""

from __future__ import annotations

import os
import resource
import stat
from pathlib import Path

import pytest
import torch
from safetensors.torch import save

from expander_sae.errors import ExpanderError
from expander_sae.files import (
    opened_tensors,
    pieces_of,
    read_checked_tensors,
    replace_file,
    to_bytes,
    write_checked_tensors,
)


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="this system has no such things")
def test_a_device_is_not_replaced_by_a_file(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "folder").mkdir()
    for name in ("pipe", "folder"):
        with pytest.raises(ExpanderError, match="is no file, and is not replaced by one"):
            replace_file(tmp_path / name, b"content")
    assert stat.S_ISFIFO((tmp_path / "pipe").stat().st_mode)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["folder", "pipe"]


def test_a_file_is(tmp_path: Path) -> None:
    for content in (b"old", b"new"):
        replace_file(tmp_path / "file", content)
        assert (tmp_path / "file").read_bytes() == content


def test_pieces_are_what_safetensors_writes(tmp_path: Path) -> None:
    """Of every type, empty, of one number and in several dimensions, with names that are sorted and not in ASCII."""
    kinds = (torch.bool, torch.uint8, torch.int8, torch.int16, torch.uint16, torch.float16, torch.bfloat16,
             torch.int32, torch.uint32, torch.float32, torch.float64, torch.int64, torch.uint64)  # fmt: skip
    tensors = {f'{kind}/{n}"é': torch.arange(3 * n).reshape(3, n).to(kind) for kind in kinds for n in (0, 1, 5)}
    tensors["number"] = torch.tensor(3.0)
    assert to_bytes(tensors) == save(tensors)
    replace_file(tmp_path / "file", pieces_of({"turned": torch.arange(6.0).reshape(2, 3).T}))
    assert (tmp_path / "file").read_bytes() == save({"turned": torch.arange(6.0).reshape(2, 3).T.contiguous()})


def test_tensors_with_a_checksum_come_back_or_are_refused(tmp_path: Path) -> None:
    tensors = {"a": torch.arange(6.0).reshape(2, 3).T, "b": torch.tensor([True, False])}
    about = {"z": "last é", "a": "first"}
    path = tmp_path / "file"
    write_checked_tensors(path, tensors, about)
    back, told = read_checked_tensors(path)
    assert told == about
    assert back.keys() == tensors.keys()
    assert all(torch.equal(back[name], tensors[name]) for name in tensors)
    whole = path.read_bytes()
    for place in range(8, len(whole)):  # the first eight are the length of the head
        if whole[place : place + 1] == b" ":
            continue  # which means nothing there
        path.write_bytes(whole[:place] + bytes([whole[place] ^ 1]) + whole[place + 1 :])
        with pytest.raises(ValueError, match="file"):
            read_checked_tensors(path)
    for other in (b"", whole[:50], to_bytes(tensors)):
        path.write_bytes(other)
        with pytest.raises(ValueError, match="file"):
            read_checked_tensors(path)


def test_too_many_open_files_are_no_fault_of_the_file(tmp_path: Path) -> None:
    path = tmp_path / "some.safetensors"
    write_checked_tensors(path, {"numbers": torch.arange(4)})
    before = resource.getrlimit(resource.RLIMIT_NOFILE)
    with open(os.devnull) as lowest_free:
        one_left = lowest_free.fileno() + 1
    try:
        resource.setrlimit(resource.RLIMIT_NOFILE, (one_left, before[1]))  # torch needs a second one
        with (
            pytest.raises(ExpanderError, match=r"some.safetensors cannot be opened: Too many open files"),
            opened_tensors(path),
        ):
            pass
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, before)
    with opened_tensors(path) as file:
        assert file.get_tensor("numbers").tolist() == [0, 1, 2, 3]
