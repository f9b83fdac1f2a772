"""Declares what there has to be, orders N times, and prints what becomes of it.

    python3 orders.py PORT declare
    python3 orders.py PORT N
"""
import json
import sys
import time

import pika

port, what = int(sys.argv[1]), sys.argv[2]
connection = pika.BlockingConnection(pika.ConnectionParameters("127.0.0.1", port))
channel = connection.channel()
if what == "declare":
    channel.exchange_declare("events", "topic", durable=True)
    for queue in "orders", "replies", "payments", "shipping", "log":
        channel.queue_declare(queue, durable=True)
        channel.queue_declare(queue + ".dead", durable=True)
    channel.queue_bind("log", "events", "saga.#")
    sys.exit()

channel.confirm_delivery()
for n in range(1, int(what) + 1):
    order = {"order": "o%d" % n, "item": 7, "card": "stolen" if n % 5 == 0 else "1234"}
    for again in range(2):  # as after a crash: the same order twice
        channel.basic_publish("", "orders", json.dumps(order).encode(), pika.BasicProperties(
            message_id="order-o%d-%d" % (n, again), content_type="application/json", delivery_mode=2))
ended = {}
deadline = time.time() + 120
while len(ended) < int(what) and time.time() < deadline:
    method, properties, body = channel.basic_get("log", auto_ack=True)
    if method is None:
        time.sleep(0.05)
        continue
    event = json.loads(body)
    ended[event["saga"]] = event["event"]
    print("saga %s: %s, order %s" % (event["saga"], event["event"], event["payload"]["key"]))
print("%d orders: %d completed, %d compensated" % (
    len(ended), list(ended.values()).count("completed"), list(ended.values()).count("compensated")))
sys.exit(0 if len(ended) == int(what) else 1)
