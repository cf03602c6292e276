"""Addresses that other services post to."""

from django.urls import path

from portal.webhooks import views

app_name = "webhooks"
urlpatterns = [
    path("webhooks/stripe", views.stripe_events, name="stripe"),
]
