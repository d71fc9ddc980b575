from django.core.management.base import BaseCommand, CommandError

from billing.phases import journal, migration, spec, stores
from phyxius import AlreadyAtFinal, CasLost, Err, EvidenceFailed, NotNext, Ok
from phyxius.adapters.sqlite import FileStoreError
from phyxius.blocking import opened


class Command(BaseCommand):
    help = "Take the next step. 0: it is there. 1: it was refused. 2: it could not be judged."

    def add_arguments(self, parser):
        parser.add_argument("--to", required=True, choices=spec.order)

    def handle(self, *args, to, **options):
        try:
            with opened(stores), opened(stores.recorder(journal, name="advance_quotes", audit_only=True)):
                result = migration.advance(to=to)
        except FileStoreError as error:
            raise CommandError(str(error), returncode=2) from error
        match result:
            case Ok(advanced):
                self.stdout.write(f"{advanced.from_phase} -> {advanced.to_phase}")
            case Err(NotNext(current=now) | AlreadyAtFinal(phase=now)) if to in spec.order[: spec.order.index(now) + 1]:
                pass  # somebody has pressed already
            case Err(EvidenceFailed() | NotNext() | AlreadyAtFinal() | CasLost() as refusal):
                raise CommandError(refusal.message)
            case Err(broken):
                raise CommandError(broken.message, returncode=2)
