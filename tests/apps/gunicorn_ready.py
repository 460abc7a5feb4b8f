"""Settings of gunicorn for the tests: says "ready" when a worker takes requests."""


def post_worker_init(worker):
    print("ready", flush=True)
