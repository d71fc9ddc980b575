from billing import views
from django.urls import path

urlpatterns = [
    path("quotes/<int:number>", views.quote),
    path("async/quotes/<int:number>", views.quote_async),
]
