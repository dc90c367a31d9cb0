"""Predictions to the figures a radiology reviewer asks for, with intervals and a report."""
