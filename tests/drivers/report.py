"""What the Python programs here share: where the server is, and how they tell what they have seen to work.

A program is called with host, port and, where the server takes binary COPY, the word `binary`. Password and authority of
the server's certificate come by libpq's variables, which most drivers read themselves."""
import os
import sys

host, port = sys.argv[1], int(sys.argv[2])
user, database = "tester", "logweir"
password, authority = os.environ.get("PGPASSWORD"), os.environ.get("PGSSLROOTCERT")
ENDLESS = "SELECT count(*) FROM generate_series(1, 100000000000)"


def able(column, what="yes"):
    """One cell of README's table of clients: called when what it says has been seen."""
    print(f"{column}: {what}")


def fails(kind, act, says=None):
    """That `act` ends with an error of this kind; gives the error."""
    try:
        act()
    except kind as err:
        assert says is None or says(err), repr(err)
        return err
    raise SystemExit(f"nothing failed where {kind} was expected")
