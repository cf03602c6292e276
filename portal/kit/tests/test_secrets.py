import base64
import contextlib
import hashlib
import hmac
import threading
from pathlib import Path
from uuid import UUID

import pytest
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey
from hypothesis import given
from hypothesis import strategies as st

from portal.kit.ids import encode_base32
from portal.kit.secrets import (
    DecryptionFailed,
    InsecureSecretFile,
    InvalidSecretFile,
    MalformedApiKey,
    MissingSecret,
    SecretStore,
    new_api_key,
    parse_api_key,
)


@pytest.fixture
def directory(tmp_path: Path) -> Path:
    return tmp_path / "data" / "secrets"


@pytest.fixture
def store(directory: Path) -> SecretStore:
    return SecretStore.create_missing(directory)


def contents(directory: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in directory.iterdir()}


def test_a_new_store_is_private_and_complete(directory: Path, store: SecretStore) -> None:
    assert directory.stat().st_mode & 0o777 == 0o700
    assert set(contents(directory)) == {"pepper_1", "encryption_key_1", "signing_key_1", "django_secret_key"}
    for path in directory.iterdir():
        assert path.stat().st_mode & 0o777 == 0o600
    assert len(base64.b64decode((directory / "pepper_1").read_bytes())) == 32
    assert len(store.django_secret_key) >= 50
    assert (store.current_pepper_number, store.pepper_numbers) == (1, [1])


def test_what_exists_is_kept(directory: Path, store: SecretStore) -> None:
    before = contents(directory)
    again = SecretStore.create_missing(directory)
    assert contents(directory) == before
    assert again.digest(1, "x") == store.digest(1, "x") == SecretStore.load(directory).digest(1, "x")
    (directory / "django_secret_key").unlink()
    SecretStore.create_missing(directory)
    after = contents(directory)
    assert after.pop("django_secret_key") != before.pop("django_secret_key")
    assert after == before


def test_processes_that_start_together_agree(directory: Path) -> None:
    stores: list[SecretStore] = []
    start = threading.Barrier(8)

    def create() -> None:
        start.wait(timeout=10)
        stores.append(SecretStore.create_missing(directory))

    threads = [threading.Thread(target=create) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(timeout=10)
    assert len({store.digest(1, "x") for store in stores}) == 1
    assert len({store.django_secret_key for store in stores}) == 1
    assert len(stores) == 8
    assert stores[0].decrypt(stores[7].encrypt("x")) == "x"
    assert len(contents(directory)) == 4


def test_digests_are_hmacs_of_the_numbered_pepper(directory: Path, store: SecretStore) -> None:
    pepper = base64.b64decode((directory / "pepper_1").read_bytes())
    assert store.digest(1, "secret") == hmac.new(pepper, b"secret", hashlib.sha256).digest()
    assert store.rotate_pepper() == 2
    assert (store.current_pepper_number, store.pepper_numbers) == (2, [1, 2])
    assert store.digest(1, "secret") == hmac.new(pepper, b"secret", hashlib.sha256).digest()
    assert store.digest(2, "secret") != store.digest(1, "secret")
    with pytest.raises(MissingSecret, match="3"):
        store.digest(3, "secret")


def test_what_was_encrypted_before_a_rotation_still_opens(store: SecretStore) -> None:
    old = store.encrypt("vertraulich 机密")
    assert old.startswith("1:")
    assert store.rotate_encryption_key() == 2
    new = store.encrypt("vertraulich 机密")
    assert new.startswith("2:")
    assert store.decrypt(old) == store.decrypt(new) == "vertraulich 机密"


def test_a_running_process_learns_of_a_rotation(directory: Path, store: SecretStore) -> None:
    other = SecretStore.load(directory)
    store.rotate_pepper()
    store.rotate_encryption_key()
    assert other.digest(2, "x") == store.digest(2, "x")
    third = SecretStore.load(directory)
    store.rotate_encryption_key()
    assert third.decrypt(store.encrypt("x")) == "x"


def test_two_rotations_from_stale_stores_do_not_collide(directory: Path, store: SecretStore) -> None:
    other = SecretStore.load(directory)
    assert store.rotate_pepper() == 2
    assert other.rotate_pepper() == 3


def test_numbers_are_numbers_and_not_words(directory: Path, store: SecretStore) -> None:
    for _ in range(10):
        store.rotate_pepper()
    assert SecretStore.load(directory).current_pepper_number == 11
    (directory / "pepper_012").write_text("not ours")
    (directory / "pepper_2.bak").write_text("not ours")
    assert SecretStore.load(directory).current_pepper_number == 11


@pytest.mark.parametrize(
    "text", ["", "1", "1:", "x:y", "1:gAAAA", "0:x", "01:x", "1:ü", "-1:x", ":", "1:\ud800"]
)
def test_what_was_not_encrypted_here_does_not_open(store: SecretStore, text: str) -> None:
    with pytest.raises(DecryptionFailed):
        store.decrypt(text)


def test_a_changed_text_does_not_open(store: SecretStore) -> None:
    text = store.encrypt("x")
    changed = text[:-5] + ("A" if text[-5] != "A" else "B") + text[-4:]
    with pytest.raises(DecryptionFailed):
        store.decrypt(changed)
    with pytest.raises(MissingSecret):
        store.decrypt("7" + text[1:])


@pytest.mark.parametrize("name", ["pepper_1", "encryption_key_1", "django_secret_key"])
@pytest.mark.parametrize("mode", [0o640, 0o604, 0o620, 0o644])
def test_files_that_others_can_reach_are_refused(
    directory: Path, store: SecretStore, name: str, mode: int
) -> None:
    (directory / name).chmod(mode)
    with pytest.raises(InsecureSecretFile, match=name):
        SecretStore.load(directory)


def test_a_directory_that_others_can_reach_is_refused(directory: Path) -> None:
    directory.mkdir(parents=True)
    directory.chmod(0o755)
    with pytest.raises(InsecureSecretFile):
        SecretStore.create_missing(directory)
    assert contents(directory) == {}


@pytest.mark.parametrize("name", ["pepper_1", "encryption_key_1", "django_secret_key"])
@pytest.mark.parametrize("content", [b"", b"c2hvcnQ=", b"\xff\xfe", b"\x00" * 5, b"A" * 5000])
def test_files_with_other_content_are_refused_without_showing_it(
    directory: Path, store: SecretStore, name: str, content: bytes
) -> None:
    (directory / name).write_bytes(content)
    with pytest.raises(InvalidSecretFile, match=name) as caught:
        SecretStore.load(directory)
    assert "c2hvcnQ" not in str(caught.value)


@pytest.mark.parametrize("name", ["pepper_1", "encryption_key_1", "django_secret_key"])
def test_loading_creates_nothing(directory: Path, store: SecretStore, name: str) -> None:
    (directory / name).unlink()
    with pytest.raises(MissingSecret):
        SecretStore.load(directory)
    assert not (directory / name).exists()
    with pytest.raises(MissingSecret):
        SecretStore.load(directory / "nowhere")


@given(st.uuids())
def test_api_keys_come_back(key_id: UUID) -> None:
    made = new_api_key(key_id)
    assert len(made.token) == 80
    assert made.token.isascii()
    parsed = parse_api_key(made.token)
    assert (parsed.key_id, parsed.secret) == (key_id, made.secret)
    assert len(made.secret) == 43


def test_an_api_key_looks_like_this() -> None:
    key_id = UUID("01a20f94-da31-7ffc-8a41-bacd9e085e77")
    token = new_api_key(key_id).token
    assert token.startswith(f"slc_{encode_base32(key_id)}_")
    assert new_api_key(key_id).token != token
    # A checksum made elsewhere, so that no change of the format goes unnoticed.
    fixed = "slc_01m87s9phhfzy8mgdtspf0gqkq_8ifydQ5RK68OrhUJmbrGMwdT9k0xzq1PcCtc9dK07pL2fMSo4"
    assert parse_api_key(fixed).secret == "8ifydQ5RK68OrhUJmbrGMwdT9k0xzq1PcCtc9dK07pL"


def test_secrets_do_not_appear_in_representations() -> None:
    made = new_api_key(UUID(int=5))
    assert made.secret not in repr(made) + repr(parse_api_key(made.token))


@given(st.uuids(), st.integers(0, 79), st.characters())
def test_a_token_with_one_other_character_is_refused(key_id: UUID, position: int, character: str) -> None:
    token = new_api_key(key_id).token
    changed = token[:position] + character + token[position + 1 :]
    if changed != token:
        with pytest.raises(MalformedApiKey) as caught:
            parse_api_key(changed)
        assert changed not in str(caught.value)


@given(
    st.one_of(
        st.text(),
        st.text(alphabet="0123456789abcdefghijklmnopqrstuvwxyzABCDEFGHIJ_", min_size=76, max_size=76).map(
            lambda text: "slc_" + text
        ),
        st.from_regex(r"slc_[0-7][0-9a-hjkmnp-tv-z]{25}_[0-9A-Za-z]{49}\n?", fullmatch=True),
    )
)
def test_parsing_raises_nothing_else(text: str) -> None:
    with contextlib.suppress(MalformedApiKey):
        parse_api_key(text)


@pytest.mark.parametrize("change", [str.upper, lambda t: t + "\n", lambda t: " " + t, lambda t: t[:-1]])
def test_near_misses_are_refused(change: object) -> None:
    assert callable(change)
    with pytest.raises(MalformedApiKey):
        parse_api_key(change(new_api_key(UUID(int=9)).token))


def test_what_was_signed_is_checked_with_the_published_key(directory: Path, store: SecretStore) -> None:
    key = store.signing_key()
    signature = key.sign(b"content")
    assert [one.id for one in store.public_keys()] == [key.public.id]
    public = Ed25519PublicKey.from_public_bytes(bytes.fromhex(key.public.hex))
    public.verify(signature, b"content")
    with pytest.raises(InvalidSignature):
        public.verify(signature, b"Content")
    assert "private" not in repr(key)


def test_signing_keys_rotate_and_old_ones_stay_published(directory: Path, store: SecretStore) -> None:
    other = SecretStore.load(directory)
    before = store.signing_key().public
    assert store.rotate_signing_key() == 2
    # A process that runs meanwhile learns of it.
    assert other.signing_key().public.number == 2
    assert [key.number for key in other.public_keys()] == [2, 1]
    assert other.public_keys()[1] == before


def test_a_store_from_before_signing_keys_still_loads(directory: Path, store: SecretStore) -> None:
    (directory / "signing_key_1").unlink()
    old = SecretStore.load(directory)
    assert old.public_keys() == []
    with pytest.raises(MissingSecret, match="signing_key_1"):
        old.signing_key()
    assert SecretStore.create_missing(directory).signing_key().public.number == 1


@pytest.mark.parametrize("content", [b"", b"x", base64.b64encode(bytes(31)), base64.b64encode(bytes(33))])
def test_a_file_that_holds_no_signing_key_is_refused(
    directory: Path, store: SecretStore, content: bytes
) -> None:
    path = directory / "signing_key_2"
    path.write_bytes(content)
    path.chmod(0o600)
    with pytest.raises(InvalidSecretFile, match="signing_key_2"):
        SecretStore.load(directory)
