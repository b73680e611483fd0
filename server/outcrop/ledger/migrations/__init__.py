"""Versions of the database's schema, which Alembic brings a database through one after the other.

A change to a table comes with a new file in `versions`, whose `down_revision` is the latest before it. There
is no way back: a database that a newer server has opened is that server's.
"""
