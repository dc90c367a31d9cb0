"""The predicted footprint against what PyTorch's own allocator reports, and the batch that fits."""

import pytest
import timm
import torch
from torch.profiler import ProfilerActivity, profile

from medlora import adapters
from medlora.errors import MedloraError
from medlora.training import footprint
from medlora.training.config import Train
from medlora.training.footprint import Footprint, Room
from medlora.transforms import Radiograph

MB = 2**20


def network(name, method):
    torch.manual_seed(0)
    model = timm.create_model(name, num_classes=2, pretrained=False)
    size = model.pretrained_cfg["input_size"][-1]
    preset = Radiograph(size=size, mean=(0.5,) * 3, std=(0.25,) * 3)
    return model, adapters.attach(model, method), preset


def allocations(events):
    for event in events:
        if event.tag.name == "Allocation":
            yield event
        yield from allocations(event.children)


def when(event):
    return event.start_time_ns


def allocated(model, preset, batch):
    """Peak of the allocator within a step, by the profiler's log of each allocation and release."""
    model.train()
    with profile(activities=[ProfilerActivity.CPU], profile_memory=True) as log:
        images = torch.rand(batch, preset.channels, preset.size, preset.size)
        torch.nn.functional.cross_entropy(model(preset.normalise(images)), torch.zeros(batch).long()).backward()
    live, now, peak = {}, 0, 0
    for event in sorted(allocations(log.profiler.kineto_results.experimental_event_tree()), key=when):
        place, size = event.extra_fields.ptr, event.extra_fields.alloc_size
        if size > 0:
            live[place] = size
            now += size
        else:  # what was there before the step may be released within it, and was never counted
            now -= live.pop(place, 0)
        peak = max(peak, now)
    return peak


@pytest.mark.parametrize("name", ["test_resnet", "test_vit", "test_efficientnet", "test_convnext"])
@pytest.mark.parametrize("method", [adapters.LoRA(rank=4), adapters.Full()], ids=["lora", "full"])
def test_prediction_is_what_the_allocator_reports(name, method):
    model, adapter, preset = network(name, method)
    found = footprint.predict(model, adapter, preset, None, Train())
    for batch in (8, 24):
        own = found.of(batch) - found.network - found.optimizer
        assert own == pytest.approx(allocated(model, preset, batch), rel=0.1)
        for parameter in model.parameters():
            parameter.grad = None
    assert found.optimizer == 2 * 4 * sum(p.numel() for p in adapter.parameters())


def test_prediction_changes_nothing():
    model, adapter, preset = network("test_resnet", adapters.Full())
    adapter.detach()
    adapter = adapters.attach(model, adapters.Full(), batchnorm="adapt")
    before = {key: value.clone() for key, value in model.state_dict().items()}
    random, modes = torch.get_rng_state(), [module.training for module in model.modules()]
    footprint.predict(model, adapter, preset, None, Train())
    assert all(torch.equal(value, before[key]) for key, value in model.state_dict().items())
    assert torch.equal(random, torch.get_rng_state())
    assert modes == [module.training for module in model.modules()]
    assert all(parameter.grad is None for parameter in model.parameters())


SMALL = Footprint(network=100 * MB, optimizer=0, step=0, image=10 * MB)


@pytest.mark.parametrize(
    ("free_mb", "cases", "batch"),
    [(100_000, 10_000, 64), (100_000, 330, 32), (100_000, 20, 8), (801, 10_000, 64), (799, 10_000, 32),
     (201, 10_000, 16), (199, 10_000, 8), (13, 10_000, 1)],
)  # fmt: skip
def test_auto_is_the_largest_power_of_two_in_its_bounds(free_mb, cases, batch):
    room = Room(free_mb * MB, loaded=True)
    assert footprint.batch_that_fits(SMALL, room, cases) == batch


def test_what_does_not_fit_is_refused_with_what_does():
    room = Room(200 * MB, loaded=True)
    footprint.check(SMALL, room, 20)
    with pytest.raises(MedloraError, match="--batch-size 20 fits"):
        footprint.check(SMALL, room, 21)
    with pytest.raises(MedloraError, match="close other programs"):
        footprint.batch_that_fits(SMALL, Room(5 * MB), 1000)


def test_processes_of_one_machine_share_its_memory():
    room = Room(1000 * MB, sharing=2, loaded=True)
    assert room.needed(SMALL, 16) == (2 * (100 + 80) - 100) * MB
