"""Write the trained model as ONNX, and fail unless it scores held-out rows as torch does.

Reads data/models/<product>/trained, writes data/models/<product>/onnx: what `predict` runs.
"""

from datetime import date

from tasks import stage, tables
from tasks.errors import UserError
from tasks.files import folder_sha256, whole_folder, write_json
from tasks.params import Product
from tasks.paths import Paths

TOLERANCE = 1e-4
"""Largest difference of a probability; of a regression, in standard deviations of the target."""


def export(product: Product, as_of: date) -> str:
    """Write the ONNX model and the proof. Raises UserError when the two differ by more than TOLERANCE."""
    from model.export import export_onnx, parity
    from model.target import read_description, read_target

    paths = Paths(product.name)
    rows = tables.inputs(tables.read_split(paths.splits, "test"), product)
    target = read_target(read_description(paths.trained))
    assert target is not None
    with whole_folder(paths.onnx) as folder:
        export_onnx(paths.trained, folder)
        difference = parity(paths.trained, folder, rows) / target.deviation
        if not difference <= TOLERANCE:
            raise UserError(
                f"products.{product.name}: ONNX must score as torch does, and differs by {difference:.2e} on "
                f"held-out rows, more than {TOLERANCE:g}; nothing was exported"
            )
    n_rows = len(next(iter(rows.values())))
    write_json(
        paths.report("export.json"),
        {
            "model_sha256": folder_sha256(paths.onnx),
            "max_difference": difference,
            "tolerance": TOLERANCE,
            "rows": n_rows,
            "bytes": (paths.onnx / "network.onnx").stat().st_size,
        },
    )
    return f"ONNX differs from torch by at most {difference:.1e} on {n_rows:,} held-out rows"


if __name__ == "__main__":
    stage.main(export)
