"""Record what was seen of the night that is published, and measure earlier nights whose labels have come.

Beside the nights the store holds their past, a record for each: rows, model, what was predicted, how far that is from
the same weekdays before, and, when the truth has come, the metric of the gates on the rows of that night alone. It is
measured when labels are due, and again as corrections come, until `target.late_days` are over. The page of the products
shows them. Reads the night from the
store, and labels from data/valid. Changes nothing of a night: it may run again, or never.
"""

from datetime import date

from tasks import stage
from tasks.monitoring.past import add_night, measure_past
from tasks.monitoring.showing import show_nights
from tasks.params import Product
from tasks.publication.object_store import Store
from tasks.runtime.paths import Paths


def monitor(product: Product, as_of: date) -> str:
    """Record the night of `as_of` and measure the nights that are due; return a line about both."""
    record = add_night(product, as_of)
    measured = measure_past(product, as_of, Paths(product.name))
    show_nights(Store(product.publish.url), product.name, as_of)
    if record is None:
        return "no night is published"
    mean = "none" if record.predictions.mean is None else f"{record.predictions.mean:.4f}"
    change = "" if record.change is None else f", {record.change:.2f} deciles' ranges from the same weekdays before"
    line = f"{record.published:,} predictions by {record.model_version or 'a model by hand'}, mean score {mean}{change}"
    for each in measured[-3:]:
        if each.truth:
            value = "not defined" if each.truth.value is None else f"{each.truth.value:.4f}"
            line += f"; night of {each.as_of}: {each.truth.metric} {value} on {each.truth.labelled:,} labelled rows"
    if len(measured) > 3:
        line += f" ({len(measured):,} nights measured)"
    return line


if __name__ == "__main__":
    stage.main(monitor)
