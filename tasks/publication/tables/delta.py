"""Keep a Delta Lake table of a product's nights, which follows their manifests: <url>/_tables/<product>.

The table holds of each date the rows of the night that stands, with the date as partition `dt`: latest and, for
`publish.keep_days`, as of an earlier version. A date's rows are replaced in one commit, which is one conditional PUT of
the next entry of the table's log. It follows the manifest: a publisher that dies between the two leaves the rows of
before, whole, until its retry, the next run of that date or `tasks.gc`.

A publisher that wakes late cannot put old rows back. Each commit records, as Delta's *transaction* of the date, the
generation that wrote the night. A publisher opens the table before it reads the manifest, and its commit fails where
the transaction of the date has changed since; then it reads both anew.

The table's own files are copies: a table that named the parts would hand them to its readers' VACUUM.
"""

import os
import random
import re
import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tasks.publication import manifests
from tasks.publication.contracts import Manifest
from tasks.publication.manifests import NightPlace
from tasks.publication.night_file import night_rows, scratch_folder, version_of, written_by
from tasks.publication.object_store import MAX_CAS_ROUNDS, Store
from tasks.publication.store_client import delta_options
from tasks.runtime import faults
from tasks.runtime.errors import TransientError, UserError

if TYPE_CHECKING:
    import pyarrow as pa
    from deltalake import DeltaTable

TABLES, DATE = "_tables", "dt"
_NOT_IN_A_NAME = re.compile(r"[ ,;{}()\n\t=]")
"""What no column of a Delta table may have in its name, unless readers know how to map names."""


def table_uri(store: Store, product: str) -> str:
    """Return the address of a product's table."""
    return store.uri(f"{TABLES}/{product}")


def follow_manifest(place: NightPlace, keep_days: int, folder: Path | None = None) -> bool:
    """Make the table's rows of a night those of its manifest; return False where they are already.

    The night's parts are taken from `folder` where they lie there, else from the store; a withdrawn night has no row.
    Raises UserError where a part is not as the manifest says, or a column changes its type; TransientError where the
    store does not answer or other writers keep coming first.
    """
    uri = table_uri(place.store, place.product)
    for turn in range(MAX_CAS_ROUNDS):
        table = open_table(place.store, place.product)  # before the manifest: see above
        manifest = manifests.current_manifest(place)
        if manifest is None or (table and recorded_generation(table, place) == written_by(manifest)):
            return False
        faults.failpoint("table: the manifest is read")
        with scratch_folder() as scratch:
            schema, pieces = night_rows(place, manifest, scratch, folder)
            form = delta_schema(schema, uri)
            if table is None:  # somebody else may make it, and write this night into it
                _create(place, form, keep_days)
                continue
            _check_types(table, form)
            if _commit(place, manifest, table, form, pieces):
                faults.failpoint("table: the rows are committed")
                return True
        time.sleep(random.uniform(0, min(0.01 * 2**turn, 1.0)))  # else writers in step lose to one another for long
    raise TransientError(f"{uri}: other writers came first {MAX_CAS_ROUNDS} times while we tried")


def open_table(store: Store, product: str) -> "DeltaTable | None":
    """Return the product's table as it is now; None where there is none. Raises TransientError."""
    deltalake = _deltalake()
    uri = table_uri(store, product)
    with table_errors(uri):
        try:
            return deltalake.DeltaTable(uri, storage_options=delta_options(store.url))
        except deltalake.exceptions.TableNotFoundError:
            return None


def recorded_generation(table: "DeltaTable", place: NightPlace) -> int | None:
    """Return the generation whose night the table holds, or none of whose rows since it was withdrawn."""
    return table.transaction_version(_transaction(place))


def delta_schema(schema: "pa.Schema", uri: str) -> "pa.Schema":
    """Return the columns of a night as a table has them: with its date last, and in types and names that Delta knows.

    Raises UserError where two columns would have one name.
    """
    import pyarrow as pa

    fields = [pa.field(_NOT_IN_A_NAME.sub("_", each.name), _delta_type(each.type)) for each in schema]
    names = [field.name.lower() for field in fields] + [DATE]
    twice = sorted({name for name in names if names.count(name) > 1})
    if twice:
        raise UserError(
            f"{uri}: columns of a table must differ in more than upper case, spaces and ,;{{}}()=, and these do not: "
            f"{', '.join(twice)}; rename the column or the class, or set publish.table to none"
        )
    return pa.schema([*fields, pa.field(DATE, pa.date32())])


def properties(keep_days: int) -> dict[str, str]:
    """Return the table's own settings: what is kept how long.

    No smallest and largest values of columns are kept: the log would grow by them, and hold keys after rows are gone.
    """
    return {
        "delta.checkpointInterval": "10",
        "delta.dataSkippingNumIndexedCols": "0",
        "delta.deletedFileRetentionDuration": f"interval {keep_days} days",
        "delta.logRetentionDuration": f"interval {keep_days} days",
    }


@contextmanager
def table_errors(uri: str) -> Iterator[None]:
    """Turn the library's errors about a table into TransientError; one that waiting does not mend is told at the end.

    A commit that lost against another one passes, and so does a table that is not there.
    """
    exceptions = _deltalake().exceptions
    try:
        yield
    except (exceptions.CommitFailedError, exceptions.TableNotFoundError):
        raise
    except (exceptions.DeltaError, OSError) as error:
        reason = " ".join(str(error).split())[:300]
        if "AWS_CA_BUNDLE" in os.environ and "SSL_CERT_FILE" not in os.environ:  # which Rust's TLS reads instead
            reason += "; set SSL_CERT_FILE to the file that AWS_CA_BUNDLE names"
        raise TransientError(
            f"{uri}: the table must be readable and writable, and is not ({reason}); the nights themselves are "
            "published; where this stays, look at the store and at its permissions below _tables"
        ) from None


def _create(place: NightPlace, schema: "pa.Schema", keep_days: int) -> None:
    deltalake = _deltalake()
    uri = table_uri(place.store, place.product)
    with table_errors(uri):
        deltalake.DeltaTable.create(
            uri,
            schema=schema,
            mode="ignore",
            partition_by=[DATE],
            name=place.product,
            configuration=properties(keep_days),
            storage_options=delta_options(place.store.url),
        )


def _commit(
    place: NightPlace, manifest: Manifest, table: "DeltaTable", schema: "pa.Schema", pieces: Iterable["pa.Table"]
) -> bool:
    """Replace the rows of the night's date in one commit; return False where another writer came first."""
    import pyarrow as pa

    deltalake = _deltalake()
    batches = (batch for piece in pieces for batch in with_date(piece, place, schema).to_batches())
    about = {"lamplighter.manifest": place.store.uri(place.manifest), "lamplighter.night": version_of(manifest)}
    try:
        with table_errors(table.table_uri):
            deltalake.write_deltalake(
                table,
                pa.RecordBatchReader.from_batches(schema, batches),
                mode="overwrite",
                predicate=f"{DATE} = '{place.as_of.isoformat()}'",
                schema_mode="merge",
                commit_properties=deltalake.CommitProperties(
                    custom_metadata=about,
                    app_transactions=[deltalake.Transaction(_transaction(place), written_by(manifest))],
                ),
            )
    except deltalake.exceptions.CommitFailedError:
        return False
    return True


def _check_types(table: "DeltaTable", schema: "pa.Schema") -> None:
    """Check that the columns have the types of the table: the library would cast what can be cast, without a word."""
    known = {field.name: field.type for field in table.schema().fields}
    for field in _deltalake().Schema.from_arrow(schema).fields:
        if (former := known.get(field.name, field.type)) != field.type:
            raise UserError(
                f"{table.table_uri}: a column must keep its type, and {field.name} was {former.type} and is now "
                f"{field.type.type}; name the product or publish.url anew, or delete the table and start a new run: it "
                "begins anew with the nights that have this type"
            )


def with_date(piece: "pa.Table", place: NightPlace, schema: "pa.Schema") -> "pa.Table":
    """Return rows of a night in the form of its table, with the date."""
    import pyarrow as pa

    dates = pa.repeat(pa.scalar(place.as_of, pa.date32()), piece.num_rows)
    return piece.rename_columns(schema.names[:-1]).append_column(schema.field(DATE), dates).cast(schema)


def _delta_type(kind: "pa.DataType") -> "pa.DataType":
    import pyarrow as pa

    if pa.types.is_timestamp(kind):
        return pa.timestamp("us", kind.tz)
    return kind.value_type if pa.types.is_dictionary(kind) else kind


def _transaction(place: NightPlace) -> str:
    return f"{place.product}/{DATE}={place.as_of.isoformat()}"


def _deltalake() -> Any:
    try:
        import deltalake
        import deltalake.exceptions
    except ImportError:
        raise UserError(
            "publish.table: delta must have the package deltalake, which is not installed; "
            "pip install --constraint constraints.txt '.[delta]', or set it to none"
        ) from None
    return deltalake
