# What tests do with RabbitMQ: one request, as JSON, from standard input; one reply.
import json
import logging
import sys
import time

import pika

logging.disable(logging.CRITICAL)


def message(method, properties, body):
    return {
        "key": method.routing_key,
        "exchange": method.exchange,
        "redelivered": method.redelivered,
        "id": properties.message_id,
        "type": properties.type,
        "content_type": properties.content_type,
        "correlation_id": properties.correlation_id,
        "reply_to": properties.reply_to,
        "persistent": properties.delivery_mode == 2,
        "headers": {k: v if isinstance(v, (str, int, float, bool)) else str(v) for k, v in (properties.headers or {}).items()},
        "body": body.decode("utf-8", "replace"),
    }


def publish(channel, m):
    properties = pika.BasicProperties(
        message_id=m.get("id"), type=m.get("type"), content_type=m.get("content_type"),
        correlation_id=m.get("correlation_id"), reply_to=m.get("reply_to"),
        headers=m.get("headers"), delivery_mode=2)
    channel.basic_publish(m.get("exchange", ""), m["key"], m.get("body", "").encode(), properties, mandatory=True)


def consume(channel, queue, n, seconds):
    got = []
    end = time.time() + seconds
    while len(got) < n and (seconds == 0 or time.time() < end):
        method, properties, body = channel.basic_get(queue)
        if method is None:
            if seconds == 0:
                break
            time.sleep(0.02)
            continue
        got.append(message(method, properties, body))
        last = method.delivery_tag
    if got:
        channel.basic_ack(last, multiple=True)
    return got


def do(request):
    credentials = pika.PlainCredentials(request["user"], request["password"])
    connection = pika.BlockingConnection(pika.ConnectionParameters(
        "127.0.0.1", request["port"], "/", credentials, heartbeat=0, socket_timeout=10,
        blocked_connection_timeout=60, connection_attempts=1))
    channel = connection.channel()
    reply = {"ok": 1}
    what = request["do"]
    if what == "declare":
        for name, kind in request.get("exchanges", {}).items():
            channel.exchange_declare(name, kind, durable=True)
        for name, arguments in request.get("queues", {}).items():
            channel.queue_declare(name, durable=True, arguments=arguments)
        for exchange, key, queue in request.get("bindings", []):
            channel.queue_bind(queue, exchange, key)
    elif what == "delete_queue":
        channel.queue_delete(request["queue"])
    elif what == "purge":
        channel.queue_purge(request["queue"])
    elif what == "depth":
        reply["depth"] = channel.queue_declare(request["queue"], passive=True).method.message_count
    elif what == "consume":
        reply["messages"] = consume(channel, request["queue"], request["n"], request["seconds"])
    elif what == "publish":
        channel.confirm_delivery()
        for m in request["messages"]:
            publish(channel, m)
    elif what == "many":
        # no confirms: n messages, whose ids and bodies are made of their numbers
        for i in range(request["n"]):
            publish(channel, {"key": request["queue"], "id": "%s%d" % (request["prefix"], i), "content_type": "application/json",
                              "body": json.dumps({"n": i})})
        reply["depth"] = 0
    connection.close()
    return reply


try:
    print(json.dumps(do(json.load(sys.stdin))))
except Exception as e:  # noqa: the test wants to know
    print(json.dumps({"error": "%s: %s" % (type(e).__name__, e)}))
