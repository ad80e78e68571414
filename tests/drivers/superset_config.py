"""Superset's configuration for its test: its own data in a file that the test copies."""
import os

SECRET_KEY = "only-for-a-test-that-ends-with-its-data"
SQLALCHEMY_DATABASE_URI = "sqlite:///" + os.environ["LOGWEIR_SUPERSET_DB"]
WTF_CSRF_ENABLED = False
PREVENT_UNSAFE_DB_CONNECTIONS = False
TALISMAN_ENABLED = False
