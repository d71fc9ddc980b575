from asgiref.sync import sync_to_async
from django.http import HttpResponse

from billing.quotes import read, write


def quote(request, number):
    if request.method == "POST":
        write(number, request.POST["customer"])
    return HttpResponse(read(number))


async def quote_async(request, number):
    return HttpResponse(await sync_to_async(read)(number))
