"""Peak rates: from the table by name, measured otherwise, never zero or infinite."""

from __future__ import annotations

import math

import pytest
import torch

from nanofast import peak
from nanofast.peak import BFLOAT16_PEAKS, peak_flops


@pytest.mark.parametrize(
    ("name", "rate"),
    [
        ("NVIDIA H200", 989e12),
        ("NVIDIA H100 80GB HBM3", 989e12),
        ("NVIDIA H100 PCIe", 756e12),
        ("NVIDIA A100-SXM4-80GB", 312e12),
        ("NVIDIA L4", 121e12),
        ("NVIDIA L40S", 362e12),
        ("NVIDIA A10G", 70e12),
        ("NVIDIA GB200", 2.5e15),
    ],
)
def test_known_devices_are_found_by_their_names(name: str, rate: float, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda device: name)
    found, source = peak_flops(torch.device("cuda", 0), torch.bfloat16)
    assert found == rate
    assert "data sheet" in source


def test_an_unknown_device_is_measured(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda device: "NVIDIA Something New")
    monkeypatch.setattr(peak, "_measure", lambda device, dtype: 5e12)
    assert peak_flops(torch.device("cuda", 0), torch.bfloat16) == (5e12, "measured, 1024 x 1024 bfloat16 products")


def test_a_cpu_is_measured(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(peak, "MEASURED_SIZE", 64)
    rate, source = peak_flops(torch.device("cpu"), torch.float32)
    assert 0 < rate < math.inf
    assert "measured" in source


def test_a_longer_name_comes_before_the_shorter_one_that_it_holds() -> None:
    names = [name for name, _ in BFLOAT16_PEAKS]
    for place, name in enumerate(names):
        assert not any(earlier in name for earlier in names[:place]), name
