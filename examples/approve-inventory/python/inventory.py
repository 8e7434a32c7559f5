"""What the inventory says of a request. The same as ../src/judge.rs; knows nothing of the host."""

from dataclasses import dataclass
from ipaddress import ip_address


@dataclass
class Request:
    node: str
    # DNS names and addresses that it asks for; none for a client certificate.
    names: list[str]
    # A machine that is to become the node asks, not the node itself.
    newcomer: bool
    # The instance that the requester's credential names.
    instance: str | None


class Objection(Exception):
    """What is wrong with a request: a code for programs, a line for people."""

    def __init__(self, code: str, message: str):
        super().__init__(message)
        self.code = code


def judge(inventory: str, request: Request) -> str:
    """The machine's line, or an objection."""
    entries = (line.partition("#")[0].split() for line in inventory.splitlines())
    entry = next((words for words in entries if words and words[0] == request.node), None)
    if entry is None:
        raise Objection("not-in-inventory", f"{request.node} is not in the inventory")
    listed = {plain(word) for word in entry}
    for name in request.names:
        if plain(name) not in listed:
            raise Objection("name-not-listed", f"the inventory does not list {name} for {request.node}")
    expected = next((word.removeprefix("id=") for word in entry if word.startswith("id=")), None)
    if request.newcomer and expected and request.instance != expected:
        found = request.instance or "a machine without an identity"
        raise Objection("wrong-instance", f"{request.node} is {expected}, but {found} asks")
    return " ".join(entry[1:])


def plain(name: str):
    """Addresses are compared as addresses, names as DNS does."""
    try:
        return ip_address(name)
    except ValueError:
        return name.lower()
