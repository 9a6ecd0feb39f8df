"""A service with the quick answerer as a process of its own, to be killed: `python -m ... SETTINGS.json SECONDS`."""

from __future__ import annotations

import json
import signal
import sys
from pathlib import Path

from deploy.hospital.service.serve import Job, Service
from tests.deploy.hospital.quick import MODEL, quick
from toolkit.config.service import ServiceSettings

if __name__ == "__main__":
    settings = ServiceSettings.model_validate(json.loads(Path(sys.argv[1]).read_bytes()))
    service = Service(Job(settings, quick(float(sys.argv[2])), MODEL, say=lambda line: print(line, flush=True)))
    signal.signal(signal.SIGTERM, lambda *_: service.stop())
    service.run()
