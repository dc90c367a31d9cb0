"""Task, cohort and method to a run."""
