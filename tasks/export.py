"""Write the trained model as ONNX, fail unless it scores held-out rows as torch does, and choose what runs it.

Reads data/models/<product>/trained, writes data/models/<product>/onnx: what `predict` runs. The engine (ONNX
Runtime, or OpenVINO where it is installed) and its precision are measured on validation rows and recorded in
`engine.json`; export.json has every candidate's speed and metric, and the chosen one's on held-out rows.
`model.engine` of params.yaml names one engine in place of the measurement.
"""

from datetime import date

from tasks import stage
from tasks.params import Product
from tasks.runtime.files import write_json
from tasks.runtime.paths import Paths
from tasks.training.exporting import export_model


def export(product: Product, as_of: date) -> str:
    """Write the exported model, and the report of its proof and of the engine's choice.

    Raises: UserError when ONNX and torch differ by more than a tolerance, or the engine that params.yaml names cannot
    be used.
    """
    paths = Paths(product.name)
    exported = export_model(product, paths)
    write_json(paths.report("export.json"), exported.report())
    return exported.summary


if __name__ == "__main__":
    stage.main(export)
