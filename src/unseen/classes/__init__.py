"""Classes and their attributes: the table, its changes, and the spreadsheets it is read from."""
