"""Pretrained timm models by name or file, offline first.

The default, :data:`DEFAULT`, comes with medlora, and its teacher with a dependency of it. Any other timm model comes by
name, from the hub's cache or the hub, or with a local file of weights. Weights are random only where that is
asked for.
"""

from medlora.backbones.available import Available, available
from medlora.backbones.create import RANDOM, Backbone, create, training_side
from medlora.backbones.embedded import DEFAULT

__all__ = ["DEFAULT", "RANDOM", "Available", "Backbone", "available", "create", "training_side"]
