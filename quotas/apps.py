from django.apps import AppConfig


class QuotasConfig(AppConfig):
    name = "quotas"
    verbose_name = "Usage and money"

    def ready(self) -> None:
        from quotas.metering.completeness import WATERMARKS
        from quotas.reconciliation.watermark import usage_read_to

        # Metering lies below the feeds, which say until when usage may still be corrected.
        if usage_read_to not in WATERMARKS:
            WATERMARKS.append(usage_read_to)
