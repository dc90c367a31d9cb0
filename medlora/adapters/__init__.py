"""Low-rank updates of linear and convolution weights: attach, merge, save, load."""
