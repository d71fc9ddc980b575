from django.core.management.base import BaseCommand
from django.db import transaction

from billing.models import SalesDocument
from billing.phases import different_quotes


class Command(BaseCommand):
    help = "Give each quote its sales document. Run it in dual_write alone: later these are the newer ones."

    @transaction.atomic
    def handle(self, *args, **options):
        for quote in different_quotes().select_for_update():
            SalesDocument.objects.update_or_create(number=quote.number, defaults={"customer": quote.customer})
