"""Keep what was found of each day, so that a day that was judged once is not read again."""

from tasks.quality.ledger.days import JudgedDays
from tasks.quality.ledger.files import Marks, link_files
from tasks.quality.ledger.ledger import FOLDER, KEYS, PLACE, Ledger
from tasks.quality.ledger.records import DaysTogether, JudgedDay, Tally, together

__all__ = [
    "FOLDER",
    "KEYS",
    "PLACE",
    "DaysTogether",
    "JudgedDay",
    "JudgedDays",
    "Ledger",
    "Marks",
    "Tally",
    "link_files",
    "together",
]
