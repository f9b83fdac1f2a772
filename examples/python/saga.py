#!/usr/bin/env python3
"""Sagas, one after the other: saga.py COUNT"""
import json
import sys
import uuid

import psycopg2


def transfer(conn, key, amount):
    with conn.cursor() as cur:
        # the same key is the same saga, so this may be repeated
        cur.execute("SELECT dtx.start_saga('transfer', %s, %s)", (json.dumps({"key": key, "amount": amount}), key))
        saga = cur.fetchone()[0]
        cur.execute("SELECT dtx.wait_saga(%s)", (saga,))
        return cur.fetchone()[0]


def main():
    conn = psycopg2.connect("")
    conn.autocommit = True              # a saga goes on when its start has committed
    for _ in range(int(sys.argv[1])):
        key = "python-saga-" + str(uuid.uuid4())
        print(transfer(conn, key, 1), key, flush=True)


main()
