"""Small trainable updates of frozen models: exact on every architecture, saved with the fingerprint of their base.

>>> import torch
>>> from torch import nn
>>> model = nn.Sequential(nn.Linear(4, 8), nn.ReLU(), nn.Linear(8, 2))
>>> adapter = attach(model, LoRA(rank=2, targets="0"), example=torch.ones(1, 4), train_head="2")
>>> print(adapter.summary())
role                targets     trained
other                     1          24
head                                 18
total                     1          42   72.41% of 58

The core, in reading order: ``updates`` (W + s·B·A), ``derive`` (a module that reads its weight updated), ``adapter``
(active, merged, disabled, detached) and ``attaching``. Around it:

- what to change: ``methods``; ``targets`` and ``roles`` (names to weights), ``head``; ``rescaling`` (DoRA, SSF)
- faster, the same numbers: ``fast`` (linear layers, convolutions), ``norms`` (frozen batch norms)
- shown and kept: ``proof`` (every target has an effect), ``summary``; ``store``, ``peft_format``, ``fingerprinting``
- more than one: ``bank``, ``mixed``; a smaller base: ``int8``; a base spread over processes: ``sharding``
"""

from medlora.adapters.adapter import Adapter, adapter_of
from medlora.adapters.attaching import attach
from medlora.adapters.bank import Bank
from medlora.adapters.fingerprinting import fingerprint
from medlora.adapters.int8 import quantize
from medlora.adapters.methods import SSF, BitFit, DoRA, Full, LoRA, LoRAFA, Method, NormTuning, Probe
from medlora.adapters.roles import roles
from medlora.adapters.store import load, read_info
from medlora.adapters.targets import Target

__all__ = [
    "SSF",
    "Adapter",
    "Bank",
    "BitFit",
    "DoRA",
    "Full",
    "LoRA",
    "LoRAFA",
    "Method",
    "NormTuning",
    "Probe",
    "Target",
    "adapter_of",
    "attach",
    "fingerprint",
    "load",
    "quantize",
    "read_info",
    "roles",
]
