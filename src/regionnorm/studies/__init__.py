"""The tables and figures of the paper, repeated: runs, measurements, tables, plots, a report."""

from regionnorm.studies.catalogue import get_scale, get_study, list_studies
from regionnorm.studies.claims import claims_section
from regionnorm.studies.conduct import conduct, plan_table, with_settings
from regionnorm.studies.photos import Photos, StudyData, find_photos
from regionnorm.studies.pictures import MissingWeightsError
from regionnorm.studies.plan import Group, Run, Scale, Study
from regionnorm.studies.runner import Runner
from regionnorm.studies.sections import Section, write_report
from regionnorm.studies.status import status_table

__all__ = [
    "Group",
    "MissingWeightsError",
    "Photos",
    "Run",
    "Runner",
    "Scale",
    "Section",
    "Study",
    "StudyData",
    "claims_section",
    "conduct",
    "find_photos",
    "get_scale",
    "get_study",
    "list_studies",
    "plan_table",
    "status_table",
    "with_settings",
    "write_report",
]
