"""Read nights that Lamplighter has published: one complete night, every hash verified, whatever is being written.

    from lamplighter_reader import read_predictions
    frame = read_predictions("s3://lamplighter/predictions", "flight-delays", dt="2013-06-30")

The object store's address and credentials come from AWS's own environment variables.
"""

from lamplighter_reader.publication.contracts import Manifest
from lamplighter_reader.read import follow_nights, list_nights, read_manifest, read_predictions, verify_night
from lamplighter_reader.runtime.errors import TransientError, UserError

__all__ = [
    "Manifest",
    "TransientError",
    "UserError",
    "follow_nights",
    "list_nights",
    "read_manifest",
    "read_predictions",
    "verify_night",
]
