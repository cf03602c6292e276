"""The addresses of this door; the Django admin is beside it."""

from django.urls import path
from django.views.generic import RedirectView

from portal.backoffice import views

app_name = "backoffice"
urlpatterns = [
    path("operator/", RedirectView.as_view(pattern_name="backoffice:witness"), name="home"),
    path("operator/witness", views.witness, name="witness"),
]
