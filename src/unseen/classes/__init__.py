"""Classes and their attributes: the table, its changes, the spreadsheets it is read from."""
