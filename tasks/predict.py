"""Score the rows of the night with the exported model, in shards, without ever holding a night in memory.

The night of as_of scores the valid rows of day as_of + horizon_days, which `validate` left in order of key. A
shard is an equal share of them, one after the other, and becomes one part file; scoring it reads nothing else.
`night.json` records what went in and what came out; its `run` is the hash of all that went in. `--shard` scores
one shard alone: Airflow runs them as separate tasks.
"""

from datetime import date

from tasks import stage
from tasks.params import Product
from tasks.publication.contracts import ScoredPart
from tasks.publication.night import run_of, write_night
from tasks.publication.scoring import load_scorer, n_shards, night_inputs, score_shard
from tasks.runtime.errors import UserError
from tasks.runtime.files import atomic_folder
from tasks.runtime.paths import Paths


def predict(product: Product, as_of: date) -> str:
    """Score every shard and write the night; return a line with the number of rows."""
    from tqdm import tqdm

    scorer = load_scorer(product)
    inputs = night_inputs(product, as_of, scorer.engine)
    with atomic_folder(Paths(product.name).predictions) as folder:
        shards = tqdm(range(inputs.shards), desc="predict", unit="shard")
        parts = [score_shard(product, as_of, scorer, shard, folder) for shard in shards]
        write_night(product, as_of, inputs, parts, folder)
    n_scored = sum(part.rows for part in parts)
    return f"{n_scored:,} rows of {inputs.scored_day} scored in {len(parts)} shards by {inputs.engine.engine}"


def predict_shard(product: Product, as_of: date, shard: int) -> ScoredPart:
    """Score one shard into data/predictions and return its part. Raises UserError for a shard that does not exist."""
    shards = n_shards(product, as_of)
    if not 0 <= shard < shards:
        raise UserError(f"shard must lie between 0 and {shards - 1}, got {shard}; choose another")
    scorer = load_scorer(product)
    folder = Paths(product.name).predictions
    folder.mkdir(parents=True, exist_ok=True)
    part = score_shard(product, as_of, scorer, shard, folder)
    inputs = night_inputs(product, as_of, scorer.engine)
    return ScoredPart(
        name=part.name, rows=part.rows, bytes=part.bytes, sha256=part.sha256, run=run_of(inputs), inputs=inputs
    )


def main() -> None:
    """Run the command line: score the whole night, or one shard of it."""
    parser = stage.parser(predict)
    parser.add_argument("--shard", type=int, help="score this shard alone; its part is in the command's result file")
    given = parser.parse_args()
    if given.shard is None:
        stage.run("predict", given.product, predict)
    stage.run(
        f"predict-shard-{given.shard}",
        given.product,
        lambda product, as_of: predict_shard(product, as_of, given.shard),
    )


if __name__ == "__main__":
    main()
