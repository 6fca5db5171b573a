"""Write the folder of daily files that examples/deliveries.yaml declares, as it is on one evening.

    python examples/deliveries.py 2024-03-31                  # into examples/deliveries/

The files (made up) have what such exports have: names with spaces and umlauts, semicolons, decimal commas, days as
31.03.2024, gzip. A file holds what became known on its day, so a row comes again when its label is known, and once more
when that was wrong; some rows come days late, and some weights are words.
"""

import gzip
import random
import sys
from dataclasses import dataclass
from datetime import date, timedelta
from pathlib import Path

FOLDER = Path(__file__).parent / "deliveries"
FIRST, ROWS_A_DAY = date(2024, 1, 1), 24
HEADER = "Sendungs-Nr.;Tag;Depot;Größe;Gewicht (kg);Warenwert (€);Stunde der Übergabe;Fahrer;Verspätet;Fassung"


@dataclass(frozen=True)
class Line:
    """One version of a delivery, as it became known."""

    known: date
    number: str
    day: date
    depot: str
    size: str
    weight: str
    worth: str
    hour: str
    late: str
    """ja, nein, or nothing as long as it is not known."""
    version: int
    """Of several of one delivery the largest stands."""

    @property
    def text(self) -> str:
        """Return the line of the file of the day on which it became known."""
        cells = [self.number, self.day.strftime("%d.%m.%Y"), self.depot, self.size, self.weight, self.worth]
        return ";".join([*cells, self.hour, "N. N.", self.late, str(self.version)])


def lines(until: date) -> list[Line]:
    """Return what had become known by the evening of `until`, in the order in which it did.

    Late rows: 1 in 24 comes one to three days after its day. Corrected labels: 1 in 16, three to nine days later.
    """
    known = [
        line
        for i in range((until - FIRST).days + 1)
        for number in range(ROWS_A_DAY)
        for line in _versions(FIRST + timedelta(days=i), number)
        if line.known <= until
    ]
    return sorted(known, key=lambda line: (line.known, line.number))


def write_file(folder: Path, day: date, content: list[Line]) -> Path:
    """Write the file of one day: the same lines give the same bytes."""
    folder.mkdir(parents=True, exist_ok=True)
    file = folder / f"Lieferungen {day.isoformat()}.csv.gz"
    text = "\n".join([HEADER, *(line.text for line in content)]) + "\n"
    file.write_bytes(gzip.compress(text.encode("utf-8"), mtime=0))
    return file


def write_folder(folder: Path, until: date) -> None:
    """Write one file for each day up to `until`."""
    by_day: dict[date, list[Line]] = {}
    for line in lines(until):
        by_day.setdefault(line.known, []).append(line)
    for day, content in by_day.items():
        write_file(folder, day, content)


def _versions(day: date, number: int) -> list[Line]:
    """Return a delivery as it came, with its label a day later, and with the label that was right."""
    draw = random.Random(f"{day} {number}")
    depot, size = draw.choice(["Köln", "Gießen", "Jena"]), draw.choice(["S", "M", "L"])
    weight = draw.gammavariate(2, 3) + 0.1
    late = draw.random() < (0.7 if weight > 6 else 0.2) - (0.15 if depot == "Jena" else 0)
    days_late = draw.randint(1, 3) if draw.random() < 1 / 24 else 0
    is_wrong, days_until_right = draw.random() < 1 / 16, draw.randint(3, 9)
    written = "unlesbar" if draw.random() < 1 / 200 else f"{weight:.1f}".replace(".", ",")
    euros, cents = divmod(int(draw.gammavariate(2, 60_000)), 100)
    worth = f"{euros:,}".replace(",", ".") + f",{cents:02d}"
    hour = str(draw.randint(6, 21))
    came = day + timedelta(days=days_late)
    labelled = max(came, day + timedelta(days=1))

    words = {True: "ja", False: "nein"}
    found = [(came, "")] if came < labelled else []
    found.append((labelled, words[late != is_wrong]))
    if is_wrong:
        found.append((labelled + timedelta(days=days_until_right), words[late]))
    cells = (f"{day:%y%m%d}-{number:02d}", day, depot, size, written, worth, hour)
    return [Line(known, *cells, label, version) for version, (known, label) in enumerate(found, 1)]


if __name__ == "__main__":
    write_folder(FOLDER, date.fromisoformat(sys.argv[1]))
