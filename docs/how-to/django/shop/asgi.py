import os

from asgiref.sync import sync_to_async
from django.core.asgi import get_asgi_application

os.environ.setdefault("DJANGO_SETTINGS_MODULE", "shop.settings")
django = get_asgi_application()

from billing.quotes import stack  # noqa: E402 - its models need Django set up


async def application(scope, receive, send):
    if scope["type"] == "lifespan":
        await receive()  # that it starts
        await send({"type": "lifespan.startup.complete"})
        await receive()  # that it stops: the last request has ended
        await sync_to_async(stack.close, thread_sensitive=False)()
        await send({"type": "lifespan.shutdown.complete"})
    else:
        await django(scope, receive, send)
