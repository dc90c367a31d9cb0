"""Pretrained timm models by name or file, offline first."""
