"""The management API: what people do in pages, for programs. It calls the same domain functions."""
