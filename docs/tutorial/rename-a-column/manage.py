"""What an operator does: python manage.py backfill | advance PHASE | sign PHASE SIGNER."""

from __future__ import annotations

import argparse
import asyncio
import sys

import sqlalchemy as sa

from gate import customers, engine, journal, migration, spec, stores
from phyxius import Err, EvidenceFailed, Ok

BATCH = 1_000


async def backfill() -> int:
    """Copy the names that are not in the new column, a thousand at a time."""
    async with engine.connect() as connection:
        last = (await connection.execute(sa.select(sa.func.max(customers.c.id)))).scalar_one() or 0
    copied = 0
    async with stores:
        for first in range(1, last + 1, BATCH):
            # Later on the new column is the newer one, and to copy would be to lose what it holds.
            if (phase := await migration.current_phase()) != "dual_write":
                print(f"the phase is {phase}: names are copied in dual_write alone")
                return 1
            batch = sa.update(customers).where(
                customers.c.id.between(first, first + BATCH - 1),
                customers.c.full_name.is_distinct_from(customers.c.name),
            )
            async with engine.begin() as connection:  # short transactions hold up nobody
                copied += (await connection.execute(batch.values(full_name=customers.c.name))).rowcount
    print(f"copied {copied} names")
    return 0


async def advance(to: str, *, wait: bool) -> int:
    """Take a step, or say what blocks it; with `wait`, press each second until it is taken."""
    waiting_for: set[str] = set()
    async with stores, stores.recorder(journal, name="console", audit_only=True):
        while True:
            match await migration.advance(to=to):
                case Ok(advanced):
                    print(f"{advanced.from_phase} -> {advanced.to_phase}")
                    return 0
                case Err(EvidenceFailed(_, failures)) if wait:
                    if waiting_for != set(failures):
                        waiting_for = set(failures)
                        print("waiting for", *sorted(waiting_for), flush=True)
                    await asyncio.sleep(1)
                case Err(EvidenceFailed(_, failures)):
                    print(f"{to} is refused:")
                    for name, failure in failures.items():
                        print(f"  {name}: {failure.reason}")
                    return 75
                case Err(refusal):
                    print(refusal.message)
                    return 1


async def sign(to: str, signer: str) -> int:
    """Sign for a phase."""
    async with stores:
        await stores.attestations.sign(spec, to=to, source="signed", signer=signer)
    print(f"{signer} has signed for {to}")
    return 0


async def main() -> int:
    """Run one command."""
    parser = argparse.ArgumentParser()
    commands = parser.add_subparsers(dest="command", required=True)
    commands.add_parser("backfill", help="copy the names into the new column")
    pressing = commands.add_parser("advance", help="take the next step, if it is safe")
    pressing.add_argument("phase", choices=spec.order)
    pressing.add_argument("--wait", action="store_true", help="press each second until it is taken")
    signing = commands.add_parser("sign", help="sign for a phase")
    signing.add_argument("phase", choices=spec.order)
    signing.add_argument("signer")
    options = parser.parse_args()
    try:
        match options.command:
            case "backfill":
                return await backfill()
            case "sign":
                return await sign(options.phase, options.signer)
            case _:
                return await advance(options.phase, wait=options.wait)
    finally:
        await engine.dispose()


if __name__ == "__main__":
    sys.exit(asyncio.run(main()))
