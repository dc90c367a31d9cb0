"""Scans and labels to a cohort: index, label join, splits by patient, checks."""
