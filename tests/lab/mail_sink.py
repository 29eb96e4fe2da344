"""An SMTP server that keeps each message as a file: mail_sink.py DIRECTORY PORT"""
import asyncio
import os
import sys

from aiosmtpd.controller import UnthreadedController


class Keep:
    def __init__(self, directory):
        self.directory = directory
        self.count = len(os.listdir(directory))

    async def handle_DATA(self, server, session, envelope):
        self.count += 1
        name = os.path.join(self.directory, "%06d.eml" % self.count)
        with open(name + ".part", "wb") as out:
            out.write(envelope.original_content)
            out.flush()
            os.fsync(out.fileno())
        os.rename(name + ".part", name)
        return "250 kept"


directory, port = sys.argv[1], int(sys.argv[2])
os.makedirs(directory, exist_ok=True)
loop = asyncio.new_event_loop()
asyncio.set_event_loop(loop)
controller = UnthreadedController(Keep(directory), hostname="0.0.0.0", port=port, loop=loop)
loop.run_until_complete(controller.create_server() if hasattr(controller, "create_server") else controller._create_server())
loop.run_forever()
