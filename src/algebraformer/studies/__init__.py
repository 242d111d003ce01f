"""One module per table or figure; each returns its data and the table a person reads."""
