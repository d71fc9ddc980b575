import atexit
import os
import threading
from contextlib import ExitStack
from functools import cache

from django.db import transaction
from django.shortcuts import get_object_or_404

from billing.models import Quote, SalesDocument
from billing.phases import journal, migration, stores
from phyxius import recorded
from phyxius.blocking import opened


@recorded(journal, "quote.read_old")
def read_old(number):
    return f"quote {number} for {get_object_or_404(Quote, number=number).customer}\n"


def read_new(number):
    return f"sales document {number} for {get_object_or_404(SalesDocument, number=number).customer}\n"


def write_old(number, customer):
    Quote.objects.update_or_create(number=number, defaults={"customer": customer})


def write_new(number, customer):
    SalesDocument.objects.update_or_create(number=number, defaults={"customer": customer})


@transaction.atomic
def write_both(number, customer):
    write_old(number, customer)
    write_new(number, customer)


read = migration.by_phase({"expand": read_old, "dual_write": read_old, "flip": read_new, "contract": read_new})
write = migration.by_phase(
    {"expand": write_old, "dual_write": write_both, "flip": write_both, "contract": write_new}, record_as="quote.write"
)


DURABLE = ["quote.read_old", "quote.write"]
stack = ExitStack()
lock = threading.Lock()


@cache
def open_in(process):
    with ExitStack() as both:  # both or neither
        both.enter_context(opened(stores))
        both.enter_context(opened(stores.recorder(journal, name=f"web-{process}", durable=DURABLE)))
        stack.push(both.pop_all())
    atexit.register(stack.close)


def open_for_requests(**signal):
    """Open the stores and record what this process does, once, when its first request begins."""
    with lock:
        open_in(os.getpid())
