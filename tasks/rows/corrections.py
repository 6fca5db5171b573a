"""Lay people's corrections over raw rows and labels.

Raw data stays as it was delivered. `validate` reads it with the corrected cells and judges the rows again, so that each
is counted once, where it arrived.
"""

from pathlib import Path

import pandas as pd

from tasks.params import RAW_ROW, UNREADABLE_COLUMNS
from tasks.rows.decisions import FOLDER, Corrections
from tasks.rows.keys import row_ids
from tasks.rows.partitions import partition_day, read_partitions, read_table
from tasks.runtime.errors import UserError


def read_corrected(files: list[Path], corrections: Corrections, columns: list[str]) -> pd.DataFrame:
    """Return some columns of raw partitions with the corrected cells; RAW_ROW holds the ids of the corrected rows.

    Raises UserError for a correction of a row that is not stored.
    """
    table = read_partitions(files, columns).assign(**{RAW_ROW: None})
    corrected = [file for file in files if (file.parent.name, partition_day(file).isoformat()) in corrections]
    if corrected:
        table = table.astype(dict.fromkeys(columns, object))
    for file in corrected:
        day = partition_day(file).isoformat()
        places = dict(zip(raw_row_ids(read_table(file)), table.index[table["dt"] == day], strict=True))
        for row, cells in corrections[file.parent.name, day].items():
            if row not in places:
                raise UserError(
                    f"{FOLDER}/*/dt={day}.jsonl: a correction must be of a row that is stored, and {row} of "
                    f"{file.parent.name} is none; delete its line"
                )
            for name in cells.keys() & set(columns):  # a corrected column may be declared no longer
                table.loc[places[row], name] = cells[name]
            table.loc[places[row], RAW_ROW] = row
            table.loc[places[row], [name for name in UNREADABLE_COLUMNS if name in columns]] = None
    return table


def raw_row_ids(rows: pd.DataFrame) -> list[str]:
    """Return the ids of rows of one raw file, by which corrections name them.

    They depend on the file alone, which never changes, and not on the columns that are declared today. Equal rows are
    numbered from the last, so that the ids of a file's last rows need none of the earlier ones.
    """
    return row_ids(rows, from_last=True).tolist()
