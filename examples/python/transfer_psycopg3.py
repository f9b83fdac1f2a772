#!/usr/bin/env python3
"""Transfers between two servers with psycopg 3: transfer_psycopg3.py COUNT"""
import sys
import time
import uuid

import psycopg


def connect():
    conn = psycopg.connect("")
    conn.add_notice_handler(lambda notice: print(notice.severity, notice.message_primary, flush=True))
    return conn


def transfer(conn, key, amount):
    with conn.transaction():            # BEGIN ... COMMIT, or ROLLBACK
        conn.execute("UPDATE account_berlin SET balance = balance - %s WHERE id = 1", (amount,))
        conn.execute("UPDATE account_tokyo SET balance = balance + %s WHERE id = 1", (amount,))
        conn.execute("INSERT INTO transfer (id, amount) VALUES (%s, %s)", (key, amount))


def main():
    conn = connect()
    done = 0
    while done < int(sys.argv[1]):
        key = "psycopg3-" + str(uuid.uuid4())
        try:
            transfer(conn, key, 1)
            print("done", key, flush=True)
            done += 1
        except psycopg.Error as e:      # rolled back, on all servers
            print("failed", key, e.sqlstate, flush=True)
            time.sleep(0.1)
            if conn.closed:             # unknown: "key" tells
                conn = connect()


main()
