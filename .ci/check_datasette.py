"""Follows the README's section on Datasette in fresh environments, word for word, on both versions of Datasette."""

import json
import os
import re
import signal
import subprocess
import tempfile
import threading
import urllib.request
import venv
from pathlib import Path

CHECKOUT = Path(__file__).resolve().parents[1]
SECTION = (CHECKOUT / "README.md").read_text().split("## Datasette\n")[1].split("\n## ")[0]
YAML = re.search(r"```yaml\n(.*?)```", SECTION, re.DOTALL)[1]
SHELL = [text for language, text in re.findall(r"```(\w+)\n(.*?)```", SECTION, re.DOTALL) if language == "sh"]
INSTALL, SERVE, CURL = SHELL[:3]
STABLE = re.search(r"On the stable Datasette \(`([^`]*)`\)", SECTION)[1]


def follow(install: str, serve: str, name: str) -> None:
    """Run the three blocks in a folder and an environment of their own."""
    with tempfile.TemporaryDirectory() as folder:
        venv.create(Path(folder, "environment"), with_pip=True)
        path = f"{folder}/environment/bin:{os.environ['PATH']}"
        environment = {**os.environ, "PATH": path, "PIP_DISABLE_PIP_VERSION_CHECK": "1"}
        # Of all that is written there, only this is not on any index yet.
        here = install.replace("'asgi-token-auth[", f"'{CHECKOUT}[")
        subprocess.run(
            ["bash", "-euc", here.replace("pip install", "pip install -q")], cwd=folder, env=environment, check=True
        )
        Path(folder, name).write_text(YAML)
        server = subprocess.Popen(
            ["bash", "-euc", serve],
            cwd=folder,
            env=environment,
            stderr=subprocess.PIPE,
            text=True,
            start_new_session=True,
        )
        stopper = threading.Timer(120, lambda: os.killpg(server.pid, signal.SIGKILL))
        stopper.start()
        try:
            assert server.stderr is not None
            for line in server.stderr:
                print(line, end="")
                if "running on" in line:
                    break
            threading.Thread(target=server.stderr.read, daemon=True).start()
            exports = serve.splitlines()[0]
            answered = subprocess.run(
                ["bash", "-euc", f"{exports}\n{CURL.replace('curl ', 'curl --silent --fail ')}"],
                capture_output=True,
                text=True,
                check=True,
            )
            assert json.loads(answered.stdout)["actor"]["id"] == "bot", answered.stdout
            with urllib.request.urlopen("http://127.0.0.1:8001/-/actor.json") as nobody:
                assert json.load(nobody)["actor"] is None
            with urllib.request.urlopen("http://127.0.0.1:8001/-/versions.json") as versions:
                print("Works as written on Datasette", json.load(versions)["datasette"]["version"])
        finally:
            os.killpg(server.pid, signal.SIGINT)
            server.wait(timeout=10)
            stopper.cancel()


follow(INSTALL, SERVE, "datasette.yaml")
follow(STABLE, SERVE.replace("-c datasette.yaml", "-m metadata.yaml"), "metadata.yaml")
