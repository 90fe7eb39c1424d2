"""The tables and figures of the paper, repeated: runs, measurements, tables, plots, a report."""

from regionnorm.studies.catalogue import get_study, list_studies
from regionnorm.studies.conduct import conduct, plan_table, with_settings
from regionnorm.studies.photos import Photos, StudyData, find_photos
from regionnorm.studies.plan import Group, Run, Scale, Study
from regionnorm.studies.runner import Runner
from regionnorm.studies.sections import Section, write_report

__all__ = [
    "Group",
    "Photos",
    "Run",
    "Runner",
    "Scale",
    "Section",
    "Study",
    "StudyData",
    "conduct",
    "find_photos",
    "get_study",
    "list_studies",
    "plan_table",
    "with_settings",
    "write_report",
]
