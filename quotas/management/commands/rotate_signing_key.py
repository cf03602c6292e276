"""`manage.py rotate_signing_key`: add the key pair that bills are signed with from now on."""

from typing import Any

from django.conf import settings
from django.core.management.base import BaseCommand, CommandError

from portal.kit.secrets import SecretError


class Command(BaseCommand):
    help = (
        "Makes a first or a further key pair in SECRETS_DIR, for signing verifiable bills. What older ones "
        "signed is still checked. Restart web processes and workers afterwards. See docs/verifiable-bill.md."
    )

    def handle(self, *args: Any, **options: Any) -> None:
        if settings.SECRET_STORE is None:
            raise CommandError("this process has no secrets: set SECRETS_DIR")
        try:
            number = settings.SECRET_STORE.rotate_signing_key()
        except (SecretError, OSError) as error:
            raise CommandError(f"no key was made: {error}") from error
        key = settings.SECRET_STORE.signing_key().public
        self.stdout.write(f"key         signing_key_{number}, {key.id}")
        self.stdout.write(f"public key  {key.hex}")
        self.stdout.write("Restart web processes and workers: they know it from then on.")
