"""An SMTP server that keeps each message as a file.

mail_sink.py DIRECTORY PORT [--tls starttls|implicit --cert FILE --key FILE] [--login USER:PASSWORD]

Some receivers are treated badly, each in its own way: of `refused@` it knows nothing, of `hangs@` it never
says a word, and the first message to `drops@` is kept, and its connection closed without an answer.
"""
import argparse
import asyncio
import os
import ssl

from aiosmtpd.controller import UnthreadedController
from aiosmtpd.smtp import AuthResult, LoginPassword


class Keep:
    def __init__(self, directory):
        self.directory = directory
        self.count = len(os.listdir(directory))
        self.dropped = False

    async def handle_RCPT(self, server, session, envelope, address, options):
        if address.startswith("refused@"):
            return "550 5.1.1 no such user"
        if address.startswith("hangs@"):
            await asyncio.sleep(86_400)
        envelope.rcpt_tos.append(address)
        return "250 OK"

    async def handle_DATA(self, server, session, envelope):
        self.count += 1
        name = os.path.join(self.directory, "%06d.eml" % self.count)
        with open(name + ".part", "wb") as out:
            out.write(envelope.original_content)
            out.flush()
            os.fsync(out.fileno())
        os.rename(name + ".part", name)
        if envelope.rcpt_tos[0].startswith("drops@") and not self.dropped:
            self.dropped = True
            server.transport.close()
        return "250 kept"


def certificate(options):
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(options.cert, options.key)
    return context


def only(login):
    """Lets in who says exactly this user and password."""
    user, password = (part.encode() for part in login.split(":", 1))

    def authenticate(server, session, envelope, mechanism, said):
        return AuthResult(success=said == LoginPassword(user, password), handled=False)

    return authenticate


def settings(options):
    chosen = {}
    if options.tls == "implicit":
        # The library takes only STARTTLS for TLS.
        chosen.update(ssl_context=certificate(options), auth_require_tls=False)
    if options.tls == "starttls":
        chosen.update(tls_context=certificate(options), require_starttls=True)
    if options.login:
        chosen.update(authenticator=only(options.login), auth_required=True)
    return chosen


parser = argparse.ArgumentParser()
parser.add_argument("directory")
parser.add_argument("port", type=int)
parser.add_argument("--tls", choices=["starttls", "implicit"])
parser.add_argument("--cert")
parser.add_argument("--key")
parser.add_argument("--login")
options = parser.parse_args()
os.makedirs(options.directory, exist_ok=True)
loop = asyncio.new_event_loop()
asyncio.set_event_loop(loop)
keep = Keep(options.directory)
controller = UnthreadedController(keep, hostname="0.0.0.0", port=options.port, loop=loop, **settings(options))
loop.run_until_complete(controller.create_server() if hasattr(controller, "create_server") else controller._create_server())
loop.run_forever()
