"""What is read out of `neuron-ls`."""

import json

import pytest
from machines import TRN1_2XLARGE, ring

from outcrop.doctor.neuron_ls import Device, NeuronLsError, Process, free_runs, owners, parse_neuron_ls


def test_a_single_device() -> None:
    assert parse_neuron_ls(TRN1_2XLARGE) == (Device(0, (0, 1), 32 << 30, (), ()),)


def test_processes_without_neuron_ls_itself() -> None:
    devices = parse_neuron_ls(ring(12, {3: 4242}))
    assert len(devices) == 12
    assert devices[3].processes == (Process(4242, "/usr/bin/python3 -m vllm"),)
    assert devices[0].connected_to == (1, 11)
    assert not any(device.processes for device in devices if device.index != 3)


def test_tools_that_do_not_number_the_cores() -> None:
    entries = json.loads(ring(2))
    for entry in entries:
        del entry["neuroncore_ids"]
    assert [device.cores for device in parse_neuron_ls(json.dumps(entries[::-1]))] == [(0, 1), (2, 3)]


def test_free_cores_are_side_by_side() -> None:
    assert free_runs(parse_neuron_ls(ring(12))) == [range(24)]
    assert free_runs(parse_neuron_ls(ring(12, {3: 1, 4: 1}))) == [range(6), range(10, 24)]
    assert free_runs(parse_neuron_ls(ring(2, {0: 1, 1: 1}))) == []


def test_a_torus_is_one_run() -> None:
    """The neighbours of the 16 devices as the user guide's example of `neuron-ls --topology` has them."""
    entries = json.loads(ring(16))
    for index, entry in enumerate(entries):
        row, column = index // 4 * 4, index % 4
        entry["connected_to"] = [
            (index - 4) % 16, row + (column - 1) % 4, (index + 4) % 16, row + (column + 1) % 4
        ]  # fmt: skip
    assert entries[4]["connected_to"] == [0, 7, 8, 5]
    assert free_runs(parse_neuron_ls(json.dumps(entries))) == [range(32)]


def test_devices_that_are_not_connected_are_no_run() -> None:
    """As a pod may be given them: devices 0 and 1 of which each is connected to others only."""
    entries = json.loads(ring(2))
    entries[0]["connected_to"], entries[1]["connected_to"] = [11], [2]
    assert free_runs(parse_neuron_ls(json.dumps(entries))) == [range(2), range(2, 4)]


def test_owners() -> None:
    found = list(owners(parse_neuron_ls(ring(12, {3: 7, 4: 7, 9: 8}))))
    assert [(process.pid, indices) for process, indices in found] == [(7, (3, 4)), (8, (9,))]


@pytest.mark.parametrize("text", ["", "neuron", "null", "{}x", "[1]", '[{"neuron_device": 0}]', '{"a": 1}'])
def test_what_is_no_list_of_devices(text: str) -> None:
    with pytest.raises(NeuronLsError, match="something else than a list of devices"):
        parse_neuron_ls(text)
