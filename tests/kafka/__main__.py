"""``python -m tests.kafka``: run a development broker with whyflag's topics until Ctrl-C."""

import signal
import sys
import tempfile
from pathlib import Path

from core.settings import Settings
from streams.kafka.clients import create_topics
from tests.kafka import KafkaCluster


def main() -> None:
    """Run until SIGINT or SIGTERM."""
    for number in (signal.SIGINT, signal.SIGTERM):  # a script that starts this in the background has SIGINT ignored
        signal.signal(number, signal.default_int_handler)
    print("starting Apache Kafka (Maven fetches its jars the first time) …", flush=True)
    with tempfile.TemporaryDirectory(prefix="whyflag-kafka-") as folder:
        try:
            with KafkaCluster(Path(folder), lasting=True) as kafka:
                create_topics(Settings(kafka_bootstrap=kafka.bootstrap), partitions=4, replication=1)
                print(f"Kafka is running at {kafka.bootstrap} with all topics; Ctrl-C stops it and deletes its data.")
                print(f"  export WHYFLAG_KAFKA_BOOTSTRAP={kafka.bootstrap}", flush=True)
                signal.pause()
        except KeyboardInterrupt:
            print("\nstopped")
        except RuntimeError as error:
            sys.exit(f"error: {error}")


if __name__ == "__main__":
    main()
