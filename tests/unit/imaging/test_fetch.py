"""Downloads against a real HTTP server on this machine."""

from __future__ import annotations

import base64
import gzip
import hashlib
import threading
from concurrent.futures import ThreadPoolExecutor
from urllib.parse import quote

import pytest

from ml_backend.domain import LabelStudioAccess
from ml_backend.errors import ImageFetchError, ImageRefused, ImageTooLarge
from tests.image_server import Asked, ImageServer, Reply
from tests.unit.imaging.conftest import MakeFetcher

PIXELS = bytes(range(256)) * 8
TOKEN = "0123456789abcdef0123456789abcdef01234567"


def access_to(server: ImageServer, token: str | None = TOKEN) -> LabelStudioAccess:
    return LabelStudioAccess(origin=server.origin, token=token)


def test_an_upload_is_fetched_with_the_token(
    label_studio: ImageServer, make_fetcher: MakeFetcher
) -> None:
    label_studio.routes["/data/upload/1/ab-cells.png"] = Reply(body=PIXELS)

    file = make_fetcher().fetch(
        "/data/upload/1/ab-cells.png", task_id=1, access=access_to(label_studio)
    )

    assert file.path.read_bytes() == PIXELS
    assert file.size == len(PIXELS)
    assert file.sha256 == hashlib.sha256(PIXELS).hexdigest()
    assert label_studio.asked[0].headers["authorization"] == f"Token {TOKEN}"


def test_a_relative_local_file_keeps_its_query(
    label_studio: ImageServer, make_fetcher: MakeFetcher
) -> None:
    label_studio.routes["/data/local-files/"] = Reply(body=PIXELS)

    make_fetcher().fetch(
        "/data/local-files/?d=plate%201/a.png", task_id=1, access=access_to(label_studio)
    )

    assert label_studio.paths() == ["/data/local-files/?d=plate%201/a.png"]


def test_a_name_with_spaces_and_umlauts_is_encoded(
    label_studio: ImageServer, make_fetcher: MakeFetcher
) -> None:
    label_studio.routes["/data/upload/1/Zelle%20%C3%A4.png"] = Reply(body=PIXELS)

    file = make_fetcher().fetch(
        "/data/upload/1/Zelle ä.png", task_id=1, access=access_to(label_studio)
    )

    assert file.size == len(PIXELS)


@pytest.mark.parametrize("address", ["/data/upload/1/a.png", "/label-studio/data/upload/1/a.png"])
def test_label_studio_under_a_path_prefix_works_whether_or_not_the_task_has_it(
    address: str, label_studio: ImageServer, make_fetcher: MakeFetcher
) -> None:
    label_studio.routes["/label-studio/data/upload/1/a.png"] = Reply(body=PIXELS)
    access = LabelStudioAccess(origin=f"{label_studio.origin}/label-studio", token=TOKEN)

    file = make_fetcher().fetch(address, task_id=1, access=access)

    assert file.size == len(PIXELS)


def test_a_relative_address_without_a_known_label_studio_names_the_setting(
    make_fetcher: MakeFetcher,
) -> None:
    with pytest.raises(ImageFetchError, match="LABEL_STUDIO_URL"):
        make_fetcher().fetch(
            "/data/upload/1/a.png", task_id=1, access=LabelStudioAccess(origin=None)
        )


def test_label_studios_own_name_for_itself_is_replaced_by_ours(
    label_studio: ImageServer, make_fetcher: MakeFetcher
) -> None:
    label_studio.routes["/data/local-files/"] = Reply(body=PIXELS)

    file = make_fetcher().fetch(
        "http://localhost:8080/data/local-files/?d=a.png",
        task_id=1,
        access=access_to(label_studio),
    )

    assert file.size == len(PIXELS)
    assert label_studio.paths() == ["/data/local-files/?d=a.png"]


def test_a_loopback_host_that_was_allowed_is_meant_as_it_is_written(
    label_studio: ImageServer, elsewhere: ImageServer, make_fetcher: MakeFetcher
) -> None:
    elsewhere.routes["/data/upload/a.png"] = Reply(body=PIXELS)

    make_fetcher(allowed=("127.0.0.1",)).fetch(
        f"{elsewhere.origin}/data/upload/a.png", task_id=1, access=access_to(label_studio)
    )

    assert elsewhere.paths() == ["/data/upload/a.png"]
    assert "authorization" not in elsewhere.asked[0].headers


def test_cloud_storage_is_asked_of_label_studio_and_the_redirect_gets_no_token(
    label_studio: ImageServer, elsewhere: ImageServer, make_fetcher: MakeFetcher
) -> None:
    uri = "s3://bucket/plate 1/cells.png"
    label_studio.routes["/tasks/7/resolve/"] = Reply(
        status=303, headers={"Location": f"{elsewhere.origin}/bucket/cells.png?signature=abc"}
    )
    elsewhere.routes["/bucket/cells.png"] = Reply(body=PIXELS)

    file = make_fetcher(allowed=("127.0.0.1",)).fetch(
        uri, task_id=7, access=access_to(label_studio)
    )

    packed = base64.urlsafe_b64encode(uri.encode()).decode()
    assert file.size == len(PIXELS)
    assert label_studio.paths() == [f"/tasks/7/resolve/?fileuri={packed}"]
    assert label_studio.asked[0].headers["authorization"] == f"Token {TOKEN}"
    assert "authorization" not in elsewhere.asked[0].headers


def test_a_presigned_address_is_cached_under_the_storage_address(
    label_studio: ImageServer, elsewhere: ImageServer, make_fetcher: MakeFetcher
) -> None:
    signatures = iter("ab")
    label_studio.routes["/tasks/7/resolve/"] = lambda asked: Reply(
        status=303, headers={"Location": f"{elsewhere.origin}/c.png?s={next(signatures)}"}
    )
    elsewhere.routes["/c.png"] = Reply(body=PIXELS)
    fetcher = make_fetcher(allowed=("127.0.0.1",))

    for _ in range(2):
        fetcher.fetch("gs://bucket/c.png", task_id=7, access=access_to(label_studio))

    assert elsewhere.paths() == ["/c.png?s=a"]


def test_a_redirect_to_another_port_of_the_same_host_gets_no_token(
    label_studio: ImageServer, elsewhere: ImageServer, make_fetcher: MakeFetcher
) -> None:
    label_studio.routes["/data/upload/1/a.png"] = Reply(
        status=302, headers={"Location": f"{elsewhere.origin}/a.png"}
    )
    elsewhere.routes["/a.png"] = Reply(body=PIXELS)

    make_fetcher(allowed=("127.0.0.0/8",)).fetch(
        "/data/upload/1/a.png", task_id=1, access=access_to(label_studio)
    )

    assert "authorization" not in elsewhere.asked[0].headers


def test_a_redirect_back_to_label_studio_carries_the_token_again(
    label_studio: ImageServer, make_fetcher: MakeFetcher
) -> None:
    label_studio.routes["/data/upload/1/a.png"] = Reply(
        status=301, headers={"Location": "/data/upload/1/b.png"}
    )
    label_studio.routes["/data/upload/1/b.png"] = Reply(body=PIXELS)

    make_fetcher().fetch("/data/upload/1/a.png", task_id=1, access=access_to(label_studio))

    assert label_studio.asked[1].headers["authorization"] == f"Token {TOKEN}"


def test_endless_redirects_end(label_studio: ImageServer, make_fetcher: MakeFetcher) -> None:
    label_studio.routes["/data/upload/1/a.png"] = Reply(
        status=302, headers={"Location": "/data/upload/1/a.png"}
    )

    with pytest.raises(ImageFetchError, match="redirects"):
        make_fetcher().fetch("/data/upload/1/a.png", task_id=1, access=access_to(label_studio))

    assert len(label_studio.asked) == 6


def test_a_redirect_to_another_scheme_is_refused(
    label_studio: ImageServer, make_fetcher: MakeFetcher
) -> None:
    label_studio.routes["/data/upload/1/a.png"] = Reply(
        status=302, headers={"Location": "file:///etc/passwd"}
    )

    with pytest.raises(ImageRefused, match="file"):
        make_fetcher().fetch("/data/upload/1/a.png", task_id=1, access=access_to(label_studio))


def test_a_private_address_is_refused(
    label_studio: ImageServer, elsewhere: ImageServer, make_fetcher: MakeFetcher
) -> None:
    elsewhere.routes["/a.png"] = Reply(body=PIXELS)

    with pytest.raises(ImageRefused, match="ALLOWED_HOSTS"):
        make_fetcher().fetch(f"{elsewhere.origin}/a.png", task_id=1, access=access_to(label_studio))

    assert elsewhere.asked == []


@pytest.mark.parametrize("allowed", ["127.0.0.1", "127.0.0.0/8", "images.test"])
def test_a_private_address_that_was_allowed_is_fetched_without_the_token(
    allowed: str, label_studio: ImageServer, elsewhere: ImageServer, make_fetcher: MakeFetcher
) -> None:
    elsewhere.routes["/a.png"] = Reply(body=PIXELS)
    fetcher = make_fetcher(allowed=(allowed,), resolver=lambda host, port: ["127.0.0.1"])

    file = fetcher.fetch(
        f"http://images.test:{elsewhere.port}/a.png", task_id=1, access=access_to(label_studio)
    )

    assert file.size == len(PIXELS)
    assert "authorization" not in elsewhere.asked[0].headers
    assert elsewhere.asked[0].headers["host"] == f"images.test:{elsewhere.port}"


def test_a_redirect_from_an_allowed_host_to_a_private_one_is_refused(
    elsewhere: ImageServer, make_fetcher: MakeFetcher
) -> None:
    elsewhere.routes["/a.png"] = Reply(
        status=302, headers={"Location": "http://169.254.169.254/latest/meta-data/"}
    )
    fetcher = make_fetcher(allowed=("127.0.0.1",))

    with pytest.raises(ImageRefused, match=r"169\.254\.169\.254"):
        fetcher.fetch(f"{elsewhere.origin}/a.png", task_id=1, access=LabelStudioAccess(origin=None))


def test_what_was_checked_is_what_is_connected_to(
    elsewhere: ImageServer, make_fetcher: MakeFetcher
) -> None:
    elsewhere.routes["/a.png"] = Reply(body=PIXELS)
    answers = iter([["127.0.0.1"], ["10.0.0.1"], ["10.0.0.1"]])
    fetcher = make_fetcher(allowed=("127.0.0.1",), resolver=lambda host, port: next(answers))

    fetcher.fetch(
        f"http://rebind.test:{elsewhere.port}/a.png",
        task_id=1,
        access=LabelStudioAccess(origin=None),
    )

    assert len(elsewhere.asked) == 1
    assert next(answers) == ["10.0.0.1"]


@pytest.mark.parametrize("address", ["file:///etc/passwd", "ftp://host/a.png", "C:\\a.png"])
def test_other_schemes_are_refused(address: str, make_fetcher: MakeFetcher) -> None:
    with pytest.raises(ImageRefused, match="upload"):
        make_fetcher().fetch(address, task_id=1, access=LabelStudioAccess(origin=None))


def test_a_file_over_the_cap_is_refused_by_its_content_length(
    label_studio: ImageServer, make_fetcher: MakeFetcher
) -> None:
    label_studio.routes["/data/upload/1/a.png"] = Reply(promised=5_000_000, body=b"x")

    with pytest.raises(ImageTooLarge, match="has 5 MB, more than MAX_IMAGE_MB"):
        make_fetcher().fetch("/data/upload/1/a.png", task_id=1, access=access_to(label_studio))


def test_a_file_over_the_cap_is_refused_while_it_streams(
    label_studio: ImageServer, make_fetcher: MakeFetcher
) -> None:
    label_studio.routes["/data/upload/1/a.png"] = Reply(pieces=[bytes(300_000)] * 10)

    with pytest.raises(ImageTooLarge, match="MAX_IMAGE_MB"):
        make_fetcher().fetch("/data/upload/1/a.png", task_id=1, access=access_to(label_studio))


def test_a_compressed_body_counts_by_what_it_becomes(
    label_studio: ImageServer, make_fetcher: MakeFetcher
) -> None:
    label_studio.routes["/data/upload/1/a.png"] = Reply(
        headers={"Content-Encoding": "gzip"}, body=gzip.compress(bytes(50_000_000))
    )

    with pytest.raises(ImageTooLarge, match="MAX_IMAGE_MB"):
        make_fetcher().fetch("/data/upload/1/a.png", task_id=1, access=access_to(label_studio))


def test_a_gzip_body_is_unpacked(label_studio: ImageServer, make_fetcher: MakeFetcher) -> None:
    label_studio.routes["/data/upload/1/a.png"] = Reply(
        headers={"Content-Encoding": "gzip"}, body=gzip.compress(PIXELS)
    )

    file = make_fetcher().fetch("/data/upload/1/a.png", task_id=1, access=access_to(label_studio))

    assert file.path.read_bytes() == PIXELS


def test_a_server_that_drips_is_given_up_after_the_whole_time(
    label_studio: ImageServer, make_fetcher: MakeFetcher
) -> None:
    label_studio.routes["/data/upload/1/a.png"] = Reply(pieces=[b"x"] * 500, pause_s=0.02)

    with pytest.raises(ImageTooLarge, match=r"0\.4 s; raise FETCH_TIMEOUT_S"):
        make_fetcher(timeout_s=0.4).fetch(
            "/data/upload/1/a.png", task_id=1, access=access_to(label_studio)
        )


def test_a_download_that_breaks_off_is_tried_once_more_and_never_kept(
    label_studio: ImageServer, make_fetcher: MakeFetcher
) -> None:
    label_studio.routes["/data/upload/1/a.png"] = Reply(promised=5000, body=PIXELS)

    with pytest.raises(ImageFetchError, match="broke before the image was complete"):
        make_fetcher().fetch("/data/upload/1/a.png", task_id=1, access=access_to(label_studio))

    assert len(label_studio.asked) == 2


def test_a_login_page_says_that_a_token_is_wanted(
    label_studio: ImageServer, make_fetcher: MakeFetcher
) -> None:
    label_studio.routes["/data/upload/1/a.png"] = Reply(
        headers={"Content-Type": "text/html; charset=utf-8"},
        body=b"<!DOCTYPE html><title>Label Studio</title>",
    )

    with pytest.raises(ImageFetchError, match="LABEL_STUDIO_API_KEY"):
        make_fetcher().fetch(
            "/data/upload/1/a.png", task_id=1, access=access_to(label_studio, token=None)
        )


@pytest.mark.parametrize(
    ("content_type", "body", "sentence"),
    [
        ("text/html", b"<html><body>Hello", "web page"),
        ("image/png", b"\n<!doctype html>", "web page"),
        ("application/json", b'{"detail": "no"}', "JSON"),
        ("image/png", b"", "empty"),
    ],
)
def test_what_is_plainly_no_image_is_told_apart(
    content_type: str,
    body: bytes,
    sentence: str,
    elsewhere: ImageServer,
    make_fetcher: MakeFetcher,
) -> None:
    elsewhere.routes["/a.png"] = Reply(headers={"Content-Type": content_type}, body=body)

    with pytest.raises(ImageFetchError, match=sentence):
        make_fetcher(allowed=("127.0.0.1",)).fetch(
            f"{elsewhere.origin}/a.png", task_id=1, access=LabelStudioAccess(origin=None)
        )


@pytest.mark.parametrize(
    ("address", "status", "sentence"),
    [
        ("/data/upload/1/a.png", 404, "import the image again"),
        ("/data/upload/1/a.png", 500, "import the image again"),
        ("/data/local-files/?d=../x.png", 500, "LOCAL_FILES_DOCUMENT_ROOT"),
        ("/data/upload/1/a.png", 403, "may not see this project"),
        ("s3://bucket/key.png", 404, "No storage of the project"),
        ("/data/upload/1/a.png", 418, "answered 418"),
    ],
)
def test_each_refusal_of_label_studio_has_its_remedy(
    address: str,
    status: int,
    sentence: str,
    label_studio: ImageServer,
    make_fetcher: MakeFetcher,
) -> None:
    for path in ("/data/upload/1/a.png", "/data/local-files/", "/tasks/1/resolve/"):
        label_studio.routes[path] = Reply(status=status)

    with pytest.raises(ImageFetchError, match=sentence):
        make_fetcher().fetch(address, task_id=1, access=access_to(label_studio))

    assert len(label_studio.asked) == 1


def test_another_servers_bad_moment_is_tried_once_more(
    elsewhere: ImageServer, make_fetcher: MakeFetcher
) -> None:
    replies = iter([Reply(status=500), Reply(body=PIXELS)])
    elsewhere.routes["/a.png"] = lambda asked: next(replies)

    file = make_fetcher(allowed=("127.0.0.1",)).fetch(
        f"{elsewhere.origin}/a.png", task_id=1, access=LabelStudioAccess(origin=None)
    )

    assert file.size == len(PIXELS)


def test_a_server_that_is_not_there_is_named(make_fetcher: MakeFetcher) -> None:
    with ImageServer() as gone:
        access = access_to(gone)

    with pytest.raises(ImageFetchError, match="cannot be reached"):
        make_fetcher().fetch("/data/upload/1/a.png", task_id=1, access=access)


def test_an_unknown_host_is_named(make_fetcher: MakeFetcher) -> None:
    def unknown(host: str, port: int) -> list[str]:
        raise OSError("Name or service not known")

    with pytest.raises(ImageFetchError, match=r"host nowhere\.test is unknown"):
        make_fetcher(resolver=unknown).fetch(
            "http://nowhere.test/a.png", task_id=1, access=LabelStudioAccess(origin=None)
        )


def test_many_threads_share_one_download(
    label_studio: ImageServer, make_fetcher: MakeFetcher
) -> None:
    started, release = threading.Event(), threading.Event()

    def slow(asked: Asked) -> Reply:
        started.set()
        release.wait(5)
        return Reply(body=PIXELS)

    label_studio.routes["/data/upload/1/a.png"] = slow
    fetcher = make_fetcher()

    def fetch() -> str:
        return fetcher.fetch(
            "/data/upload/1/a.png", task_id=1, access=access_to(label_studio)
        ).sha256

    with ThreadPoolExecutor(8) as pool:
        waiting = [pool.submit(fetch) for _ in range(8)]
        started.wait(5)
        release.set()
        hashes = {one.result() for one in waiting}

    assert len(hashes) == 1
    assert len(label_studio.asked) == 1


def test_an_upload_is_downloaded_once_for_ever(
    label_studio: ImageServer, make_fetcher: MakeFetcher
) -> None:
    label_studio.routes["/data/upload/1/a.png"] = Reply(body=PIXELS)

    for _ in range(2):
        make_fetcher().fetch("/data/upload/1/a.png", task_id=1, access=access_to(label_studio))

    assert len(label_studio.asked) == 1


def test_another_token_is_not_served_from_the_cache(
    label_studio: ImageServer, make_fetcher: MakeFetcher
) -> None:
    label_studio.routes["/data/upload/1/a.png"] = lambda asked: (
        Reply(body=PIXELS)
        if asked.headers.get("authorization") == f"Token {TOKEN}"
        else Reply(status=401)
    )
    fetcher = make_fetcher()
    fetcher.fetch("/data/upload/1/a.png", task_id=1, access=access_to(label_studio))

    with pytest.raises(ImageFetchError, match="legacy"):
        fetcher.fetch(
            "/data/upload/1/a.png", task_id=1, access=access_to(label_studio, token="f" * 40)
        )


@pytest.mark.parametrize(
    "address",
    [
        "data:image/png;base64," + base64.b64encode(PIXELS).decode(),
        "data:image/png;base64," + quote(base64.b64encode(PIXELS).decode()).rstrip("%3D"),
        "data:application/octet-stream," + quote(PIXELS),
    ],
)
def test_a_data_address_is_its_own_file(address: str, make_fetcher: MakeFetcher) -> None:
    file = make_fetcher().fetch(address, task_id=1, access=LabelStudioAccess(origin=None))

    assert file.path.read_bytes() == PIXELS


@pytest.mark.parametrize("address", ["data:image/png;base64", "data:image/png;base64,%%%"])
def test_a_broken_data_address_is_named(address: str, make_fetcher: MakeFetcher) -> None:
    with pytest.raises(ImageFetchError, match="data: address"):
        make_fetcher().fetch(address, task_id=1, access=LabelStudioAccess(origin=None))


def test_a_data_address_over_the_cap_is_refused(make_fetcher: MakeFetcher) -> None:
    address = "data:," + "a" * 1_000_001

    with pytest.raises(ImageTooLarge, match="MAX_IMAGE_MB"):
        make_fetcher().fetch(address, task_id=1, access=LabelStudioAccess(origin=None))


def test_no_message_shows_a_password_a_signature_or_the_token(
    label_studio: ImageServer, elsewhere: ImageServer, make_fetcher: MakeFetcher
) -> None:
    fetcher = make_fetcher(allowed=("127.0.0.1",))
    addresses = [
        f"http://user:hunter2@127.0.0.1:{elsewhere.port}/a.png?X-Amz-Signature=hunter2",
        "/data/upload/1/a.png?token=hunter2",
    ]

    for address in addresses:
        with pytest.raises(ImageFetchError) as caught:
            fetcher.fetch(address, task_id=1, access=access_to(label_studio))

        assert "hunter2" not in caught.value.message
        assert TOKEN not in caught.value.message
