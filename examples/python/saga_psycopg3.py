#!/usr/bin/env python3
"""Sagas with psycopg 3, one after the other: saga_psycopg3.py COUNT"""
import sys
import uuid

import psycopg
from psycopg.types.json import Jsonb


def transfer(conn, key, amount):
    # the same key is the same saga, so this may be repeated
    (saga,) = conn.execute(
        "SELECT dtx.start_saga('transfer', %s, %s)", (Jsonb({"key": key, "amount": amount}), key)).fetchone()
    return conn.execute("SELECT dtx.wait_saga(%s)", (saga,)).fetchone()[0]


def main():
    # autocommit, because a saga goes on when its start has committed
    with psycopg.connect("", autocommit=True) as conn:
        for _ in range(int(sys.argv[1])):
            key = "psycopg3-saga-" + str(uuid.uuid4())
            print(transfer(conn, key, 1), key, flush=True)


main()
