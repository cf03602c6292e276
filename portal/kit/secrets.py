"""The installation's own secrets (a directory of files) and the tokens of API and management keys.

Peppers, encryption keys and signing keys are numbered, so that they can be rotated: what is stored names
the number it was made with, the highest number is used for what is new, and older ones stay until nothing
names them.
"""

import base64
import binascii
import contextlib
import hmac
import os
import re
import secrets
import zlib
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final, Self
from uuid import UUID

from cryptography.fernet import Fernet, InvalidToken

from portal.kit.ids import decode_base32, encode_base32
from portal.kit.signing import InvalidSeed, PublicKey, SigningKey, new_seed

PEPPER_BYTES: Final = 32
API_KEY_PREFIX: Final = "slc"
MANAGEMENT_KEY_PREFIX: Final = "slm"
SECRET_LENGTH: Final = 43
CHECKSUM_LENGTH: Final = 6

_BASE62: Final = "0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz"
_TOKEN_TEXT: Final = re.compile(r"(slc|slm)_([0-7][0-9a-hjkmnp-tv-z]{25})_([0-9A-Za-z]{43})([0-9A-Za-z]{6})")
_CHECKED_LENGTH: Final = len(API_KEY_PREFIX) + 1 + 26 + 1 + SECRET_LENGTH

_DJANGO_KEY_FILE: Final = "django_secret_key"
_NUMBERED_FILE: Final = re.compile(r"(pepper|encryption_key|signing_key)_([1-9][0-9]{0,5})")
_MAX_FILE_BYTES: Final = 4096
_OTHERS: Final = 0o077


class SecretError(Exception):
    """The store cannot be used as it is. Messages name files and numbers, never what the files hold."""


class InsecureSecretFile(SecretError):
    """A file or the directory can be reached by other users of the machine."""


class InvalidSecretFile(SecretError):
    """A file does not hold what its name promises."""


class MissingSecret(SecretError):
    """A file, or the number that something stored names, is not there."""


class DecryptionFailed(SecretError):
    """The text was not made by `encrypt` with a key of this ring, or it was changed since."""


class MalformedApiKey(ValueError):
    """The text is not a key's token. The message never repeats it."""


class WrongKindOfKey(MalformedApiKey):
    """The text is a whole token, but of the other kind: a management key for an API key, or the reverse."""


@dataclass(frozen=True, slots=True)
class NewApiKey:
    """A token to show once, and the secret within it, of which only a digest is to be stored."""

    token: str = field(repr=False)
    secret: str = field(repr=False)


@dataclass(frozen=True, slots=True)
class ParsedApiKey:
    """What a well-formed token claims. Whether it is true, only the stored digest can say."""

    key_id: UUID
    secret: str = field(repr=False)


class SecretStore:
    """Peppers, encryption keys, signing keys and Django's secret key, read once from a directory.

    Another process may add numbers while this one runs: a number that is not known yet makes the store
    read its directory again before it gives up.
    """

    def __init__(self, directory: Path) -> None:
        """Use `create_missing` or `load`."""
        self._directory = directory
        self._peppers: dict[int, bytes] = {}
        self._encryption_keys: dict[int, Fernet] = {}
        self._signing_keys: dict[int, SigningKey] = {}
        self._django_secret_key = ""
        self._read()

    @classmethod
    def create_missing(cls, directory: Path) -> Self:
        """The store of this directory, with whatever it lacks created first; what exists is never replaced.

        Several processes may do this at the same time: each file is created whole by exactly one of them.
        Raises InsecureSecretFile when the directory exists and others can reach into it.
        """
        directory.mkdir(mode=0o700, parents=True, exist_ok=True)
        if directory.stat().st_mode & _OTHERS:
            raise InsecureSecretFile(f"{directory} must be accessible to its owner only (mode 0700)")
        kinds = {match[1] for name in os.listdir(directory) if (match := _NUMBERED_FILE.fullmatch(name))}
        if "pepper" not in kinds:
            _create_whole(directory / "pepper_1", _new_pepper())
        if "encryption_key" not in kinds:
            _create_whole(directory / "encryption_key_1", Fernet.generate_key())
        if "signing_key" not in kinds:
            _create_whole(directory / "signing_key_1", new_seed())
        if not (directory / _DJANGO_KEY_FILE).exists():
            _create_whole(directory / _DJANGO_KEY_FILE, secrets.token_urlsafe(50).encode())
        return cls(directory)

    @classmethod
    def load(cls, directory: Path) -> Self:
        """The store of a complete directory. Raises MissingSecret, InsecureSecretFile, InvalidSecretFile."""
        return cls(directory)

    @property
    def pepper_numbers(self) -> list[int]:
        """All numbers that `digest` takes, ascending."""
        return sorted(self._peppers)

    @property
    def current_pepper_number(self) -> int:
        """The number to digest new secrets with."""
        return max(self._peppers)

    @property
    def django_secret_key(self) -> str:
        """The value of Django's SECRET_KEY."""
        return self._django_secret_key

    def digest(self, pepper_number: int, secret: str) -> bytes:
        """HMAC-SHA256 (32 bytes) of the secret. Raises MissingSecret for an unknown number."""
        pepper = self._peppers.get(pepper_number)
        if pepper is None:
            self._read()
            pepper = self._peppers.get(pepper_number)
            if pepper is None:
                raise MissingSecret(f"pepper number {pepper_number} is not in the store")
        return hmac.digest(pepper, secret.encode("utf-8", "surrogatepass"), "sha256")

    def encrypt(self, text: str) -> str:
        """The text, encrypted and authenticated with the newest key, as `number:token` in ASCII."""
        number = max(self._encryption_keys)
        return f"{number}:{self._encryption_keys[number].encrypt(text.encode()).decode('ascii')}"

    def decrypt(self, text: str) -> str:
        """What `encrypt` was given. Raises MissingSecret for a number without key, else DecryptionFailed."""
        number_text, _, token = text.partition(":")
        if re.fullmatch(r"[1-9][0-9]{0,5}", number_text) is None:
            raise DecryptionFailed("the text does not start with the number of a key")
        number = int(number_text)
        if number not in self._encryption_keys:
            self._read()
        if number not in self._encryption_keys:
            raise MissingSecret(f"encryption key number {number} is not in the store")
        try:
            return self._encryption_keys[number].decrypt(token).decode()
        except (InvalidToken, ValueError):
            # The cause is dropped on purpose: its frames hold the key and the text.
            raise DecryptionFailed(f"encryption key number {number} does not open this text") from None

    def signing_key(self) -> SigningKey:
        """The newest key to sign with. Raises MissingSecret where there is none."""
        self._read()
        if not self._signing_keys:
            raise MissingSecret("signing_key_1 is not in the store")
        return self._signing_keys[max(self._signing_keys)]

    def public_keys(self) -> list[PublicKey]:
        """Those of all signing keys, the newest first."""
        self._read()
        return [self._signing_keys[number].public for number in sorted(self._signing_keys, reverse=True)]

    def rotate_pepper(self) -> int:
        """Add a pepper with the next number and return the number that is current now. Older peppers stay."""
        self._read()
        _create_whole(self._directory / f"pepper_{max(self._peppers) + 1}", _new_pepper())
        self._read()
        return max(self._peppers)

    def rotate_encryption_key(self) -> int:
        """Add a key with the next number and return the number that is current now. Older ones decrypt."""
        self._read()
        _create_whole(
            self._directory / f"encryption_key_{max(self._encryption_keys) + 1}", Fernet.generate_key()
        )
        self._read()
        return max(self._encryption_keys)

    def rotate_signing_key(self) -> int:
        """Add a signing key with the next number and return the number that is current now. What older ones
        signed is checked with their public keys, as long as their files stay."""
        self._read()
        _create_whole(self._directory / f"signing_key_{max(self._signing_keys, default=0) + 1}", new_seed())
        self._read()
        return max(self._signing_keys)

    def _read(self) -> None:
        """Take over everything the directory holds; on any error the store keeps what it had."""
        peppers: dict[int, bytes] = {}
        encryption_keys: dict[int, Fernet] = {}
        # An installation from before there were any has none until one is added.
        signing_keys: dict[int, SigningKey] = {}
        try:
            names = sorted(os.listdir(self._directory))
        except FileNotFoundError as error:
            raise MissingSecret(f"there is no directory {self._directory}") from error
        for name in names:
            match = _NUMBERED_FILE.fullmatch(name)
            if match is None:
                continue
            content = _read_private(self._directory / name)
            if match[1] == "pepper":
                peppers[int(match[2])] = _decode_pepper(content, name)
            elif match[1] == "signing_key":
                signing_keys[int(match[2])] = _decode_signing_key(int(match[2]), content, name)
            else:
                encryption_keys[int(match[2])] = _decode_encryption_key(content, name)
        if not peppers or not encryption_keys:
            raise MissingSecret(f"{self._directory} needs at least pepper_1 and encryption_key_1")
        django_secret_key = (
            _read_private(self._directory / _DJANGO_KEY_FILE).decode("utf-8", "replace").strip()
        )
        if len(django_secret_key) < 32:
            raise InvalidSecretFile(f"{_DJANGO_KEY_FILE} must hold at least 32 characters")
        self._peppers = peppers
        self._encryption_keys = encryption_keys
        self._signing_keys = signing_keys
        self._django_secret_key = django_secret_key


def new_api_key(key_id: UUID) -> NewApiKey:
    """A fresh token for this key: `slc_`, the id in base32, `_`, 256 random bits and a checksum in base62."""
    return _new_token(API_KEY_PREFIX, key_id)


def new_management_key(key_id: UUID) -> NewApiKey:
    """A fresh token of a management key: the same after `slm_`."""
    return _new_token(MANAGEMENT_KEY_PREFIX, key_id)


def parse_api_key(token: str) -> ParsedApiKey:
    """Take a token apart. Raises MalformedApiKey for a text that is not a whole token, WrongKindOfKey among
    them for that of a management key."""
    return _parse_token(API_KEY_PREFIX, token)


def parse_management_key(token: str) -> ParsedApiKey:
    """The same for the token of a management key."""
    return _parse_token(MANAGEMENT_KEY_PREFIX, token)


def _new_token(prefix: str, key_id: UUID) -> NewApiKey:
    secret = "".join([secrets.choice(_BASE62) for _ in range(SECRET_LENGTH)])
    checked = f"{prefix}_{encode_base32(key_id)}_{secret}"
    return NewApiKey(token=checked + _checksum(checked), secret=secret)


def _parse_token(prefix: str, token: str) -> ParsedApiKey:
    match = _TOKEN_TEXT.fullmatch(token)
    if match is None or match[4] != _checksum(token[:_CHECKED_LENGTH]):
        raise MalformedApiKey("not a key of this service")
    if match[1] != prefix:
        raise WrongKindOfKey("a key of another kind")
    key_id = decode_base32(match[2])
    assert key_id is not None, "the pattern allows canonical base32 only"
    return ParsedApiKey(key_id=key_id, secret=match[3])


def _checksum(checked: str) -> str:
    """CRC-32 of ASCII text in six base62 digits: finds typing errors and cut tokens, proves nothing."""
    number = zlib.crc32(checked.encode("ascii"))
    digits = ""
    for _ in range(CHECKSUM_LENGTH):
        number, digit = divmod(number, 62)
        digits = _BASE62[digit] + digits
    return digits


def _new_pepper() -> bytes:
    return base64.b64encode(secrets.token_bytes(PEPPER_BYTES))


def _decode_pepper(content: bytes, name: str) -> bytes:
    with contextlib.suppress(binascii.Error):
        pepper = base64.b64decode(content.strip(), validate=True)
        if len(pepper) == PEPPER_BYTES:
            return pepper
    raise InvalidSecretFile(f"{name} must hold {PEPPER_BYTES} bytes in base64")


def _decode_encryption_key(content: bytes, name: str) -> Fernet:
    try:
        return Fernet(content.strip())
    except ValueError:
        # Without the cause, whose frames hold the key.
        raise InvalidSecretFile(f"{name} must hold a Fernet key") from None


def _decode_signing_key(number: int, content: bytes, name: str) -> SigningKey:
    try:
        return SigningKey.of_seed(number, content)
    except InvalidSeed as error:
        raise InvalidSecretFile(f"{name}: {error}") from None


def _read_private(path: Path) -> bytes:
    """The content of a file that its owner alone can reach."""
    try:
        with path.open("rb") as file:
            if os.fstat(file.fileno()).st_mode & _OTHERS:
                raise InsecureSecretFile(f"{path} must be accessible to its owner only (mode 0600)")
            content = file.read(_MAX_FILE_BYTES + 1)
    except FileNotFoundError as error:
        raise MissingSecret(f"there is no file {path}") from error
    if len(content) > _MAX_FILE_BYTES:
        raise InvalidSecretFile(f"{path} is too large")
    return content


def _create_whole(path: Path, content: bytes) -> None:
    """Create the file with all of its content at once; if another process was quicker, its file stays."""
    temporary = path.with_name(f".{path.name}.{secrets.token_hex(8)}")
    descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    try:
        with os.fdopen(descriptor, "wb") as file:
            file.write(content + b"\n")
            file.flush()
            os.fsync(file.fileno())
        # A hard link, unlike a rename, never replaces what is there.
        with contextlib.suppress(FileExistsError):
            os.link(temporary, path)
    finally:
        temporary.unlink()
    directory = os.open(path.parent, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(directory)
    finally:
        os.close(directory)
