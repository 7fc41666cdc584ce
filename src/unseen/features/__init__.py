"""Region features on disk: extract, import, read and reduce them."""
