"""CodaBench's REST API: uploading, following, fetching."""
