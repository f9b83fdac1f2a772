#!/usr/bin/env python3
"""Transfers between two servers, each in one transaction: transfer.py COUNT"""
import sys
import time
import uuid

import psycopg2


def transfer(conn, key, amount):
    with conn, conn.cursor() as cur:    # BEGIN ... COMMIT, or ROLLBACK
        cur.execute("UPDATE account_berlin SET balance = balance - %s WHERE id = 1", (amount,))
        cur.execute("UPDATE account_tokyo SET balance = balance + %s WHERE id = 1", (amount,))
        cur.execute("INSERT INTO transfer (id, amount) VALUES (%s, %s)", (key, amount))


def main():
    conn = psycopg2.connect("")
    done = 0
    while done < int(sys.argv[1]):
        key = "python-" + str(uuid.uuid4())
        try:
            transfer(conn, key, 1)
            print("done", key, flush=True)
            done += 1
        except psycopg2.Error as e:     # rolled back, on all servers
            print("failed", key, e.pgcode, flush=True)
            time.sleep(0.1)
            if conn.closed:             # unknown: "key" tells
                conn = psycopg2.connect("")
    for notice in conn.notices:
        print(notice.strip(), flush=True)


main()
