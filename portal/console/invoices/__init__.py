"""An organization's pages about bank transfers and invoices on request."""
