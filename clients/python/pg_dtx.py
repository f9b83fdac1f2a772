"""Work outside of the database for sagas of pg_dtx, with psycopg 3.

    import pg_dtx

    def book(step):                        # step: see Step
        if hotel.is_full(step.input):
            raise pg_dtx.GiveUp("the hotel is full")
        return {"booking": hotel.book(step.input, key=step.idempotency_key)}

    worker = pg_dtx.Worker("dbname=app", {"hotels": book, "hotels undo": cancel})
    worker.stop_on_signals()               # SIGTERM and SIGINT
    worker.run()

What a handler returns is the result of the step (anything that JSON can hold).  What it raises
says what becomes of the step: Retry, GiveUp, Release; any other exception is a Retry.

Outside of the database a step is done at least once: a worker may die when the hotel has booked
and the database does not know it yet.  Give the service the idempotency_key.  What a handler does
in this database with step.connection is done exactly once: it commits together with the report.
"""

import logging
import os
import signal
import socket
import threading
import time

import psycopg
from psycopg.rows import namedtuple_row
from psycopg.types.json import Jsonb

__all__ = ["Worker", "Step", "Retry", "GiveUp", "Release", "start", "wait", "signal_saga"]

log = logging.getLogger("pg_dtx")

# The lease of a step is over: the report changes nothing any more (object_not_in_prerequisite_state).
_LEASE_LOST = "55000"


class Retry(Exception):
    """Nothing was done: again, after the definition's pause, or "after" so many seconds."""

    def __init__(self, error, after=None):
        super().__init__(error)
        self.after = after


class GiveUp(Exception):
    """Nothing was done, and never will be: the saga turns back."""


class Release(Exception):
    """Nothing was done, and this worker will not do it: another one may, without an attempt lost."""


class Step:
    """A step, or the compensation of one, that this worker has claimed.

    Attributes: token, saga, name (of the definition), step, action ("execute" or "compensate"),
    attempt, payload, input, results, lease_until, idempotency_key; canceled, a threading.Event that
    is set when the saga has turned back or the lease is lost, so that the work may stop; and
    connection, a psycopg connection in a transaction that commits with the report.
    """

    def __init__(self, row, lease):
        self.__dict__.update(row._asdict())
        self.lease = lease
        self.canceled = threading.Event()
        self.reason = None
        self._worker = None
        self._connection = None

    @property
    def connection(self):
        if self._connection is None:
            self._connection = self._worker._connect(autocommit=False)
        return self._connection


class Worker:
    """Takes steps from queues and calls a handler for each.

    queues: a dict of handlers.  name: what operators see.  concurrency: threads per queue.  lease: seconds after
    which a step of a worker that went silent is another one's; it is kept alive beside the work.
    wait: how long the database is to wait for work before it says that there is none, seconds.
    """

    def __init__(self, conninfo, queues, *, name=None, concurrency=1, lease=60.0, wait=30.0):
        self.conninfo = conninfo
        self.queues = dict(queues)
        self.name = name or f"{socket.gethostname()}:{os.getpid()}"
        self.concurrency = concurrency
        self.lease = lease
        self.wait = wait
        self._stop = threading.Event()
        self._waiting = set()
        self._lock = threading.Lock()

    def stop(self):
        """Take nothing more; what is being worked on is finished, and run() returns then."""
        self._stop.set()
        with self._lock:
            waiting = list(self._waiting)
        for connection in waiting:
            try:
                connection.cancel()
            except psycopg.Error:
                pass

    def stop_on_signals(self, *signals):
        """stop() on SIGTERM and SIGINT, or on these.  In the main thread."""
        for number in signals or (signal.SIGTERM, signal.SIGINT):
            # not in the handler itself, which may interrupt a thread that holds the lock
            signal.signal(number, lambda *_: threading.Thread(target=self.stop).start())

    def run(self):
        """Work until stop()."""
        threads = [
            threading.Thread(target=self._serve, args=(queue, handler), name=f"{queue} {n}")
            for queue, handler in self.queues.items()
            for n in range(self.concurrency)
        ]
        for thread in threads:
            thread.start()
        for thread in threads:
            while thread.is_alive():  # with a time-out, so that signals are seen
                thread.join(1.0)

    def _connect(self, autocommit=True):
        # text is to be text, also from a database in SQL_ASCII
        return psycopg.connect(self.conninfo, autocommit=autocommit, application_name=self.name,
                               client_encoding="utf8")

    def _serve(self, queue, handler):
        connection = None
        pause = 0.1
        while not self._stop.is_set():
            try:
                if connection is None or connection.closed:
                    connection = self._connect()
                step = self._claim(connection, queue)
                if step is not None:
                    self._do(connection, queue, handler, step)
                pause = 0.1
            except psycopg.errors.QueryCanceled:
                continue
            except psycopg.Error as error:
                log.warning("queue %s: %s", queue, error)
                if connection is not None:
                    connection.close()
                connection = None
                self._stop.wait(pause)
                pause = min(pause * 2, 10.0)
        if connection is not None:
            connection.close()

    def _claim(self, connection, queue):
        with self._lock:
            self._waiting.add(connection)
        try:
            if self._stop.is_set():
                return None
            with connection.cursor(row_factory=namedtuple_row) as cursor:
                row = cursor.execute(
                    "SELECT * FROM dtx.claim_step(%s, %s, lease => make_interval(secs => %s),"
                    " wait => make_interval(secs => %s))",
                    (queue, self.name, self.lease, self.wait)).fetchone()
        finally:
            with self._lock:
                self._waiting.discard(connection)
        return Step(row, self.lease) if row is not None else None

    def _do(self, connection, queue, handler, step):
        step._worker = self
        done = threading.Event()
        keeper = threading.Thread(target=self._keep, args=(connection, step, done), name="heartbeat")
        keeper.start()
        report, arguments = None, ()
        try:
            result = handler(step)
            report, arguments = "dtx.complete_step(%s, %s)", (Jsonb(result),)
        except Retry as error:
            report = "dtx.fail_step(%s, %s, retry_after => make_interval(secs => %s))"
            if error.after is None:
                report, arguments = "dtx.fail_step(%s, %s)", (str(error) or "Retry",)
            else:
                arguments = (str(error) or "Retry", error.after)
        except GiveUp as error:
            report, arguments = "dtx.fail_step(%s, %s, retry => false)", (str(error) or "GiveUp",)
        except Release:
            report = "dtx.release_step(%s)"
        except Exception as error:  # whatever a handler does
            log.exception("queue %s, saga %s, step %s", queue, step.saga, step.step)
            report, arguments = "dtx.fail_step(%s, %s)", (f"{type(error).__name__}: {error}",)
        finally:
            done.set()
            keeper.join()
        self._report(connection, step, report, arguments)

    def _report(self, connection, step, report, arguments):
        """In the handler's transaction if there is one and all went well; else in one of its own."""
        own = step._connection
        try:
            if own is not None and report.startswith("dtx.complete_step"):
                own.execute(f"SELECT {report}", (step.token, *arguments))
                own.commit()
            else:
                if own is not None:
                    own.rollback()
                connection.execute(f"SELECT {report}", (step.token, *arguments))
        except psycopg.Error as error:
            if error.sqlstate != _LEASE_LOST:
                raise
            log.warning("saga %s, step %s: %s", step.saga, step.step, error)
        finally:
            if own is not None:
                own.close()

    def _keep(self, connection, step, done):
        """Keep the lease of a step, and look whether the saga has turned back."""
        while not done.wait(step.lease / 3):
            try:
                with connection.cursor(row_factory=namedtuple_row) as cursor:
                    lease = cursor.execute(
                        "SELECT * FROM dtx.heartbeat_step(%s, make_interval(secs => %s))",
                        (step.token, step.lease)).fetchone()
                if lease.canceled:
                    step.reason = lease.reason
                    step.canceled.set()
            except psycopg.Error as error:
                if error.sqlstate == _LEASE_LOST:
                    step.reason = str(error)
                    step.canceled.set()
                    return
                log.warning("heartbeat: %s", error)
                if connection.closed:
                    return


def start(connection, saga, input=None, key=None):
    """Start a saga, as part of the transaction of a psycopg connection.  Returns its number."""
    return connection.execute("SELECT dtx.start_saga(%s, %s, %s)", (saga, Jsonb(input or {}), key)).fetchone()[0]


def wait(connection, saga, timeout=None):
    """Wait for the end of a saga, at most so many seconds.  Returns its state then."""
    return connection.execute("SELECT dtx.wait_saga(%s, make_interval(secs => %s))", (saga, timeout)).fetchone()[0]


def signal_saga(connection, saga, name, payload=None):
    """Send a signal to a saga, as part of the transaction.  Returns whether it was news."""
    return connection.execute("SELECT dtx.signal_saga(%s, %s, %s)", (saga, name, Jsonb(payload))).fetchone()[0]
