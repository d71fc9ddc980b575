from django.apps import AppConfig
from django.core.signals import request_started


class BillingConfig(AppConfig):
    name = "billing"

    def ready(self):
        from billing.quotes import open_for_requests

        request_started.connect(open_for_requests)
