"""Archives of older systems: read where they lie, imported, and written again for them.

What a Runicorn storage root holds becomes, in this order:

- an artifact `<type>/<name>/vN` of 0.5.3: `NAME:vN`, with its aliases, tags, metadata, references;
- a run's code_snapshot.zip: a version of `<project>/<run name>/code`, type code, with its files
  (another zip in the run's directory: of `<project>/<run name>/<the zip's name>`);
- a run's configuration: a version of `<project>/<run name>/config`, type config, one config.json;
- a dataset: a version of its name, type dataset; a pretrained model: the same, type model. One for
  each content, however many runs logged it; what was not saved is a reference;
- an output: a version of `<project>/<run name>/outputs/<key>`, type output;
- a manifest that no run names: a version of its source directory's name, or of its file's;
- a rolling output that no run names: a version of `<project>/<run name>/outputs/<file name>`;
- blobs that nothing names: one version of `loose-blobs`, each under its digest.

`<project>/<run name>` is the path of a run since 0.6.0. Runs are recorded with what they used.
What a run
wrote of itself (metrics, logs, pictures) lies in the directory of the run that it became.
`castfs.older.naming` says what becomes of names that castfs does not take.

The rooms, in the order in which an import goes through them:

    guarded, documents      a directory and JSON that a stranger may have made
    detecting               which kind of archive it is
    description, contents   what an archive holds, without its layout; zips
    runs, assets, artifacts, loose, opening     the layouts
    naming, namer           names
    destination, storing    where it goes
    filling, occupancy, origins, importing, report
    run_files, run_keeping, events      what runs wrote of themselves
    exporting, export_writing, export_artifacts, run_sending, sending    the other direction
"""

from castfs.older.detecting import FORMATS, Format
from castfs.older.exporting import ExportReport, export_runicorn
from castfs.older.importing import import_archive
from castfs.older.report import ImportReport
from castfs.older.sending import export_records

__all__ = [
    "FORMATS",
    "ExportReport",
    "Format",
    "ImportReport",
    "export_records",
    "export_runicorn",
    "import_archive",
]
