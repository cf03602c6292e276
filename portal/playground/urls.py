"""The playground's page. Its socket is in portal.sockets."""

from django.urls import path

from portal.playground import views

app_name = "playground"
urlpatterns = [path("o/<str:organization>/playground/", views.page, name="page")]
