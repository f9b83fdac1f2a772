"""Charges cards, and gives the money back: a service that knows RabbitMQ, and not PostgreSQL.

    python3 payments.py PORT

Commands may come twice: what was done is known by the idempotency key.  (Here that is kept
in memory; a real service keeps it where it keeps its payments.)
"""
import json
import sys
import uuid

import pika

done = {}


def handle(channel, method, properties, body):
    command = json.loads(body)
    key = command["idempotency_key"]
    if key not in done:
        if command["action"] == "compensate":
            done[key] = ("ok", {"result": {"refunded": True}})
        elif command["input"].get("card") == "stolen":
            done[key] = ("failed", {"error": "the card was refused"})
        else:
            done[key] = ("ok", {"result": {"payment": "P-%s" % command["saga"]}})
    status, reply = done[key]
    channel.basic_publish(
        "", properties.reply_to, json.dumps(reply).encode(),
        pika.BasicProperties(message_id=str(uuid.uuid4()), correlation_id=properties.correlation_id,
                             content_type="application/json", delivery_mode=2, headers={"status": status}))
    # the command is acknowledged when the reply is with the broker
    channel.basic_ack(method.delivery_tag)


connection = pika.BlockingConnection(pika.ConnectionParameters("127.0.0.1", int(sys.argv[1])))
channel = connection.channel()
channel.confirm_delivery()
channel.basic_qos(prefetch_count=20)
channel.basic_consume("payments", handle)
channel.start_consuming()
