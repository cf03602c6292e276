"""The addresses of this door; the Django admin is beside it. Each group of pages lists its own."""

from django.urls import path

from portal.backoffice import home, views
from portal.backoffice.apikeys.urls import urlpatterns as apikeys
from portal.backoffice.approvals.urls import urlpatterns as approvals
from portal.backoffice.audit.urls import urlpatterns as audit
from portal.backoffice.bank.urls import urlpatterns as bank
from portal.backoffice.books.urls import urlpatterns as books
from portal.backoffice.business.urls import urlpatterns as business
from portal.backoffice.fleet.urls import urlpatterns as fleet
from portal.backoffice.floor.urls import urlpatterns as floor
from portal.backoffice.payments.urls import urlpatterns as payments
from portal.backoffice.postpaid.urls import urlpatterns as postpaid
from portal.backoffice.prices.urls import urlpatterns as prices
from portal.backoffice.reconciliation.urls import urlpatterns as reconciliation
from portal.backoffice.tenants.urls import urlpatterns as tenants
from portal.backoffice.tiers.urls import urlpatterns as tiers

app_name = "backoffice"
urlpatterns = [
    path("operator/", home.home, name="home"),
    path("operator/elevated", home.elevated, name="elevated"),
    path("operator/elevation/end", home.end, name="elevation-end"),
    path("operator/witness", views.witness, name="witness"),
    *tenants,
    *prices,
    *payments,
    *postpaid,
    *reconciliation,
    *fleet,
    *business,
    *bank,
    *books,
    *tiers,
    *approvals,
    *audit,
    *floor,
    *apikeys,
]
