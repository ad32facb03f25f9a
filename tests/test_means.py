"""Work beyond the memory and the days that there are is refused with the estimate."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from expander_sae import means
from expander_sae.errors import ExpanderError
from expander_sae.means import DAYS, Patience, check_memory, check_time, device_named, is_out_of_memory, memory_there


def test_more_memory_than_there_is(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(means, "memory_there", lambda device: 2 * 10**9)
    check_memory("Training", 1.9e9)
    with pytest.raises(ExpanderError, match=r"^Training needs at least 3\.0 GB of memory, and there are 2\.0 GB; ask"):
        check_memory("Training", 3e9)
    monkeypatch.setattr(means, "memory_there", lambda device: None)
    check_memory("Training", 1e30)


def test_this_machine_has_memory() -> None:
    there = memory_there()
    assert there is None or 0 < there < 2**50


def test_more_than_a_day(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(DAYS, "1")
    check_time("A harvest", 1e9)
    with pytest.raises(ExpanderError, match=r"^A harvest would take at least .* years on this machine; ask for less"):
        check_time("A harvest", 1e30)
    monkeypatch.setenv(DAYS, "1e30")
    check_time("A harvest", 1e30)
    monkeypatch.delenv(DAYS)
    check_time("A harvest", 1e40)


@pytest.mark.parametrize(("total", "ends"), [(50_000, True), (1_000_000, False)])
def test_work_under_way_is_refused_by_its_own_speed(monkeypatch: pytest.MonkeyPatch, total: int, ends: bool) -> None:
    clock = [0.0]
    monkeypatch.setattr(means.time, "monotonic", lambda: clock[0])
    monkeypatch.setenv(DAYS, "1")
    patience = Patience()
    patience.check("Training", 0, total)
    clock[0] += 1000.0  # whatever is compiled first says nothing about the rest

    def work() -> None:
        for done in range(1, 60):
            patience.check("Training", done, total)
            clock[0] += 1.0

    if ends:
        work()
    else:
        with pytest.raises(ExpanderError, match=r"^Training would take at least 12 days on this machine"):
            work()


def test_a_pause_later_on_is_no_reason(monkeypatch: pytest.MonkeyPatch) -> None:
    clock = [0.0]
    monkeypatch.setattr(means.time, "monotonic", lambda: clock[0])
    monkeypatch.setenv(DAYS, "1")
    patience = Patience()
    for done in range(40):
        patience.check("Training", done, 1000)
        clock[0] += 1.0
    clock[0] += 1e9
    patience.check("Training", 41, 1000)


def test_every_way_of_having_no_memory_is_known() -> None:
    for ask in (
        lambda: np.empty(2**57),
        lambda: torch.empty(2**57),
        lambda: torch.empty(2**62, 2**62),
        lambda: bytearray(2**62),
    ):
        with pytest.raises((MemoryError, RuntimeError)) as refused:
            ask()
        assert is_out_of_memory(refused.value), refused.value
    loader = "_compute.so: failed to map segment from shared object"
    for said in (loader, f"{loader}: Cannot allocate memory", "libx.so: cannot allocate memory in static TLS block"):
        assert is_out_of_memory(ImportError(said)), said
    assert is_out_of_memory(RuntimeError("can't start new thread"))
    assert not is_out_of_memory(ImportError(f"{loader}: Operation not permitted"))
    assert not is_out_of_memory(RuntimeError("shapes do not match"))
    assert not is_out_of_memory(ValueError("out of memory"))


@pytest.mark.parametrize("name", ["nope", "", "meta", "cpu:x", "cuda:99"])
def test_devices_that_are_not_there(name: str) -> None:
    with pytest.raises(ExpanderError, match="is not available on this machine; try 'cpu'"):
        device_named(name)
    assert device_named("cpu") == torch.device("cpu")
