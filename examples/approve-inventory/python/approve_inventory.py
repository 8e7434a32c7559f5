"""A site's rule: only machines of its inventory become nodes. The Rust version is in ../src.

How to build and run it is in ../../README.md; the inventory is a file like ../inventory.
"""

from inventory import Objection, Request, judge
from wit_world import exports
from wit_world.exports.hook import Judgement, Verdict
from wit_world.imports import csr, files, settings

SIGNERS = ("kubernetes.io/kube-apiserver-client-kubelet", "kubernetes.io/kubelet-serving")
# Where the API server puts the instance's id, unless the settings say otherwise.
INSTANCE_KEY = "mortise.dev/instance-id"


class Hook(exports.Hook):
    # An error of the host is raised as `Err`, and passes through as this function's own: the request waits.
    def review(self) -> Judgement:
        signer = csr.signer_name()
        if signer not in SIGNERS:
            return judgement(Verdict.ABSTAIN, "not-a-kubelet", f"{signer} does not sign for kubelets")
        inventory = files.read("/etc/mortise/inventory").decode(errors="replace")
        request = read_request()
        try:
            line = judge(inventory, request)
        except Objection as objection:
            return judgement(Verdict.DENY, objection.code, str(objection))
        message = f"{request.node} is in the inventory"
        return judgement(Verdict.APPROVE, "in-inventory", message, [("inventory", line)])


def read_request() -> Request:
    node, names = csr.node_name(), csr.alternative_names()
    key = settings.text("instance-key") or INSTANCE_KEY
    instance = next(iter(dict(csr.extra()).get(key, [])), None)
    newcomer = csr.username() != f"system:node:{node}"
    return Request(node, names.dns + names.ip + names.email + names.uri, newcomer, instance)


def judgement(verdict: Verdict, reason: str, message: str, evidence=()) -> Judgement:
    return Judgement(verdict, reason, message, None, list(evidence), [])
