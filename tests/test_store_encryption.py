"""Oracle: a real S3 server behind TLS with a certificate of our own, and a search through the bytes of its disk."""

import datetime
import ipaddress
import secrets
import subprocess
import sys
import time
import uuid
from base64 import b64encode

import pytest
from builders import a_product, a_repository
from conftest import free_port
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from test_publish import AS_OF, make_night, url  # noqa: F401 (a fixture)

from tasks.commands.upkeep.forget import forget_subject
from tasks.erasure.beside import earlier_versions, erase_versions
from tasks.erasure.subject import subject_of
from tasks.publication.object_store import Store
from tasks.publication.salts.table import SaltTable
from tasks.publication.store_client import connect
from tasks.publication.tables.delta import open_table
from tasks.publish import publish
from tasks.read import read_predictions
from tasks.rows.personal_data import subject_id
from tasks.runs import remote
from tasks.runs.objects import Objects
from tasks.runtime.errors import TransientError, UserError
from tasks.runtime.forks import dvc_commands
from tasks.runtime.git import git
from tasks.runtime.settings import BIN

pytestmark = [pytest.mark.s3, pytest.mark.slow]
KINDS = ("AES256", "customer")
KEY = b64encode(secrets.token_bytes(32)).decode()


def certificate(folder):
    """Write an authority's certificate, and one for loopback that it has signed, with its key."""

    def name(text):
        return x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, text)])

    def make(subject, key, signer, *extensions):
        now = datetime.datetime.now(datetime.UTC)
        made = x509.CertificateBuilder(name("authority"), name(subject), key.public_key(), x509.random_serial_number())
        made = made.not_valid_before(now).not_valid_after(now + datetime.timedelta(days=1))
        for extension, critical in extensions:
            made = made.add_extension(extension, critical)
        return made.sign(signer, hashes.SHA256()).public_bytes(serialization.Encoding.PEM)

    authority, own = (ec.generate_private_key(ec.SECP256R1()) for _ in range(2))
    loopback = x509.SubjectAlternativeName([x509.IPAddress(ipaddress.ip_address("127.0.0.1"))])
    basic = x509.BasicConstraints(ca=True, path_length=None)
    (folder / "authority.pem").write_bytes(make("authority", authority, authority, (basic, True)))
    (folder / "own.pem").write_bytes(make("store", own, authority, (loopback, False)))
    form = serialization.PrivateFormat.PKCS8
    plain = serialization.NoEncryption()
    (folder / "own.key").write_bytes(own.private_bytes(serialization.Encoding.PEM, form, plain))


@pytest.fixture(scope="module")
def server(tmp_path_factory):
    """The folder of a store that speaks TLS, and its environment."""
    folder = tmp_path_factory.mktemp("tls")
    certificate(folder)
    first = free_port()
    https = first + 5
    keys = {"AWS_ACCESS_KEY_ID": "reader", "AWS_SECRET_ACCESS_KEY": secrets.token_hex(16)}
    command = [str(BIN / "weed"), "mini", "-dir=data", "-ip=127.0.0.1", "-ip.bind=127.0.0.1", "-webdav=false"]
    servers = ("s3", "master", "filer", "volume", "admin")
    command += [f"-{name}.port={port}" for port, name in enumerate(servers, start=first)]
    command += [
        f"-s3.port.https={https}",
        "-s3.port.iceberg=0",
        "-s3.port.lance=0",
        "-admin.ui=false",
        "-master.telemetry=false",
    ]
    command += [f"-s3.cert.file={folder / 'own.pem'}", f"-s3.key.file={folder / 'own.key'}"]
    (folder / "data").mkdir()
    with (folder / "log").open("wb") as log:
        process = subprocess.Popen(
            command, cwd=folder, env=keys | {"S3_BUCKET": "lamplighter"}, stdout=log, stderr=subprocess.STDOUT
        )
    env = keys | {
        "AWS_ENDPOINT_URL_S3": f"https://127.0.0.1:{https}",
        "AWS_DEFAULT_REGION": "us-east-1",
        "AWS_CA_BUNDLE": str(folder / "authority.pem"),
        "SSL_CERT_FILE": str(folder / "authority.pem"),
    }
    try:
        yield folder, env
    finally:
        process.kill()
        process.wait()


@pytest.fixture
def entered(server, monkeypatch):
    """The same, for code in this process; returns the folder."""
    for name, value in server[1].items():
        monkeypatch.setenv(name, value)
    monkeypatch.setenv("LAMPLIGHTER_STORE_KEY", KEY)
    until = time.monotonic() + 60
    while True:
        try:
            Store("s3://lamplighter/up").read("nothing")
            return server[0]
        except (TransientError, UserError):
            assert time.monotonic() < until, (server[0] / "log").read_text(errors="replace")[-2000:]
            time.sleep(0.3)


def on_disk(folder, marker):
    return any(marker in path.read_bytes() for path in (folder / "data").rglob("*") if path.is_file())


@pytest.mark.parametrize("kind", ["", *KINDS])
def test_what_is_kept_is_read_with_the_same_settings_and_lies_encrypted(entered, monkeypatch, tmp_path, kind):
    monkeypatch.setenv("LAMPLIGHTER_STORE_ENCRYPTION", kind)
    store, marker = Store(f"s3://lamplighter/{uuid.uuid4().hex}"), secrets.token_hex(40).encode()
    (tmp_path / "part").write_bytes(marker)
    assert store.create_file("part", tmp_path / "part") is True
    assert store.create_file("part", tmp_path / "part") is False
    first = store.read("part")
    assert first.body == marker
    (tmp_path / "large").write_bytes(marker * 250_000)
    store.create_file("large", tmp_path / "large")
    assert store.read("large").body == marker * 250_000
    assert on_disk(entered, marker) is (not kind)


def test_no_other_key_and_no_key_reads_what_a_customers_key_encrypts(entered, monkeypatch, tmp_path):
    monkeypatch.setenv("LAMPLIGHTER_STORE_ENCRYPTION", "customer")
    prefix = f"s3://lamplighter/{uuid.uuid4().hex}"
    (tmp_path / "part").write_bytes(b"kept")
    Store(prefix).create_file("part", tmp_path / "part")
    monkeypatch.setenv("LAMPLIGHTER_STORE_KEY", b64encode(bytes(32)).decode())
    with pytest.raises((UserError, TransientError)):
        Store(prefix).read("part")
    monkeypatch.delenv("LAMPLIGHTER_STORE_ENCRYPTION")
    with pytest.raises(UserError):
        Store(prefix).read("part")


@pytest.mark.parametrize("kind", KINDS)
def test_nights_and_tables_are_published_and_read_encrypted(entered, monkeypatch, tmp_path, kind):
    monkeypatch.setenv("LAMPLIGHTER_STORE_ENCRYPTION", kind)
    monkeypatch.chdir(tmp_path)
    a_repository(tmp_path)
    prefix = f"s3://lamplighter/{uuid.uuid4().hex}"
    _, table = make_night(prefix)
    publish(a_product(publish={"url": prefix, "table": "delta"}), AS_OF)
    publish(a_product(publish={"url": prefix, "table": "delta"}), AS_OF)
    found = read_predictions(prefix, "tiny", str(AS_OF))
    assert sorted(found.parcel_id) == sorted(table.parcel_id)
    rows = open_table(Store(prefix), "tiny").to_pyarrow_table()
    assert sorted(rows["parcel_id"].to_pylist()) == sorted(table.parcel_id)


@pytest.mark.parametrize("kind", KINDS)
def test_versions_that_are_encrypted_are_looked_into_and_erased(entered, monkeypatch, kind):
    monkeypatch.setenv("LAMPLIGHTER_STORE_ENCRYPTION", kind)
    monkeypatch.setenv("LAMPLIGHTER_PII_KEY", "a key of the tests, long enough")
    bucket = f"versions-{uuid.uuid4().hex[:12]}"
    client = connect(f"s3://{bucket}")
    client.create_bucket(Bucket=bucket)
    client.put_bucket_versioning(Bucket=bucket, VersioningConfiguration={"Status": "Enabled"})
    store, product = Store(f"s3://{bucket}"), a_product(pii={"depot": "salted"}, publish={"url": f"s3://{bucket}"})
    for key, line in (("log", "a line of p00405"), ("other", "a line of p00406")):
        for text in (line, "a line"):
            store.update(key, lambda _, text=text: text.encode())
    assert erase_versions(store.url, "", subject_of(product, "p00405", b"secret")) == 1
    assert [key for _, key, _ in earlier_versions(store.url, "")] == ["other"]
    table, subject = SaltTable(store, "tiny"), subject_id(product, "Rome")
    salt = table.minting(True)([subject])[subject]
    forget_subject(product, "depot=Rome", "a letter", "Ann", AS_OF, yes=True)
    assert [*earlier_versions(store.url, table.key(subject[0]))] == []
    assert salt.encode() not in store.read(table.key(subject[0])).body


@pytest.mark.long
@pytest.mark.parametrize("kind", KINDS)
def test_data_goes_to_the_remote_and_comes_back_encrypted(entered, monkeypatch, tmp_path, kind):
    monkeypatch.setenv("LAMPLIGHTER_STORE_ENCRYPTION", kind)
    for name in ("origin", "home", "cache"):
        monkeypatch.setenv(f"LAMPLIGHTER_{name.upper()}", str(tmp_path / name))
    origin, marker = a_repository(tmp_path / "origin", message=None), secrets.token_hex(40)

    def dvc(*arguments):
        command = [sys.executable, "-m", "dvc", *arguments, "--quiet"]
        subprocess.run(command, cwd=origin, check=True, env=remote.dvc_environment())

    dvc("init")
    dvc("remote", "add", "--default", "store", f"s3://lamplighter/{uuid.uuid4().hex}")
    (origin / "rows").mkdir()
    (origin / "rows" / "day").write_text(marker)
    dvc("add", "rows")
    git("add", "--all", cwd=origin)
    git("commit", "--quiet", "-m", "Rows", cwd=origin)
    command = [sys.executable, "-P", dvc_commands.__file__]  # as a run's tasks push
    answer = subprocess.run(
        command,
        cwd=origin,
        input='["push"]\n',
        text=True,
        capture_output=True,
        check=True,
        env=remote.dvc_environment(),
    )
    assert answer.stdout.endswith(f"{dvc_commands.END}0\n"), answer.stdout + answer.stderr
    assert not on_disk(entered, marker.encode())
    monkeypatch.chdir(tmp_path)
    commit = git("rev-parse", "HEAD", cwd=origin).strip()
    remote.get(commit, origin.relative_to(origin) / "rows", tmp_path / "got", "rows", "do so")
    assert (tmp_path / "got" / "day").read_text() == marker
    objects = Objects.of_remote(origin)
    assert len(objects.stored) == 2
    [folder] = [each for each in objects.stored if each.endswith(".dir")]
    assert len(objects.read_folder(folder)) == 1


def test_table_without_the_authority_names_the_variable_that_it_reads(entered, monkeypatch):
    monkeypatch.delenv("SSL_CERT_FILE")
    with pytest.raises(TransientError, match="set SSL_CERT_FILE to the file that AWS_CA_BUNDLE names"):
        open_table(Store(f"s3://lamplighter/{uuid.uuid4().hex}"), "tiny")


def test_certificate_that_nobody_vouches_for_is_told_with_the_remedy(entered, monkeypatch):
    monkeypatch.delenv("AWS_CA_BUNDLE")
    with pytest.raises(UserError, match="AWS_CA_BUNDLE"):
        Store("s3://lamplighter/x").read("part")


@pytest.mark.parametrize(
    ("kind", "key", "expected"),
    [
        ("aes", KEY, "LAMPLIGHTER_STORE_ENCRYPTION must be AES256, aws:kms, aws:kms:KEY or customer, got 'aes'"),
        ("customer", "", "LAMPLIGHTER_STORE_KEY must be 32 bytes as base64"),
        ("customer", "c2hvcnQ=", "LAMPLIGHTER_STORE_KEY must be 32 bytes as base64"),
        ("customer", "%" * 44, "LAMPLIGHTER_STORE_KEY must be 32 bytes as base64"),
    ],
    ids=["no kind", "no key", "short", "no base64"],
)
def test_setting_that_is_none_is_refused_without_showing_the_key(entered, monkeypatch, kind, key, expected):
    monkeypatch.setenv("LAMPLIGHTER_STORE_ENCRYPTION", kind)
    monkeypatch.setenv("LAMPLIGHTER_STORE_KEY", key)
    with pytest.raises(UserError) as refused:
        connect("s3://lamplighter")
    assert expected in str(refused.value)
    assert not key or key not in str(refused.value)


@pytest.mark.parametrize("kind", ["aws:kms", "aws:kms:alias/nights"])
def test_a_key_service_is_asked_for_in_every_request_that_writes(entered, monkeypatch, kind):
    """The embedded server has no key service: what goes out is looked at, and not sent."""
    monkeypatch.setenv("LAMPLIGHTER_STORE_ENCRYPTION", kind)
    client, sent = connect("s3://lamplighter"), {}

    def look(request, **_):
        sent.update({name: value for name, value in request.headers.items() if "encryption" in name.lower()})
        raise KeyboardInterrupt

    client.meta.events.register_first("before-send.s3", look)
    with pytest.raises(KeyboardInterrupt):
        client.put_object(Bucket="lamplighter", Key="x", Body=b"")
    expected = {"x-amz-server-side-encryption": "aws:kms"}
    if kind != "aws:kms":
        expected["x-amz-server-side-encryption-aws-kms-key-id"] = "alias/nights"
    assert {name: value.decode() if isinstance(value, bytes) else value for name, value in sent.items()} == expected
