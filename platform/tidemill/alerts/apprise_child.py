"""Sends one message with Apprise, and ends: the program that `apprise_process` starts for each attempt.

It reads one JSON object from stdin (`Errand`) and writes one to stdout (`Answer`). The URL holds a secret, so it comes
that way and not as an argument, and nothing of what Apprise, requests or urllib3 log leaves this process: the answer
is one of the sentences below, with the number of an HTTP status in it at most.

Apprise reads no configuration files, stores nothing, loads no plugins of one's own, and follows no redirects that
could carry a message and its secrets to somewhere else.
"""

import http
import logging
import re
import signal
import sys

import msgspec

from tidemill.alerts.notifier import Answer, Failure

__all__ = ["SCHEMES", "Errand", "deliver", "main"]

SCHEMES = frozenset(
    {
        *("json", "jsons", "form", "forms", "xml", "xmls", "apprise", "apprises"),
        *("mailto", "mailtos", "ses", "sendgrid", "mailgun", "postmark", "brevo", "resend"),
        *("slack", "discord", "workflows", "workflow", "mmost", "mmosts", "rocket", "rockets", "zulip"),
        *("gchat", "wxteams", "webex", "tgram", "matrix", "matrixs", "nctalk", "nctalks", "twist", "guilded"),
        *("signal", "signals", "threema", "whatsapp", "twilio", "vonage", "clicksend", "sns"),
        *("ntfy", "ntfys", "gotify", "gotifys", "pover", "pbul", "prowl", "bark", "barks", "spush"),
        *(
            "pagerduty",
            "opsgenie",
            "goalert",
            "goalerts",
            "signl4",
            "squadcast",
            "splunk",
            "victorops",
            "ilert",
            "incidentio",
        ),
        *("betterstack", "firehydrant", "pagertree", "spike", "jira", "github", "hassio", "hassios"),
    }
)
"""What may be called: services over the network by HTTPS or SMTP. Apprise knows more; those that run programs, write
files, talk to this machine's desktop or log, or read key files by a path in the URL are not among these."""

_FILES = re.compile(r"[?&](?:attach\w*|pgp\w*|pem\w*|smime\w*|keyfile|ca|cert\w*|template|config)=", re.IGNORECASE)
"""Parameters by which a URL would name a file to read."""
_CONNECT_S, _READ_S = 5, 10
_LEVELS = {"info": "info", "warning": "warning", "critical": "failure", "over": "success"}


class Errand(msgspec.Struct, frozen=True, kw_only=True):
    """What to send where, and how long it may take."""

    url: str
    title: str
    body: str
    level: str
    deadline_s: float


def main() -> None:
    """Do the errand on stdin, and tell what became of it."""
    errand = msgspec.json.decode(sys.stdin.buffer.read(), type=Errand)
    # The supervisor ends whole groups of processes; a message that is under way is to be told of first.
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, signal.SIG_IGN)
    # A last resort, beyond the parent's: an orphan ends, too, whatever it waits for.
    signal.alarm(max(1, round(errand.deadline_s) + 5))
    sys.stdout.buffer.write(msgspec.json.encode(deliver(errand)))


def deliver(errand: Errand) -> Answer:
    """Send it; the answer is in our own words."""
    scheme = errand.url.partition("://")[0].lower()
    if "://" not in errand.url or not scheme.isalnum():
        return Answer("the variable does not hold an Apprise URL, such as json://host/path", Failure.MISCONFIGURED)
    if scheme not in SCHEMES:
        return Answer("the URL's scheme is none that may be called: docs/how-to/be-alerted.md", Failure.MISCONFIGURED)
    if _FILES.search(errand.url):
        return Answer("the URL names a file of this machine, which is refused", Failure.MISCONFIGURED)
    import apprise

    heard = _Heard()
    asset = apprise.AppriseAsset(storage_mode="memory", plugin_paths=None, timezone="UTC", service_timeout=0)
    asset.http_redirects = False
    asset.pgp_autogen = asset.pem_autogen = False
    try:
        service = apprise.Apprise.instantiate(errand.url, asset=asset, suppress_exceptions=True)
        if service is None:
            return Answer("Apprise cannot read the URL: something of its scheme is missing", Failure.MISCONFIGURED)
        service.redirects = False
        service.socket_connect_timeout, service.socket_read_timeout = _CONNECT_S, _READ_S
        sent = service.notify(
            title=errand.title,
            body=errand.body,
            notify_type=apprise.NotifyType(_LEVELS.get(errand.level, "info")),
            body_format=apprise.NotifyFormat.TEXT,
        )
    except Exception:  # plugins raise what they like, and any of it may quote the URL
        return Answer("Apprise failed while it sent the message", Failure.BROKEN)
    return Answer("taken") if sent else heard.answer()


class _Heard(logging.Handler):
    """What libraries log in this process, kept to be recognised and never passed on."""

    def __init__(self) -> None:
        super().__init__(logging.DEBUG)
        self._lines: list[str] = []
        logging.root.handlers = [self]
        logging.root.setLevel(logging.DEBUG)
        for name in ("apprise", "urllib3", "requests"):
            logger = logging.getLogger(name)
            logger.handlers, logger.propagate, logger.disabled = [], True, False
            logger.setLevel(logging.DEBUG)

    def emit(self, record: logging.LogRecord) -> None:
        """Keep the line."""
        if len(self._lines) < 1000:
            self._lines.append(record.getMessage())

    def answer(self) -> Answer:
        """What went wrong, as far as the lines say it."""
        text = "\n".join(self._lines)
        if found := re.search(r"\berror\s*=\s*(\d{3})\b", text):
            return Answer(f"the service answered {_status(int(found[1]))}", Failure.REFUSED)
        for pattern, answer in _KNOWN:
            if re.search(pattern, text, re.IGNORECASE):
                return answer
        return Answer("the service did not take it, and Apprise does not say why", Failure.REFUSED)


_KNOWN = (
    (r"timed out|timeout", Answer("the service did not answer in time", Failure.SILENT)),
    (r"certificate", Answer("the service's certificate is not trusted", Failure.UNREACHABLE)),
    (r"name resolution|resolve|getaddrinfo|not known", Answer("the service's name is not known", Failure.UNREACHABLE)),
    (r"refused", Answer("the connection was refused", Failure.UNREACHABLE)),
    (r"connection", Answer("the connection failed", Failure.UNREACHABLE)),
)


def _status(number: int) -> str:
    try:
        return f"{number} {http.HTTPStatus(number).phrase}"
    except ValueError:
        return str(number)


if __name__ == "__main__":
    main()
