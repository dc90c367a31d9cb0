"""Cohorts: index an archive, join labels, split by patient, and check for what makes results wrong."""

from medlora.cohorts.cohort import Cohort
from medlora.cohorts.index import Index, index
from medlora.cohorts.selection import Selection

__all__ = ["Cohort", "Index", "Selection", "index"]
