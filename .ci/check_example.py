"""Runs the command given as argument, which starts the example, and then every curl line that it prints."""

import json
import os
import re
import signal
import subprocess
import sys
import threading


def curl(*arguments: str) -> tuple[int, dict[str, str], str]:
    done = subprocess.run(["curl", "--silent", "--include", *arguments], capture_output=True, text=True, check=True)
    head, _, body = done.stdout.partition("\n\n")
    lines = head.splitlines()
    headers = {name.lower(): value for name, _, value in (line.partition(": ") for line in lines[1:])}
    return int(lines[0].split()[1]), headers, body


def wrong(token: str) -> str:
    return token[:-1] + ("A" if token[-1] != "A" else "B")


example = subprocess.Popen(["bash", "-euc", sys.argv[1]], stdout=subprocess.PIPE, text=True, start_new_session=True)
stopper = threading.Timer(300, lambda: os.killpg(example.pid, signal.SIGKILL))
stopper.start()
printed = []
for line in example.stdout:
    print(line, end="")
    printed.append(line)
    if "Ctrl-C" in line:
        break
text = "".join(printed)
try:
    commands = re.findall(r"^  curl (.*)$", text, re.MULTILINE)
    assert len(commands) == 5, commands
    for command in commands:
        with_header = re.fullmatch(r"-H 'Authorization: Bearer (\S+)' (\S+)", command)
        with_parameter = re.fullmatch(r"'(\S+\?_auth_token=)(\S+)'", command)
        if with_header:
            token, address = with_header.groups()
            good, bad = (
                ["-H", f"Authorization: Bearer {token}", address],
                ["-H", f"Authorization: Bearer {wrong(token)}", address],
            )
        else:
            assert with_parameter, command
            address, token = with_parameter.groups()
            good, bad = [address + token], [address + wrong(token)]
        pasted = subprocess.run(f"curl --silent {command}", shell=True, capture_output=True, text=True, check=True)
        assert json.loads(pasted.stdout)["actor"]["id"], pasted.stdout
        status, _, body = curl(*good)
        assert status == 200, (command, status, body)
        status, headers, body = curl(*bad)
        assert status == 401, (command, status, body)
        assert headers["www-authenticate"].startswith("Bearer "), headers
    address = re.search(r"^Datasette: (\S+)$", text, re.MULTILINE)[1]
    status, _, body = curl(address + "-/actor.json")
    assert status == 200, body
    assert json.loads(body)["actor"] is None, body
    login = re.search(r"(http\S+auth-token\S+)", text)[1]
    status, headers, _ = curl(login)
    assert status == 302, status
    assert "ds_actor" in headers["set-cookie"], headers
finally:
    os.killpg(example.pid, signal.SIGINT)
    example.wait(timeout=10)
    stopper.cancel()
print("Every printed command works, and none with a wrong letter.")
