"""Catalog files: a declarative YAML description of pools, backends, models and prices.

docs/catalog-file.md describes the format.
"""

from models_catalog.catalog_file.apply import CatalogDocument, apply_catalog
from models_catalog.catalog_file.changes import CatalogChanges, Change
from models_catalog.catalog_file.problems import CatalogFileError
from models_catalog.pricing.locking import CatalogBusy

__all__ = ["CatalogBusy", "CatalogChanges", "CatalogDocument", "CatalogFileError", "Change", "apply_catalog"]
