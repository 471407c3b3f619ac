"""The marketplace beside a stack that runs: products to Kafka and to the endpoint, and what the desks say to Kafka."""

import heapq
from collections.abc import Mapping
from types import TracebackType
from typing import Any

import httpx
import msgspec
import numpy as np

from tidemill.core.clock import Clock, to_ms
from tidemill.events.kafka import RecordWriter
from tidemill.events.records import Label, encode
from tidemill.spec.model import ContinualModel
from tidemill.spec.paths import predict_path

from .desks import Desks
from .products import Product, draw

__all__ = ["Market"]


class Market:
    """Lists products. A context.

    Args:
        resource: the model's: its topics, its endpoint's path.
        kafka: bootstrap servers.
        endpoint: base URL of predict requests.
        seed: of products and desks.
        clock: the market's.
    """

    def __init__(self, resource: ContinualModel, *, kafka: str, endpoint: str, seed: int, clock: Clock) -> None:
        self._resource, self._clock, self._rng = resource, clock, np.random.default_rng(seed)
        self.desks = Desks(self._rng)
        self.listed = self.answered = self.right = 0
        self._writer = RecordWriter(kafka, client_id="marketplace")
        self._client, self._url = httpx.Client(timeout=5.0), endpoint + predict_path(resource)
        self._waiting: list[tuple[float, int, Label]] = []
        self._batch = f"{to_ms(clock.now()):x}"

    def __enter__(self) -> "Market":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if kind is None:
            self._writer.flush()
        self._writer.close()
        self._client.close()

    def archive(self, count: int, shares: Mapping[str, float]) -> None:
        """Enter products of earlier, a hundred a second up to now, each labelled by one person."""
        now = to_ms(self._clock.now())
        for number, product in enumerate(draw(self._rng, count, shares)):
            name, at = f"old-{self._batch}-{number}", now - 2000 - 10 * (count - number)
            self._list(name, product, at)
            self._say(self._label(name, product, "archive", product.kind))

    def run(self, seconds: float, rate: float, shares: Mapping[str, float]) -> None:
        """List products for so long, and wait for the desks to label them all."""
        end = self._clock.monotonic() + seconds
        while self._clock.monotonic() < end:
            (product,) = draw(self._rng, 1, shares)
            name = f"live-{self._batch}-{self.listed}"
            self.listed += 1
            self._list(name, product, to_ms(self._clock.now()))
            answer = self._ask(name, product)
            if answer is not None:
                self.answered += 1
                self.right += answer["class"] == product.kind
            for word in self.desks.label(product, answer["confidence"] if answer else 0.0):
                due = self._clock.monotonic() + float(self._rng.uniform(5, 20))
                label = self._label(name, product, word.desk, word.kind)
                heapq.heappush(self._waiting, (due, len(self._waiting) + 100 * self.listed, label))
            self._say_due()
            self._clock.sleep(1 / rate)
        while self._waiting:
            self._clock.sleep(0.1)
            self._say_due()

    def _list(self, name: str, product: Product, at: int) -> None:
        event = {"product_id": name, "seller": product.seller, "listed_at": at, **_fields(product)}
        self._writer.send(self._resource.events_topic, msgspec.json.encode(event), key=product.seller)

    def _ask(self, name: str, product: Product) -> dict[str, Any] | None:
        """The answer; None where there is none: before the first version, or while a server is replaced."""
        body = {"instances": [{"seller": product.seller, "product_id": name, **_fields(product)}]}
        try:
            response = self._client.post(self._url, json=body)
            found: dict[str, Any] | None = response.json()["predictions"][0] if response.status_code == 200 else None
        except (httpx.HTTPError, ValueError, LookupError, TypeError):
            return None
        return found

    def _label(self, name: str, product: Product, desk: str, kind: str) -> Label:
        return Label(value={"kind": kind}, labeller=desk, entity=product.seller, event_id=name)

    def _say_due(self) -> None:
        while self._waiting and self._waiting[0][0] <= self._clock.monotonic():
            self._say(heapq.heappop(self._waiting)[2])

    def _say(self, label: Label) -> None:
        self._writer.send(self._resource.labels_topic, encode(label), key=label.entity or "")


def _fields(product: Product) -> dict[str, Any]:
    return {"title": product.title, "price": product.price, "grams": product.grams}
