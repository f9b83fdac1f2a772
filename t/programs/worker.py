"""Work of t/145_worker_libraries.pl: worker.py FILE"""
import sys

import pg_dtx

calls = open(sys.argv[1], "a", buffering=1)


def pay(step):
    calls.write(f"{step.idempotency_key}\n")
    step.connection.execute(
        "INSERT INTO effect1 VALUES (%s, %s)", (step.saga, "pay" if step.action == "execute" else "undo"))
    return {"paid": step.input["n"]}


def ship(step):
    n = step.input["n"]
    if n % 5 == 0:
        raise pg_dtx.GiveUp("nothing is shipped there")
    if n % 7 == 0 and step.attempt == 1:
        raise pg_dtx.Retry("not yet", after=0.05)
    if n % 11 == 0 and step.attempt == 1:
        raise ValueError("a mistake")
    step.connection.execute("INSERT INTO effect2 VALUES (%s, 'ship')", (step.saga,))


worker = pg_dtx.Worker("", {"pay": pay, "pay undo": pay, "ship": ship}, concurrency=2, lease=3.0, wait=5.0)
worker.stop_on_signals()
worker.run()
