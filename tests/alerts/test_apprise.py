"""Apprise behind the seam, in its child process, against a real HTTP server; and the laws of the seam, for both."""

import json
import re
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from tests.alerts.receiver import Receiver, receiver

from tidemill.alerts.apprise_child import SCHEMES, Errand, deliver
from tidemill.alerts.apprise_process import AppriseNotifier
from tidemill.alerts.notifier import Answer, Failure, Notifier
from tidemill.alerts.words import Message
from tidemill.core.clock import SystemClock
from tidemill.testing import eventually
from tidemill.testing.notifier import MemoryNotifier

MESSAGE = Message(route="oncall", title="default.phone: brightness drifted", body="- since noon", level="warning")


@pytest.fixture
def service() -> Iterator[Receiver]:
    with receiver() as found:
        yield found


def answer(notifier: Notifier, url: str) -> Answer:
    sending = notifier.send(url, MESSAGE)
    found = eventually(sending.answer, 40, every_s=0.05)
    assert found is not None
    assert sending.answer() == found
    return found


def test_a_message_is_taken_as_it_was_given(service: Receiver) -> None:
    assert answer(AppriseNotifier(SystemClock()), service.url()) == Answer("taken")
    (taken,) = service.messages
    assert (taken["title"], taken["message"], taken["type"]) == (MESSAGE.title, MESSAGE.body, "warning")


@pytest.mark.parametrize("make", [lambda: AppriseNotifier(SystemClock()), MemoryNotifier], ids=["apprise", "memory"])
def test_a_failure_is_an_answer_and_the_next_attempt_is_its_own(
    make: Callable[[], Notifier], service: Receiver
) -> None:
    notifier = make()
    service.status = 500
    if isinstance(notifier, MemoryNotifier):
        notifier.dead[service.url()] = Failure.REFUSED
    assert answer(notifier, service.url()).failure is Failure.REFUSED
    service.status = 200
    if isinstance(notifier, MemoryNotifier):
        notifier.dead.clear()
    assert answer(notifier, service.url()).failure is None


@pytest.mark.parametrize("status", [302, 404, 429, 500, 503])
def test_what_the_service_answered_is_said(status: int, service: Receiver) -> None:
    service.status = status
    found = answer(AppriseNotifier(SystemClock()), service.url())
    assert found.said.startswith(f"the service answered {status} ")
    assert service.requests == 1  # no redirect is followed


def test_a_redirect_is_not_followed_even_where_the_url_asks_for_it(service: Receiver) -> None:
    service.status = 302
    answer(AppriseNotifier(SystemClock()), service.url() + "?redirect=yes")
    assert service.requests == 1


@pytest.mark.parametrize("how", ["hangs", "trickles"])
def test_a_service_that_hangs_or_trickles_is_given_up(how: str, service: Receiver) -> None:
    setattr(service, how, True)
    clock = SystemClock()
    began = clock.monotonic()
    found = answer(AppriseNotifier(clock, deadline_s=2), service.url())
    assert found == Answer("the service did not answer within 2 s", Failure.SILENT)
    assert clock.monotonic() - began < 20


def test_a_connection_that_is_refused_is_unreachable(service: Receiver) -> None:
    found = answer(AppriseNotifier(SystemClock()), "json://127.0.0.1:1/hook")
    assert found == Answer("the connection was refused", Failure.UNREACHABLE)


@pytest.mark.parametrize(
    "url",
    [
        *(
            "file:///etc/passwd",
            "syslog://",
            "dbus://",
            "gnome://",
            "macosx://",
            "windows://",
            "exec://ls",
            "rsyslog://h",
        ),
        *("garbage", "", "://x", "fcm://project@key/?keyfile=/etc/passwd"),
        *("json://host/?attach=/etc/passwd", "mailto://u:p@host?pgpkey=/etc/passwd", "json://a/ json://b/?template=x"),
    ],
)
def test_what_is_no_service_is_refused_without_a_word_of_the_url(url: str) -> None:
    found = deliver(Errand(url=url, title="t", body="b", level="info", deadline_s=5))
    assert found.failure is Failure.MISCONFIGURED
    assert "passwd" not in found.said


def test_a_url_that_lacks_something_is_refused_without_a_word_of_it(service: Receiver) -> None:
    found = answer(AppriseNotifier(SystemClock()), "slack://too-little")
    assert found == Answer("Apprise cannot read the URL: something of its scheme is missing", Failure.MISCONFIGURED)


def test_every_scheme_that_may_be_called_is_one_of_apprise() -> None:
    program = "import apprise, json; print(json.dumps(apprise.Apprise().details()['schemas'], default=str))"
    run = subprocess.run([sys.executable, "-W", "ignore", "-c", program], capture_output=True, check=True)
    services = json.loads(run.stdout)
    known = {scheme for one in services for kind in ("protocols", "secure_protocols") for scheme in one[kind] or []}
    assert known >= SCHEMES


def test_the_documents_list_every_scheme_that_may_be_called() -> None:
    page = Path(__file__).parents[2] / "docs" / "how-to" / "be-alerted.md"
    listed = page.read_text().partition("<!-- schemes -->")[2]
    assert set(re.findall(r"\w+", listed)) == SCHEMES


@pytest.mark.parametrize(("status", "failure"), [(200, None), (500, Failure.REFUSED)])
def test_nothing_of_the_url_is_in_what_the_child_says(status: int, failure: Failure | None, service: Receiver) -> None:
    """Not even where libraries would log it: at most verbose, by its own arguments, or to stderr."""
    service.status = status
    url = f"json://aUser:aPassword@127.0.0.1:{service.port}/aToken?+X-Key=aHeader&-q=aParameter"
    sending = AppriseNotifier(SystemClock()).send(url, MESSAGE)
    assert sending._process is not None
    shown = subprocess.run(["ps", "-o", "args=", "-p", str(sending._process.pid)], capture_output=True, text=True)  # noqa: S607
    found = eventually(sending.answer, 40, every_s=0.05)
    assert found is not None
    assert found.failure is failure
    secrets = ("aUser", "aPassword", "aToken", "aHeader", "aParameter", str(service.port))
    assert not [secret for secret in secrets if secret in f"{found} {shown.stdout}"]


def test_a_message_that_is_under_way_outlives_the_order_to_end(service: Receiver) -> None:
    service.hangs = True
    sending = AppriseNotifier(SystemClock()).send(service.url(), MESSAGE)
    eventually(lambda: service.requests, 20)
    assert sending._process is not None
    sending._process.send_signal(signal.SIGTERM)
    service.hangs = False
    assert eventually(sending.answer, 40, every_s=0.05) == Answer("taken")


def test_a_child_that_is_cancelled_is_gone(service: Receiver) -> None:
    service.hangs = True
    sending = AppriseNotifier(SystemClock()).send(service.url(), MESSAGE)
    eventually(lambda: service.requests, 20)
    sending.cancel()
    assert sending._process is not None
    assert sending._process.returncode == -9
